"""bitsandbytes on the CPU: NF4 and FP4, nested or not, and LLM.int8. Read by the package's plain operations: its
AVX-512 kernel is wrong for columns that are a multiple of 32 and not of 64."""
import torch
from bitsandbytes import functional
from bitsandbytes.backends.default import ops
from . import Scheme


class FourBit(Scheme):
    experts = ("single", "stack")

    def __init__(self, kind, nested, block, storage=torch.uint8):
        self.kind, self.nested, self.block, self.storage = kind, nested, block, storage
        self.signed_zero = 8 if kind == "fp4" else None
        self.name = f"bnb {kind} b{block}" + (" nested" if nested else "")
        # Nested magnitudes near the middle of two numbers.
        self.most_codes = 0.04 if nested else 0.002

    def store(self, name, weight):
        codes, state = functional.quantize_4bit(
            weight.contiguous(), blocksize=self.block, compress_statistics=self.nested, quant_type=self.kind)
        state.dtype = torch.bfloat16
        parts = state.as_dict(packed=True)
        return {name: codes} | {f"{name}.{part}": value.contiguous() for part, value in parts.items()}

    def read(self, name, tensors, shape):
        parts = {key.removeprefix(name + "."): value for key, value in tensors.items() if key.startswith(name + ".")}
        state = functional.QuantState.from_dict(dict(parts), device="cpu")
        largest = state.absmax
        if state.nested:
            block = state.state2.blocksize
            scales = state.state2.absmax.repeat_interleave(block)[: largest.numel()]
            largest = state.state2.code[largest.long()] * scales + state.offset
        # The table of the file, as the state has it.
        plain = getattr(ops._dequantize_4bit_compute, "__wrapped__", ops._dequantize_4bit_compute)
        flat = tensors[name].view(torch.uint8).reshape(-1)
        return plain(flat, largest.float(), state.code, self.block, [shape.numel()], torch.float32).reshape(shape)

    def config(self, skipped):
        return {"quantization_config": {
            "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": self.kind,
            "bnb_4bit_use_double_quant": self.nested, "llm_int8_skip_modules": skipped}}


class EightBit(Scheme):
    name, zero_rows = "bnb int8", False

    def store(self, name, weight):
        codes, largest, _ = functional.int8_vectorwise_quant(weight)
        module = name.removesuffix(".weight")
        return {name: codes, f"{module}.SCB": largest.float(), f"{module}.weight_format": torch.tensor(0, dtype=torch.uint8)}

    def read(self, name, tensors, shape):
        return functional.int8_vectorwise_dequant(tensors[name], tensors[name.removesuffix("weight") + "SCB"])

    def config(self, skipped):
        return {"quantization_config": {
            "quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": True, "llm_int8_skip_modules": skipped}}


def schemes(rng):
    block = int(rng.choice([64, 128, 256]))
    return [FourBit("nf4", False, 64), FourBit("nf4", True, 64), FourBit("fp4", False, block),
            FourBit("nf4", True, block), EightBit()]
