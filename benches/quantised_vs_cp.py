#!/usr/bin/env python3
"""Time merges into quantised bases against writing their result: `cp` of it, and fsync.

usage: quantised_vs_cp.py --dir DIR --lora-tool BINARY [--gib 2] [--runs 3] [--only WORD] [--peft PYTHON]

Llama-shaped bases of random codes and sane scales are made one after the other, in fp8 blocks, int4, NF4, GGUF Q8_0 and
Q4_0, merged with a rank-16 adapter of all linear layers to 16 bit and to the same codes again, and removed. Copies and
merges take turns; medians are compared. `--gib` is the size of the 16-bit result; the disk holds a base and two results
at a time, 11 GB with `--gib 4`. Linux only; numpy.

--peft lets that interpreter open the int4 and NF4 bases with transformers, dequantise them, merge with PEFT and save."""

import argparse
import json
import shutil
import statistics
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np

import merge_vs_cp as bench
from merge_vs_cp import GIB, HEADS, HIDDEN, INTERMEDIATE, LINEARS, MIB, VOCAB, elements, measure

# Of the wall time of writing the result.
GOALS = {"fp8 block": 1.5}
GOAL, MEMORY = 2.0, 64
GGML = {"Q4_0": (2, 18), "Q8_0": (8, 34)}
GGUF_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
              "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
              "mlp.down_proj": "ffn_down"}
NF4 = [-1, -.6961928, -.52507305, -.39491749, -.28444138, -.18477343, -.09105004, 0, .0795803, .1609302, .2461123,
       .33791524, .44070983, .562617, .72295684, 1]
RNG = np.random.default_rng(5)
# Random bytes, of which tensors take as many as they need; as fp8 none of them is NaN.
CODES = RNG.integers(0, 256, 1 << 24, dtype=np.uint8)
CODES[(CODES & 0x7F) == 0x7F] = 0x30


def codes(count):
    """So many random bytes."""
    return np.resize(CODES, count).tobytes()


def scales(count, dtype, size=0.01):
    """Positive numbers about `size`."""
    values = RNG.uniform(0.5, 1.5, count).astype(np.float32) * np.float32(size)
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.tobytes()


def fp8_block(name, rows, columns):
    grid = [-(-rows // 128), -(-columns // 128)]
    yield name, "F8_E4M3", [rows, columns], codes(rows * columns)
    yield f"{name}_scale_inv", "F32", grid, scales(grid[0] * grid[1], "F32", 1e-4)


def int4(name, rows, columns):
    yield f"{name}_packed", "I32", [rows, columns // 8], codes(rows * columns // 2)
    yield f"{name}_shape", "I64", [2], np.array([rows, columns], np.int64).tobytes()
    yield f"{name}_scale", "BF16", [rows, columns // 128], scales(rows * columns // 128, "BF16", 0.005)


def nf4(name, rows, columns):
    state = json.dumps({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [rows, columns]}).encode()
    yield name, "U8", [rows * columns // 2, 1], codes(rows * columns // 2)
    yield f"{name}.absmax", "F32", [rows * columns // 64], scales(rows * columns // 64, "F32", 0.05)
    yield f"{name}.quant_map", "F32", [16], np.array(NF4, np.float32).tobytes()
    yield f"{name}.quant_state.bitsandbytes__nf4", "U8", [len(state)], state


CONFIGS = {
    "fp8 block": (fp8_block, {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                              "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]}),
    "int4 g128": (int4, {"quant_method": "compressed-tensors", "format": "pack-quantized",
                         "quantization_status": "compressed", "ignore": ["lm_head"],
                         "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
                             "num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128}}}}),
    "NF4 b64": (nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                      "llm_int8_skip_modules": ["lm_head"]}),
}


def write_tensors(path, tensors):
    """A safetensors file; tensors are made twice, so that one is in memory at a time."""
    header, end = {}, 0
    for name, dtype, shape, data in tensors():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for *_, data in tensors():
            file.write(data)


def write_safetensors(out, kind, layers):
    """A base of one file, with its config."""
    out.mkdir()
    make, settings = CONFIGS[kind]

    def tensors():
        for name in ["model.embed_tokens.weight", "lm_head.weight"]:
            yield name, "BF16", [VOCAB, HIDDEN], scales(VOCAB * HIDDEN, "BF16")
        yield "model.norm.weight", "BF16", [HIDDEN], scales(HIDDEN, "BF16", 1)
        for layer in range(layers):
            for name in ["input_layernorm", "post_attention_layernorm"]:
                yield f"model.layers.{layer}.{name}.weight", "BF16", [HIDDEN], scales(HIDDEN, "BF16", 1)
            for path, (rows, columns) in LINEARS.items():
                yield from make(f"model.layers.{layer}.{path}.weight", rows, columns)

    write_tensors(out / "model.safetensors", tensors)
    bench.write_json(out / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE, "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "vocab_size": VOCAB, "tie_word_embeddings": False, "hidden_act": "silu",
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "quantization_config": settings})
    return out


def write_gguf(path, kind, layers):
    """A GGUF base of one file: matrices in blocks of the kind, the rest in F32."""
    number, size = GGML[kind]

    def blocks(count):
        raw = np.resize(CODES, (count // 32, size)).copy()
        raw[:, :2] = RNG.uniform(0.001, 0.01, count // 32).astype(np.float16)[:, None].view(np.uint8)
        return raw.tobytes()

    shapes = {"token_embd.weight": (VOCAB, HIDDEN), "output_norm.weight": (HIDDEN,), "output.weight": (VOCAB, HIDDEN)}
    for layer in range(layers):
        shapes |= {f"blk.{layer}.{name}.weight": (HIDDEN,) for name in ["attn_norm", "ffn_norm"]}
        shapes |= {f"blk.{layer}.{GGUF_NAMES[path]}.weight": shape for path, shape in LINEARS.items()}
    text = lambda value: struct.pack("<Q", len(value)) + value.encode()
    pairs = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    for key, value in [("block_count", layers), ("attention.head_count", HEADS), ("attention.head_count_kv", HEADS)]:
        pairs.append(text(f"llama.{key}") + struct.pack("<II", 4, value))
    head, offset = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(pairs)) + b"".join(pairs), 0
    length = lambda shape: elements(shape) // 32 * size if len(shape) == 2 else 4 * elements(shape)
    for name, shape in shapes.items():
        head += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in reversed(shape))
        head += struct.pack("<IQ", number if len(shape) == 2 else 0, offset)
        offset += -(-length(shape) // 32) * 32
    with open(path, "wb") as file:
        file.write(head + b"\0" * (-len(head) % 32))
        for shape in shapes.values():
            data = blocks(elements(shape)) if len(shape) == 2 else scales(HIDDEN, "F32", 1)
            file.write(data + b"\0" * (-len(data) % 32))
    return path


def remove(path):
    """Delete a file or a directory."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def copy(result, out):
    """`cp` of a result and fsync of all that was written."""
    return measure(["cp", "-r", result, out]) + measure(["sync", *bench.tree(out), out.parent])


def peft_merge(base, adapter, out):
    """Dequantise, merge and save with transformers and PEFT: the child process of --peft."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    if hasattr(model, "dequantize"):
        model = model.dequantize()
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)


def compare(args, root, kind, base, adapter, ending, options):
    """Runs of one base and one kind of result, copies and merges in turn."""
    result, other = root / f"result{ending}", root / f"copy{ending}"
    command = [args.lora_tool, "-q", "--threads", args.threads, "merge", base, adapter, "-o", result, *options]
    measure(command)
    copies, merges = [], []
    for _ in range(args.runs):
        copies.append(copy(result, other))
        remove(other)
        remove(result)
        merges.append(measure(command, sample_memory=True))
    median = lambda runs, field: statistics.median(getattr(run, field) for run in runs)
    size = sum(path.stat().st_size for path in bench.tree(result) if path.is_file())
    wall, least = median(merges, "wall"), median(copies, "wall")
    memory, goal = max(run.peak_anon for run in merges) / MIB, GOALS.get(kind, GOAL)
    print(f"| {kind} | {ending or 'directory'} {' '.join(options)} | {size / GIB:.2f} | {least:.2f} | {wall:.2f} | "
          f"{median(copies, 'cpu'):.2f} | {median(merges, 'cpu'):.2f} | {wall / least:.2f} | {goal} | {memory:.0f} |",
          flush=True)
    remove(result)
    return wall <= goal * least and memory <= MEMORY


def main():
    if sys.argv[1:2] == ["peft-merge"]:
        return peft_merge(*sys.argv[2:])
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--lora-tool", required=True, type=Path)
    parser.add_argument("--gib", type=float, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--peft", type=Path)
    args = parser.parse_args()
    _, layers = bench.model_shapes(int(args.gib * GIB), 2)
    root = Path(tempfile.mkdtemp(prefix="quantised_vs_cp.", dir=args.dir))
    met = []
    try:
        bench.write_adapter(np, root / "adapter", layers, 16)
        print("| base | result | GiB | copy, s | merge, s | copy, CPU s | merge, CPU s | merge / copy | goal | anonymous, MiB |")
        print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
        for kind in filter(lambda kind: args.only in kind, [*CONFIGS, "GGUF Q8_0", "GGUF Q4_0"]):
            gguf = kind.removeprefix("GGUF ")
            if gguf in GGML:
                base = write_gguf(root / "base.gguf", gguf, layers)
                ways = [(".safetensors", []), (".gguf", ["--types", "keep", "--min-survival", "0"])]
            else:
                base = write_safetensors(root / "base", kind, layers)
                ways = [("", []), ("", ["--quantized", "requantize", "--min-survival", "0"])]
            bench.warm(root)
            met += [compare(args, root, kind, base, root / "adapter", *way) for way in ways]
            if args.peft and kind in ("int4 g128", "NF4 b64"):
                out = root / "peft"
                run = measure([args.peft, Path(__file__).resolve(), "peft-merge", base, root / "adapter", out], sample_memory=True)
                run += measure(["sync", *bench.tree(out)])
                print(f"| {kind} | by transformers and PEFT | | | {run.wall:.2f} | | {run.cpu:.2f} | | | {run.peak_anon / MIB:.0f} |", flush=True)
                remove(out)
            remove(base)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return not all(met)


if __name__ == "__main__":
    sys.exit(main())
