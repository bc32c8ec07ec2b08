"""AutoAWQ's gemm layout: its quantiser's scales, rounded to f16 before they are used, and its packing."""
import torch
from . import Scheme, alone

alone("awq", "utils", "modules", "modules.linear", "quantize")
from awq.modules.linear.gemm import WQLinear_GEMM
from awq.utils.packing_utils import dequantize_gemm


class Awq(Scheme):
    dtype, rows = "float16", 32

    def __init__(self, group):
        self.name, self.group, self.columns = f"awq g{group}", group, group

    def store(self, name, weight):
        groups = weight.reshape(weight.shape[0], -1, self.group)
        low, high = groups.amin(2), groups.amax(2)
        # pseudo_quantize_tensor, whose module needs the whole package.
        scales = ((high - low).clamp(min=1e-5) / 15).half().float()
        zeros = (-torch.round(low / scales)).clamp(0, 15)
        spread = lambda of: of.repeat_interleave(self.group, 1)
        codes = torch.clamp(torch.round((weight + spread(zeros * scales)) / spread(scales)), 0, 15)
        linear = torch.nn.Linear(*weight.T.shape, bias=False)
        linear.weight.data = (codes - spread(zeros)) * spread(scales)
        layer = WQLinear_GEMM.from_linear(linear, 4, self.group, False, scales.T.contiguous(), zeros.T.contiguous())
        parts = {"qweight": layer.qweight, "qzeros": layer.qzeros, "scales": layer.scales.half()}
        return {name.removesuffix("weight") + part: value.contiguous() for part, value in parts.items()}

    def read(self, name, tensors, shape):
        parts = [tensors[name.removesuffix("weight") + part] for part in ["qweight", "qzeros", "scales"]]
        return dequantize_gemm(parts[0], parts[1], parts[2].float(), 4, self.group).T.contiguous()

    def config(self, skipped):
        return {"quantization_config": {
            "quant_method": "awq", "bits": 4, "group_size": self.group, "zero_point": True, "version": "gemm",
            "modules_to_not_convert": skipped}}


def schemes(rng):
    return [Awq(int(rng.choice([32, 64, 128])))]
