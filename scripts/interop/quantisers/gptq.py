"""auto-gptq: its quantiser's scales and zero points, rounded to f16 first, every weight rounded for itself (no search
with Hessians), its packing, and its layer's own product with the identity."""
import torch
from . import Scheme, alone

alone("auto_gptq", "nn_modules", "nn_modules.qlinear", "quantization")
from auto_gptq.nn_modules.qlinear.qlinear_cuda import QuantLinear
from auto_gptq.quantization.quantizer import Quantizer, quantize


class Gptq(Scheme):
    dtype, rows = "float16", 32

    def __init__(self, bits, group, symmetric, order=False, version=1):
        self.bits, self.group, self.symmetric, self.ordered, self.columns = bits, group, symmetric, order, max(group, 32)
        self.version = version
        words = ["" if symmetric else " asymmetric", " act-order" if order else "", " v2" if version == 2 else ""]
        self.name = f"gptq {bits} bit g{group}{''.join(words)}"
        self.order = {}

    def indices(self, name, inputs):
        groups = torch.arange(inputs, dtype=torch.int32) // self.group
        if self.ordered and name not in self.order:
            self.order[name] = groups[torch.randperm(inputs)]
        return self.order.get(name, groups)

    def layer(self, shape):
        return QuantLinear(self.bits, self.group, shape[1], shape[0], False)

    def store(self, name, weight):
        indices = self.indices(name, weight.shape[1])
        rounded, scales, zeros = torch.empty_like(weight), [], []
        for group in range(weight.shape[1] // self.group):
            part, quantiser = weight[:, indices == group], Quantizer()
            quantiser.configure(self.bits, perchannel=True, sym=self.symmetric)
            quantiser.find_params(part, weight=True)
            scale, zero = quantiser.scale.half().float(), quantiser.zero
            rounded[:, indices == group] = quantize(part, scale, zero, quantiser.maxq)
            scales.append(scale)
            zeros.append(zero)
        linear = torch.nn.Linear(*weight.T.shape, bias=False)
        linear.weight.data = rounded
        layer = self.layer(weight.shape)
        layer.pack(linear, torch.cat(scales, 1), torch.cat(zeros, 1), indices)
        module = name.removesuffix("weight")
        parts = {"qweight": layer.qweight, "qzeros": layer.qzeros, "scales": layer.scales.half(), "g_idx": layer.g_idx}
        if self.version == 2:
            parts["qzeros"] = self.raised(parts["qzeros"], 1)
        return {module + part: value.contiguous() for part, value in parts.items()}

    def raised(self, zeros, by):
        """Packed zero points, each one more or less: the second version of the format stores them as they are."""
        fields = torch.arange(0, 32, self.bits)
        codes = (zeros.long().unsqueeze(-1) >> fields) & (2 ** self.bits - 1)
        codes = (codes + by) & (2 ** self.bits - 1)
        return (codes << fields).sum(-1).to(torch.int64).to(torch.int32)

    def read(self, name, tensors, shape):
        layer = self.layer(shape)
        for part in ["qweight", "qzeros", "scales", "g_idx"]:
            value = tensors[name.removesuffix("weight") + part]
            if part == "qzeros" and self.version == 2:
                value = self.raised(value, -1)
            setattr(layer, part, value.float() if part == "scales" else value)
        return layer.forward(torch.eye(shape[1])).T.contiguous()

    def config(self, skipped):
        return {"quantization_config": {
            "quant_method": "gptq", "bits": self.bits, "group_size": self.group, "sym": self.symmetric,
            "desc_act": self.ordered, "checkpoint_format": "gptq_v2" if self.version == 2 else "gptq", "dynamic": {f"-:{module}": {} for module in skipped}}}


def schemes(rng):
    group = int(rng.choice([32, 64, 128]))
    return [Gptq(4, group, True), Gptq(4, group, False), Gptq(4, group, True, True), Gptq(2, 32, True), Gptq(3, 32, True),
            Gptq(8, group, True), Gptq(3, 32, False, True), Gptq(4, group, False, True, 2), Gptq(8, 32, True, False, 2)]
