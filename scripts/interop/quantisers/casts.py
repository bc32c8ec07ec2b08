"""Plain casts to 8-bit floats, as diffusion models are published: every tensor of the file, without scales. torch's own
cast, of numbers that are cut to the largest first."""
import torch
from . import Scheme


class Cast(Scheme):
    single_file, experts = True, ()

    def __init__(self, code):
        self.code = self.plain_dtype = code
        self.name = f"plain cast {str(code).removeprefix('torch.float8_')}"

    def store(self, name, weight):
        most = torch.finfo(self.code).max
        return {name: weight.clamp(-most, most).to(self.code)}

    def read(self, name, tensors, shape):
        return tensors[name].float()


def schemes(rng):
    return [Cast(torch.float8_e4m3fn), Cast(torch.float8_e5m2)]
