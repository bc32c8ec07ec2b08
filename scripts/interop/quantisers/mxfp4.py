"""gpt-oss's MXFP4: codes of the gguf package (whose scales are OpenAI's), two elements to a byte as transformers reads
them. Only experts are quantised."""
import numpy as np
import torch
from gguf import GGMLQuantizationType, quants
from transformers.integrations.mxfp4 import convert_moe_packed_tensors
from . import Scheme

GROUP = 32


class Mxfp4(Scheme):
    name, experts, rows, columns = "gpt-oss MXFP4", ("turned",), 2, GROUP

    def store(self, name, weight):
        experts, inputs, outputs = weight.shape
        rows = weight.transpose(1, 2).contiguous().numpy().reshape(-1, inputs)
        blocks = quants.quantize(rows, GGMLQuantizationType.MXFP4).reshape(experts, outputs, inputs // GROUP, 17)
        # Elements k and k + 16 lie together there, 2k and 2k + 1 here.
        halves = blocks[..., 1:]
        codes = np.concatenate([halves & 15, halves >> 4], -1)
        pairs = codes[..., 0::2] | codes[..., 1::2] << 4
        return {f"{name}_blocks": torch.from_numpy(pairs), f"{name}_scales": torch.from_numpy(blocks[..., 0].copy())}

    def read(self, name, tensors, shape):
        return convert_moe_packed_tensors(tensors[f"{name}_blocks"], tensors[f"{name}_scales"], dtype=torch.float32)

    def part_of(self, tensor, name):
        return tensor in (f"{name}_blocks", f"{name}_scales")

    def config(self, skipped):
        left = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
        return {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": left}}


def schemes(rng):
    return [Mxfp4()]
