"""Merges into GGUF files as gguf-py reads them. usage: gguf_written.py LORA_TOOL [LIBGGML_BASE.so]

Makes bases of random values in block types, merges an adapter into each with every --types, and opens the result with
gguf-py: all keys and tensors are there, what nothing touches has its bytes, and what changes is the reference quantiser's
own output for base + delta, byte for byte. That is gguf-py's; with llama.cpp's library of an x86-64 build, which has no
fused multiplication there, also that of the types that only C writes. A base split by lora-tool and merged from its parts
is the same model.
Needs: pip install gguf numpy"""
import json, os, struct, subprocess, sys, tempfile
from pathlib import Path
import numpy as np
import gguf
from gguf import quants, GGMLQuantizationType as T

sys.path.insert(0, str(Path(__file__).parents[2] / "fixtures"))
from make_ggml import TYPES as SEARCHED, Ggml

OWN = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS"]
TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16", "bf16", "f32"]
HALVES = {"Q4_K": [0, 2], "Q6_K": [208], "IQ4_XS": [0]}
ROWS, COLUMNS = 96, 1024


def write_base(path, kind, rng):
    """A llama of one layer whose attn_q is of the kind; the numbers it stands for."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 1)
    writer.add_uint32("llama.attention.head_count", 6)
    writer.add_uint32("llama.attention.head_count_kv", 6)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "ü"])
    for name in ["blk.0.attn_q.weight", "blk.0.attn_v.weight"]:
        elements, size = gguf.GGML_QUANT_SIZES[T[kind]]
        if kind in HALVES:
            raw = rng.integers(0, 256, (ROWS, COLUMNS // elements, size), dtype=np.uint8)
            for at in HALVES[kind]:
                scale = rng.uniform(0.001, 0.01, raw.shape[:2]).astype(np.float16)
                raw[:, :, at:at + 2] = scale[..., None].view(np.uint8)
            raw = raw.reshape(ROWS, -1)
        else:
            values = rng.standard_normal((ROWS, COLUMNS)) * 10.0 ** rng.integers(-3, 2, (ROWS, 1))
            raw = quants.quantize(values.astype(np.float32), T[kind])
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


def keys(reader, set_too=True):
    keys = [key for key in reader.fields if not key.startswith("GGUF.")]
    return [key for key in keys if set_too or not key.startswith("split.")]


def check_set(merge, root, whole):
    """The same merge as a set of files, and from that set again."""
    merge("set", "--max-shard-size", "100kB", "--types", "q8_0")
    parts = sorted(Path(root, "set").iterdir())
    assert [part.name for part in parts] == [f"base-{n + 1:05}-of-{len(parts):05}.gguf" for n in range(len(parts))]
    found = {}
    for number, part in enumerate(parts):
        reader, own = tensors(part)
        value = lambda key: (reader.fields[key].contents(), reader.fields[key].types[0].name)
        assert value("split.no") == (number, "UINT16") and value("split.count") == (len(parts), "UINT16")
        assert value("split.tensors.count") == (len(whole), "INT32")
        assert bool(keys(reader, False)) == (number == 0)
        found |= own
    assert len(parts) > 1 and found.keys() == whole.keys()
    assert all(found[name].data.tobytes() == whole[name].data.tobytes() for name in whole)


def main():
    tool, rng, cases = sys.argv[1], np.random.default_rng(3), 0
    ggml = Ggml(sys.argv[2]) if len(sys.argv) > 2 else None
    searched = [name.lower() for name in SEARCHED if ggml]
    with tempfile.TemporaryDirectory() as root:
        # Powers of two, so that base + delta is the same in any order of operations.
        down = np.exp2(rng.integers(-2, 3, (1, COLUMNS))).astype(np.float32)
        up = np.exp2(rng.integers(-4, 0, (ROWS, 1))).astype(np.float32)
        save_adapter(f"{root}/adapter", down, up)

        def merge(out, *options):
            command = [tool, "merge", f"{root}/base.gguf", f"{root}/adapter", "-o", f"{root}/{out}", "-f", *options]
            subprocess.run([*command, "--min-survival", "0"], check=True, capture_output=True)

        for own in OWN:
            write_base(f"{root}/base.gguf", own, rng)
            before, old = tensors(f"{root}/base.gguf")
            dense = quants.dequantize(old["blk.0.attn_q.weight"].data, T[own]).reshape(ROWS, COLUMNS)
            dense = (dense + up @ down).astype(np.float32)
            for types in TYPES + searched:
                merge("out.gguf", "--types", types)
                after, new = tensors(f"{root}/out.gguf")
                added = keys(after)[len(keys(before)):]
                assert keys(before) + added == keys(after), (own, types)
                assert all(key.startswith("lora_tool") for key in added), (own, types, added)
                assert (new["blk.0.attn_v.weight"].data == old["blk.0.attn_v.weight"].data).all(), (own, types)
                found, kind = new["blk.0.attn_q.weight"], T[types.upper()]
                assert found.tensor_type == kind, (own, types, found.tensor_type)
                expected = ggml.quantize(dense, kind) if types in searched else quants.quantize(dense, kind)
                assert found.data.tobytes() == expected.tobytes(), (own, types)
                cases += 1
            merge("out.gguf", "--types", "q8_0")
            check_set(merge, root, tensors(f"{root}/out.gguf")[1])
    print(f"{cases} merges: gguf-py reads them, and the reference would have written the same bytes")


main()
