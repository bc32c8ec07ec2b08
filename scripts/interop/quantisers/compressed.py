"""compressed-tensors: integers packed and plain, fp8, NVFP4, MXFP4. Scales are made of f32, rounded to bf16 and then
divided by, as llm-compressor does with a model in bf16 up to the dtype of the division."""
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from . import Scheme


class Compressed(Scheme):
    def __init__(self, name, form, dtype=torch.bfloat16, **args):
        self.name, self.form, self.scale_dtype = f"ct {name}", form, dtype
        self.args = QuantizationArgs(**args)
        self.group = args.get("group_size") or 0
        self.columns = max(self.group, 1)
        self.scheme = QuantizationScheme(targets=["Linear"], weights=self.args, format=form)
        self.order = {}

    def ranges(self, name, weight):
        """Least and largest values of every group, in the shape of the scales."""
        rows, columns = weight.shape
        strategy = self.args.strategy
        if strategy == "tensor":
            return weight.min().reshape(1), weight.max().reshape(1)
        if strategy == "channel":
            return weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
        if strategy == "block":
            high, wide = self.args.block_structure
            padded = torch.nn.functional.pad(weight, (0, -columns % wide, 0, -rows % high))
            blocks = padded.reshape(padded.shape[0] // high, high, padded.shape[1] // wide, wide)
            return blocks.amin((1, 3)), blocks.amax((1, 3))
        if name in self.order:
            weight = weight[:, torch.argsort(self.order[name], stable=True)]
        groups = weight.reshape(rows, columns // self.group, self.group)
        return groups.amin(2), groups.amax(2)

    def store(self, name, weight):
        module = name.removesuffix(".weight")
        if self.args.actorder and name not in self.order:
            groups = torch.arange(weight.shape[1]) // self.group
            self.order[name] = groups[torch.randperm(weight.shape[1])].to(torch.int32)
        low, high = self.ranges(name, weight)
        parts = {"weight": weight}
        if self.form == "nvfp4-pack-quantized":
            parts["weight_global_scale"] = generate_gparam(weight.min().reshape(1), weight.max().reshape(1))
        scale, zero = calculate_qparams(low, high, self.args, parts.get("weight_global_scale"))
        stored = scale if self.scale_dtype is None else scale.to(self.scale_dtype)
        parts["weight_scale"] = stored.float()
        if not self.args.symmetric:
            parts["weight_zero_point"] = zero.to(torch.int8)
        if name in self.order:
            parts["weight_g_idx"] = self.order[name]
        parts = BaseCompressor.get_value_from_registry(self.form).compress(parts, self.scheme)
        if self.scale_dtype is not None:
            parts["weight_scale"] = stored
        return {f"{module}.{part}": value.contiguous() for part, value in parts.items()}

    def read(self, name, tensors, shape):
        part = lambda ending: tensors.get(f"{name.removesuffix('.weight')}.{ending}")
        packed, scale = part("weight_packed"), part("weight_scale").float()
        if self.form == "pack-quantized":
            codes = unpack_from_int32(packed, self.args.num_bits, torch.Size(shape)).float()
        elif packed is not None:
            codes = unpack_fp4_from_uint8(packed, shape[0], shape[1], dtype=torch.float32)
        else:
            codes = part("weight").float()
        if self.form == "mxfp4-pack-quantized":
            scale = torch.exp2(scale.double() - 127).float()
        if part("weight_global_scale") is not None:
            scale = scale / part("weight_global_scale")
        spread = lambda of: self.spread(name, of, shape)
        if part("weight_zero_point") is not None:
            zero = part("weight_zero_point")
            if self.form == "pack-quantized":
                zero = unpack_from_int32(zero, self.args.num_bits, scale.shape, packed_dim=0)
            codes = codes - spread(zero.float())
        return codes * spread(scale)

    def spread(self, name, numbers, shape):
        """A number for every element."""
        rows, columns = shape
        if self.args.strategy == "block":
            high, wide = self.args.block_structure
            return numbers.repeat_interleave(high, 0)[:rows].repeat_interleave(wide, 1)[:, :columns]
        if name in self.order:
            return numbers[:, self.order[name].long()]
        if numbers.ndim == 2 and numbers.shape[1] > 1:
            return numbers.repeat_interleave(columns // numbers.shape[1], 1)
        return numbers

    def config(self, skipped):
        groups = {"group_0": self.scheme}
        config = QuantizationConfig(config_groups=groups, format=self.form, quantization_status="compressed", ignore=skipped)
        return {"quantization_config": config.model_dump(mode="json")}


def schemes(rng):
    group = int(rng.choice([32, 64, 128]))
    dtype = [torch.bfloat16, torch.float16, torch.float32][rng.integers(3)]
    pack, naive, fp8 = "pack-quantized", "int-quantized", "float-quantized"
    mxfp4 = Compressed("MXFP4", "mxfp4-pack-quantized", None, num_bits=4, type="float", strategy="group",
                       group_size=32, scale_dtype=torch.uint8)
    mxfp4.written = False
    found = [
        Compressed(f"int4 g{group}", pack, dtype, num_bits=4, strategy="group", group_size=group),
        Compressed(f"int4 g{group} asymmetric", pack, dtype, num_bits=4, strategy="group", group_size=group, symmetric=False),
        Compressed(f"int4 g{group} act-order", pack, num_bits=4, strategy="group", group_size=group, actorder="group"),
        Compressed(f"int4 g32 asymmetric act-order", pack, num_bits=4, strategy="group", group_size=32, symmetric=False, actorder="group"),
        Compressed("int4 channel", pack, dtype, num_bits=4, strategy="channel"),
        Compressed(f"int8 g{group}", pack, dtype, num_bits=8, strategy="group", group_size=group),
        Compressed("int8 channel, packed", pack, dtype, num_bits=8, strategy="channel"),
        Compressed("int8 channel, packed, asymmetric", pack, num_bits=8, strategy="channel", symmetric=False),
        Compressed("int8 channel", naive, dtype, num_bits=8, strategy="channel"),
        Compressed("int8 channel asymmetric", naive, num_bits=8, strategy="channel", symmetric=False),
        Compressed("int8 tensor", naive, num_bits=8, strategy="tensor"),
        Compressed("fp8 tensor", fp8, dtype, num_bits=8, type="float", strategy="tensor"),
        Compressed("fp8 channel", fp8, dtype, num_bits=8, type="float", strategy="channel"),
        Compressed("fp8 block", fp8, dtype, num_bits=8, type="float", strategy="block", block_structure=[128, 128]),
        Compressed("NVFP4", "nvfp4-pack-quantized", None, num_bits=4, type="float", strategy="tensor_group", group_size=16,
                   scale_dtype=torch.float8_e4m3fn),
        mxfp4,
    ]
    return found
