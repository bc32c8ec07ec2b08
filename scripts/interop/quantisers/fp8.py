"""transformers' own quantiser: fp8 in blocks, with f32 scales and powers of two, matrices and stacks of experts.
Ragged edges are padded with zeros and cropped, as in DeepSeek's kernel; transformers leaves such weights as they are."""
import types
import numpy as np
import torch
from transformers.integrations.finegrained_fp8 import Fp8Quantize, _dequantize_fp8_weight
from . import Scheme


class Blocks(Scheme):
    experts = ("single", "stack")

    def __init__(self, block, ue8m0=None):
        self.block, self.ue8m0 = block, ue8m0
        self.name = f"fp8 block {block[0]}x{block[1]}" + (f" ue8m0 {str(ue8m0).removeprefix('torch.')}" if ue8m0 else "")
        settings = types.SimpleNamespace(weight_block_size=block, scale_fmt="ue8m0" if ue8m0 else None)
        self.quantiser = Fp8Quantize(types.SimpleNamespace(quantization_config=settings))

    def store(self, name, weight):
        rows, columns = weight.shape[-2:]
        padded = torch.nn.functional.pad(weight, (0, -columns % self.block[1], 0, -rows % self.block[0]))
        parts = self.quantiser._quantize_one(name, padded)
        parts[name] = parts[name][..., :rows, :columns]
        scale = self.scale_of(name)
        if self.ue8m0 == torch.uint8:
            parts[scale] = parts[scale].to(torch.float8_e8m0fnu).view(torch.uint8)
        elif self.ue8m0:
            parts[scale] = parts[scale].to(self.ue8m0)
        return {part: value.contiguous() for part, value in parts.items()}

    def scale_of(self, name):
        return name.removesuffix(".weight") + ".weight_scale_inv" if name.endswith(".weight") else name + "_scale_inv"

    def read(self, name, tensors, shape):
        scale = tensors[self.scale_of(name)]
        if scale.dtype == torch.uint8:
            scale = scale.view(torch.float8_e8m0fnu)
        return _dequantize_fp8_weight(tensors[name], scale.float(), list(self.block), torch.float32)

    def config(self, skipped):
        fields = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                  "weight_block_size": list(self.block), "modules_to_not_convert": skipped}
        return {"quantization_config": fields | ({"scale_fmt": "ue8m0"} if self.ue8m0 else {})}


def schemes(rng):
    found = [Blocks((128, 128), powers) for powers in [None, torch.float32, torch.uint8, torch.float8_e8m0fnu]]
    return found + [Blocks((int(rng.choice([16, 32, 64])), int(rng.choice([32, 48, 128]))))]
