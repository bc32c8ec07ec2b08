"""comfy-kitchen: ComfyUI's scaled fp8, old and new, described by a tensor beside a weight or by the header, and the
other formats of its new files, which are only read."""
import json
import sys
import torch

# Its kernels of Triton look for a GPU while they are imported.
triton = sys.modules.get("triton")
sys.modules["triton"] = None
from comfy_kitchen.backends.eager.quantization import (
    dequantize_int8_simple, dequantize_mxfp8, dequantize_nvfp4, dequantize_per_tensor_fp8, quantize_int8_rowwise,
    quantize_int8_tensorwise, quantize_mxfp8, quantize_nvfp4, quantize_per_tensor_fp8)
from . import Scheme

if triton is not None:
    sys.modules["triton"] = triton
else:
    del sys.modules["triton"]


def described(module, form):
    """The tensor that describes a layer."""
    text = json.dumps({"format": form}).encode()
    return {f"{module}.comfy_quant": torch.frombuffer(bytearray(text), dtype=torch.uint8)}


class Scaled(Scheme):
    single_file, experts = True, ()

    def __init__(self, where, dtype):
        self.where, self.code = where, dtype
        self.form = str(dtype).removeprefix("torch.")
        self.name = f"comfy {self.form}, {where}"
        self.part = "scale_weight" if where == "old" else "weight_scale"

    def store(self, name, weight):
        module = name.removesuffix(".weight")
        scale = (weight.abs().amax() / torch.finfo(self.code).max).float()
        stored = {name: quantize_per_tensor_fp8(weight, scale, self.code), f"{module}.{self.part}": scale}
        return stored | (described(module, self.form) if self.where == "by tensors" else {})

    def read(self, name, tensors, shape):
        scale = tensors[f"{name.removesuffix('.weight')}.{self.part}"]
        return dequantize_per_tensor_fp8(tensors[name], scale, torch.float32)

    def model(self):
        return {"scaled_fp8": torch.zeros(2, dtype=self.code)} if self.where == "old" else {}

    def metadata(self, quantised):
        layers = {name.removesuffix(".weight"): {"format": self.form} for name in quantised}
        text = json.dumps({"format_version": "1.0", "layers": layers})
        return {"_quantization_metadata": text} if self.where == "by the header" else None


class Read(Scheme):
    single_file, experts, written = True, (), False
    # NVFP4 has 16 columns a scale, MXFP8 32; both are padded otherwise, which the module alone knows.
    rows = columns = 32

    def __init__(self, form):
        self.form, self.name = form, f"comfy {form}"

    def store(self, name, weight):
        module = name.removesuffix(".weight")
        if self.form == "nvfp4":
            constant = (weight.abs().amax() / 2688).float()
            codes, scale = quantize_nvfp4(weight, constant)
            parts = {f"{module}.weight_scale_2": constant}
        elif self.form == "mxfp8":
            (codes, scale), parts = quantize_mxfp8(weight), {}
        else:
            by_rows = name.endswith("mlp.0.weight")
            (codes, scale), parts = (quantize_int8_rowwise if by_rows else quantize_int8_tensorwise)(weight), {}
        return {name: codes, f"{module}.weight_scale": scale} | parts | described(module, self.form)

    def read(self, name, tensors, shape):
        scale = tensors[f"{name}_scale"]
        if self.form == "nvfp4":
            return dequantize_nvfp4(tensors[name], tensors[f"{name}_scale_2"], scale, torch.float32)
        if self.form == "mxfp8":
            return dequantize_mxfp8(tensors[name], scale, torch.float32)
        return dequantize_int8_simple(tensors[name], scale)


def schemes(rng):
    kinds = [torch.float8_e4m3fn, torch.float8_e5m2]
    scaled = [Scaled(where, kind) for where in ["old", "by tensors", "by the header"] for kind in kinds]
    return scaled + [Read(form) for form in ["nvfp4", "mxfp8", "int8_tensorwise"]]
