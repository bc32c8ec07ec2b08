"""transformers' own quantisers: fp8 in blocks (with f32 scales and powers of two, matrices and stacks of experts), and
gpt-oss' MXFP4. Ragged edges are padded with zeros and cropped, as in DeepSeek's kernel; transformers leaves such
weights as they are."""
import types
import numpy as np
import torch
from transformers.integrations.finegrained_fp8 import Fp8Quantize, _dequantize_fp8_weight
from . import Scheme


class Blocks(Scheme):
    stacks = True

    def __init__(self, block, ue8m0):
        self.block, self.ue8m0 = block, ue8m0
        self.name = f"fp8 block {block[0]}x{block[1]}" + (" ue8m0" if ue8m0 else "")
        settings = types.SimpleNamespace(weight_block_size=block, scale_fmt="ue8m0" if ue8m0 else None)
        self.quantiser = Fp8Quantize(types.SimpleNamespace(quantization_config=settings))

    def store(self, name, weight):
        rows, columns = weight.shape[-2:]
        padded = torch.nn.functional.pad(weight, (0, -columns % self.block[1], 0, -rows % self.block[0]))
        parts = self.quantiser._quantize_one(name, padded)
        parts[name] = parts[name][..., :rows, :columns]
        return {part: value.contiguous() for part, value in parts.items()}

    def read(self, name, tensors, shape):
        scale = name.removesuffix(".weight") + ".weight_scale_inv" if name.endswith(".weight") else name + "_scale_inv"
        return _dequantize_fp8_weight(tensors[name], tensors[scale], list(self.block), torch.float32)

    def config(self, skipped):
        fields = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                  "weight_block_size": list(self.block), "modules_to_not_convert": skipped}
        return {"quantization_config": fields | ({"scale_fmt": "ue8m0"} if self.ue8m0 else {})}


def schemes(rng):
    found = [Blocks((128, 128), False), Blocks((128, 128), True)]
    return found + [Blocks((int(rng.choice([16, 32, 64])), int(rng.choice([32, 48, 128]))), False)]
