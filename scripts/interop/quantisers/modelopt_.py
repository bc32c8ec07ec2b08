"""NVIDIA ModelOpt: fp8 with one scale, and NVFP4, by the classes of its tensors alone."""
import torch
from modelopt.torch.quantization.qtensor.fp8_tensor import FP8QTensor
from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor
from . import Scheme

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


class Fp8(Scheme):
    name = "modelopt fp8"
    algorithm = "FP8"

    def store(self, name, weight):
        module = name.removesuffix(".weight")
        scale = weight.abs().amax().float() / 448
        codes, _ = FP8QTensor.quantize(weight, scale)
        return {name: codes._quantized_data, f"{module}.weight_scale": scale, f"{module}.input_scale": torch.tensor(0.5)}

    def read(self, name, tensors, shape):
        return tensors[name].float() * tensors[f"{name}_scale"]

    def config(self, skipped):
        return {"quantization_config": {"quant_method": "modelopt", "quant_algo": self.algorithm, "ignore": skipped}}

    def files(self, skipped):
        told = {"quant_algo": self.algorithm, "exclude_modules": skipped}
        return {"hf_quant_config.json": {"producer": {"name": "modelopt"}, "quantization": told}}


class Nvfp4(Fp8):
    name, algorithm, columns = "modelopt NVFP4", "NVFP4", 16

    def store(self, name, weight):
        codes, scale, constant = NVFP4QTensor.quantize(weight, 16)
        return {name: codes._quantized_data, f"{name}_scale": scale, f"{name}_scale_2": constant.float().reshape(())}

    def read(self, name, tensors, shape):
        codes = tensors[name].int()
        numbers = torch.stack([E2M1[codes & 15], E2M1[codes >> 4]], -1).reshape(shape)
        scale = tensors[f"{name}_scale"].float() * tensors[f"{name}_scale_2"]
        return numbers * scale.repeat_interleave(16, 1)


def schemes(rng):
    return [Fp8(), Nvfp4()]
