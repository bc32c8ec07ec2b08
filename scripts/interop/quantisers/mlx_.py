"""MLX on the CPU: affine codes of 2 to 8 bits. Scales and biases are rounded to bf16 after the codes are made."""
import mlx.core as mx
import numpy as np
import torch
from . import Scheme

mx.set_default_device(mx.cpu)
array = lambda tensor: mx.array(tensor.float().numpy())


class Affine(Scheme):
    experts = ("switch",)

    def __init__(self, bits, group):
        self.bits, self.group, self.columns = bits, group, group
        self.name = f"mlx {bits} bit g{group}"

    def store(self, name, weight):
        module = name.removesuffix(".weight")
        codes, scales, biases = mx.quantize(array(weight), group_size=self.group, bits=self.bits)
        number = lambda of: torch.from_numpy(np.array(of)).to(torch.bfloat16)
        codes = torch.from_numpy(np.array(codes).view(np.int32)).view(torch.uint32)
        return {name: codes, f"{module}.scales": number(scales), f"{module}.biases": number(biases)}

    def read(self, name, tensors, shape):
        module = name.removesuffix(".weight")
        codes = mx.array(tensors[name].view(torch.int32).numpy().view(np.uint32))
        scales, biases = (array(tensors[f"{module}.{part}"]) for part in ["scales", "biases"])
        values = mx.dequantize(codes, scales, biases, group_size=self.group, bits=self.bits)
        return torch.from_numpy(np.array(values))

    def config(self, skipped):
        fields = {"group_size": self.group, "bits": self.bits, "mode": "affine"} | {name: False for name in skipped}
        return {"quantization": fields, "quantization_config": dict(fields)}


def schemes(rng):
    return [Affine(bits, int(rng.choice([32, 64, 128]))) for bits in [2, 3, 4, 5, 6, 8]]
