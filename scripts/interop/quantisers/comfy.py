"""comfy-kitchen: ComfyUI's scaled fp8, old and new, by the tensor beside a weight or by the header."""
import json
import sys
import torch

# Its kernels of Triton look for a GPU while they are imported.
triton = sys.modules.get("triton")
sys.modules["triton"] = None
from comfy_kitchen.backends.eager.quantization import dequantize_per_tensor_fp8, quantize_per_tensor_fp8
from . import Scheme

if triton is not None:
    sys.modules["triton"] = triton
else:
    del sys.modules["triton"]


class Scaled(Scheme):
    single_file = True

    def __init__(self, old, dtype):
        self.old, self.code = old, dtype
        self.name = f"comfy fp8 {'old' if old else 'new'} {str(dtype).removeprefix('torch.float8_')}"

    def store(self, name, weight):
        module = name.removesuffix(".weight")
        scale = (weight.abs().amax() / torch.finfo(self.code).max).float()
        codes = quantize_per_tensor_fp8(weight, scale, self.code)
        if self.old:
            return {name: codes, f"{module}.scale_weight": scale}
        told = {"format": str(self.code).removeprefix("torch.")}
        told = torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)
        return {name: codes, f"{module}.weight_scale": scale, f"{module}.comfy_quant": told}

    def read(self, name, tensors, shape):
        module = name.removesuffix(".weight")
        scale = tensors[f"{module}.scale_weight" if self.old else f"{module}.weight_scale"]
        return dequantize_per_tensor_fp8(tensors[name], scale, torch.float32)

    def model(self):
        return {"scaled_fp8": torch.zeros(2, dtype=self.code)} if self.old else {}


def schemes(rng):
    kinds = [torch.float8_e4m3fn, torch.float8_e5m2]
    return [Scaled(old, kind) for old in [True, False] for kind in kinds]
