"""Merges into GGUF files as gguf-py reads them. usage: gguf_written.py LORA_TOOL

Makes bases of random values in every block type that is written (and Q4_K and Q6_K, which are only read), merges an
adapter into each with every --types, and opens the result with gguf-py: all keys and tensors are there, what nothing
touches has its bytes, and what changes is the reference quantiser's own output for base + delta, byte for byte.
Needs: pip install gguf numpy"""
import json, os, struct, subprocess, sys, tempfile
import numpy as np
import gguf
from gguf import quants, GGMLQuantizationType as T

OWN = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K"]
TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16", "bf16", "f32"]
ROWS, COLUMNS = 96, 256


def write_base(path, kind, rng):
    """A llama of one layer whose attn_q is of the kind; the numbers it stands for."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 1)
    writer.add_uint32("llama.attention.head_count", 6)
    writer.add_uint32("llama.attention.head_count_kv", 6)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "ü"])
    for name in ["blk.0.attn_q.weight", "blk.0.attn_v.weight"]:
        elements, size = gguf.GGML_QUANT_SIZES[T[kind]]
        if kind in ("Q4_K", "Q6_K"):
            raw = rng.integers(0, 256, (ROWS, COLUMNS // elements, size), dtype=np.uint8)
            for at in {"Q4_K": [0, 2], "Q6_K": [208]}[kind]:
                scale = rng.uniform(0.001, 0.01, raw.shape[:2]).astype(np.float16)
                raw[:, :, at:at + 2] = scale[..., None].view(np.uint8)
            raw = raw.reshape(ROWS, -1)
        else:
            raw = quants.quantize(rng.standard_normal((ROWS, COLUMNS)).astype(np.float32), T[kind])
        writer.add_tensor(name, raw, raw_dtype=T[kind])
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()


def save_adapter(directory, down, up):
    os.makedirs(directory, exist_ok=True)
    key = "base_model.model.blk.0.attn_q.lora_{}.weight"
    header, data = {}, b""
    for name, values in [(key.format("A"), down), (key.format("B"), up)]:
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(data), len(data) + values.nbytes]}
        data += values.astype("<f4").tobytes()
    head = json.dumps(header).encode()
    with open(f"{directory}/adapter_model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head + data)
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["attn_q"]}
    json.dump(config, open(f"{directory}/adapter_config.json", "w"))


def tensors(path):
    reader = gguf.GGUFReader(path)
    return reader, {tensor.name: tensor for tensor in reader.tensors}


def main():
    tool, rng, cases = sys.argv[1], np.random.default_rng(3), 0
    with tempfile.TemporaryDirectory() as root:
        # Powers of two, so that base + delta is the same in any order of operations.
        down = np.exp2(rng.integers(-2, 3, (1, COLUMNS))).astype(np.float32)
        up = np.exp2(rng.integers(-4, 0, (ROWS, 1))).astype(np.float32)
        save_adapter(f"{root}/adapter", down, up)
        for own in OWN:
            write_base(f"{root}/base.gguf", own, rng)
            before, old = tensors(f"{root}/base.gguf")
            dense = quants.dequantize(old["blk.0.attn_q.weight"].data, T[own]).reshape(ROWS, COLUMNS) + up @ down
            for types in TYPES:
                out = f"{root}/out.gguf"
                command = [tool, "merge", f"{root}/base.gguf", f"{root}/adapter", "-o", out, "-f", "--types", types, "--min-survival", "0"]
                subprocess.run(command, check=True, capture_output=True)
                after, new = tensors(out)
                keys = lambda reader: [key for key in reader.fields if not key.startswith("GGUF.")]
                assert keys(before) == keys(after), (own, types)
                assert (new["blk.0.attn_v.weight"].data == old["blk.0.attn_v.weight"].data).all(), (own, types)
                found = new["blk.0.attn_q.weight"]
                kind = T[types.upper()]
                assert found.tensor_type == kind, (own, types, found.tensor_type)
                expected = quants.quantize(dense.astype(np.float32), kind)
                assert found.data.tobytes() == expected.tobytes(), (own, types)
                cases += 1
    print(f"{cases} merges: gguf-py reads them, and would have written the same bytes")


main()
