#!/usr/bin/env python3
"""Time `lora-tool merge` against `cp -r` with fsync, on a synthetic Llama-shaped model.

`make` writes the model and an adapter, `run` measures. Linux only (/proc, cp, sync).
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

HIDDEN, INTERMEDIATE, HEADS, VOCAB = 4096, 11008, 32, 4096
BASE_STD, DELTA_STD = 0.02, 0.001
BLOCK_ELEMENTS = 1 << 23
SAMPLE_SECONDS = 0.005
MIB, GIB = 1 << 20, 1 << 30

# Linear layers of one decoder layer: path -> (out features, in features).
LINEARS = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
DTYPES = {"bf16": ("BF16", "bfloat16", 2), "f16": ("F16", "float16", 2), "f32": ("F32", "float32", 4)}


# ---- make -----------------------------------------------------------------------------


def elements(shape):
    """Number of elements of a tensor of one or two dimensions."""
    return shape[0] * shape[1] if len(shape) == 2 else shape[0]


def layer_shapes(layer):
    """Tensors of one decoder layer: name -> shape."""
    prefix = f"model.layers.{layer}"
    shapes = {f"{prefix}.{path}.weight": shape for path, shape in LINEARS.items()}
    shapes[f"{prefix}.input_layernorm.weight"] = (HIDDEN,)
    shapes[f"{prefix}.post_attention_layernorm.weight"] = (HIDDEN,)
    return shapes


def model_shapes(total_bytes, item_size):
    """All the model's tensors, with as many layers as reach `total_bytes` (at least one)."""
    ends = {
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCAB, HIDDEN),
    }
    size = sum(map(elements, ends.values())) * item_size
    layer_size = sum(map(elements, layer_shapes(0).values())) * item_size
    layers = max(1, -(-(total_bytes - size) // layer_size))
    shapes = {"model.embed_tokens.weight": ends.pop("model.embed_tokens.weight")}
    for layer in range(layers):
        shapes.update(layer_shapes(layer))
    return shapes | ends, layers


def split_in_two(shapes):
    """Cut the tensors, in order, into two shards of about the same size."""
    half = sum(map(elements, shapes.values())) / 2
    shards, done = ({}, {}), 0
    for name, shape in shapes.items():
        shards[done >= half][name] = shape
        done += elements(shape)
    return shards


def random_block(np, dtype, std, seed):
    """Bytes of normal numbers of the wanted dtype, twice over so that any offset can be read."""
    values = np.random.default_rng(seed).standard_normal(BLOCK_ELEMENTS, dtype=np.float32)
    values *= np.float32(std)
    if dtype == "bf16":
        bits = values.view(np.uint32)
        values = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    elif dtype == "f16":
        values = values.astype(np.float16)
    data = values.tobytes()
    return memoryview(data + data)


def header_bytes(shapes, dtype_name, item_size):
    """A safetensors header, with its length prefix, for tensors stored in the given order."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = offset + elements(shape) * item_size
        header[name] = {"dtype": dtype_name, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write_repeated(file, block, count, start):
    """Write `count` bytes of the repeated block, from byte `start` of it on."""
    period = len(block) // 2
    start %= period
    while count:
        chunk = min(count, period)
        file.write(block[start : start + chunk])
        count -= chunk


def write_shard(path, shapes, dtype, block):
    """Write one shard; each tensor starts elsewhere in the random block."""
    dtype_name, _, item_size = DTYPES[dtype]
    with open(path, "wb") as file:
        file.write(header_bytes(shapes, dtype_name, item_size))
        for number, shape in enumerate(shapes.values()):
            start = number * 1_000_003 * item_size
            write_repeated(file, block, elements(shape) * item_size, start)


def write_json(path, value):
    """Write `value` as indented JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_base(np, out, total_bytes, dtype):
    """Write the base in two shards with index and config; returns (bytes, layers)."""
    out.mkdir(parents=True)
    _, torch_name, item_size = DTYPES[dtype]
    shapes, layers = model_shapes(total_bytes, item_size)
    block = random_block(np, dtype, BASE_STD, seed=1)
    weight_map = {}
    for number, shard in enumerate(split_in_two(shapes), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        write_shard(out / file, shard, dtype, block)
        weight_map.update(dict.fromkeys(shard, file))
    parameters = sum(map(elements, shapes.values()))
    metadata = {"total_parameters": parameters, "total_size": parameters * item_size}
    write_json(out / "model.safetensors.index.json",
               {"metadata": metadata, "weight_map": weight_map})
    write_json(out / "config.json", {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 1,
        "dtype": torch_name,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": 2048,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": layers,
        "num_key_value_heads": HEADS,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": False,
        "vocab_size": VOCAB,
    })
    return parameters * item_size, layers


def write_adapter(np, out, layers, rank, seed=2):
    """Write an f32 PEFT adapter (alpha = 2 rank) on every linear layer; returns its bytes."""
    out.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    a_std = HIDDEN**-0.5
    shapes, stds = {}, []
    for layer in range(layers):
        for path, (out_features, in_features) in LINEARS.items():
            prefix = f"base_model.model.model.layers.{layer}.{path}"
            shapes[f"{prefix}.lora_A.weight"] = (rank, in_features)
            shapes[f"{prefix}.lora_B.weight"] = (out_features, rank)
            stds += [a_std, DELTA_STD / (2 * a_std * rank**0.5)]
    with open(out / "adapter_model.safetensors", "wb") as file:
        file.write(header_bytes(shapes, "F32", 4))
        for shape, std in zip(shapes.values(), stds):
            file.write((rng.standard_normal(shape, dtype=np.float32) * np.float32(std)).tobytes())
    write_json(out / "adapter_config.json", {
        "base_model_name_or_path": "base",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(path.split(".")[-1] for path in LINEARS),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    })
    return sum(map(elements, shapes.values())) * 4


def make(args):
    """Write base and adapter below `--out`."""
    import numpy as np

    size, layers = write_base(np, args.out / "base", int(args.gib * GIB), args.dtype)
    adapter_size = write_adapter(np, args.out / "adapter", layers, args.rank)
    print(f"base: {size / GIB:.2f} GiB, {layers} layers, {args.dtype}; "
          f"adapter: rank {args.rank}, {adapter_size / MIB:.1f} MiB")


# ---- run ------------------------------------------------------------------------------


@dataclass
class Sample:
    """What one run cost: seconds, and bytes of memory at the peak."""

    wall: float = 0.0
    cpu: float = 0.0
    peak_anon: int = 0
    peak_rss: int = 0

    def __add__(self, other):
        """Two commands one after the other."""
        return Sample(
            self.wall + other.wall,
            self.cpu + other.cpu,
            max(self.peak_anon, other.peak_anon),
            max(self.peak_rss, other.peak_rss),
        )


class AnonSampler(threading.Thread):
    """Keeps the largest RssAnon seen of a process (mapped files do not count)."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status = f"/proc/{pid}/status"
        self.done = threading.Event()
        self.peak = 0

    def run(self):
        """Sample until told to stop or the process is gone."""
        while not self.done.wait(SAMPLE_SECONDS):
            try:
                with open(self.status, encoding="ascii", errors="replace") as file:
                    line = next((line for line in file if line.startswith("RssAnon:")), None)
            except (FileNotFoundError, ProcessLookupError):
                return
            if line is not None:  # a zombie has none
                self.peak = max(self.peak, int(line.split()[1]) * 1024)


def measure(command, sample_memory=False):
    """Run a command to its end and return its Sample; a failure ends the benchmark."""
    command = [str(part) for part in command]
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        sampler = AnonSampler(process.pid)
        if sample_memory:
            sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if sample_memory:
            sampler.done.set()
            sampler.join()
        if process.returncode:
            errors.seek(0)
            sys.stderr.write(errors.read().decode(errors="replace"))
            sys.exit(f"error: `{' '.join(command)}` ended with status {process.returncode}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, sampler.peak, usage.ru_maxrss * 1024)


def tree(directory):
    """Every file and directory below and including `directory`."""
    return [directory, *sorted(directory.rglob("*"))]


def fsync_tree(directory):
    """Flush everything below `directory`, and its name in the parent, with sync(1)."""
    return measure(["sync", *tree(directory), directory.parent])


def run_cp(base, out):
    """`cp -r` and fsync of all that it wrote."""
    return measure(["cp", "-r", base, out]) + fsync_tree(out)


def run_merge(lora_tool, threads, base, adapter, out):
    """`lora-tool merge`, which syncs by itself."""
    command = [lora_tool, "-q", "--threads", threads, "merge", base, adapter, "-o", out]
    return measure(command, sample_memory=True)


def run_peft(python, base, adapter, out):
    """PEFT's merge in a process of its own, and fsync of what it wrote."""
    command = [python, Path(__file__).resolve(), "peft-merge", base, adapter, out]
    return measure(command, sample_memory=True) + fsync_tree(out)


def peft_merge(args):
    """The child process of `run --peft`."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(args.base, dtype="auto")
    PeftModel.from_pretrained(model, args.adapter).merge_and_unload().save_pretrained(args.out)


def warm(*directories):
    """Read every file once, so that all runs find the inputs in the page cache."""
    for directory in directories:
        for path in filter(Path.is_file, tree(directory)):
            with open(path, "rb", buffering=0) as file:
                while file.read(16 * MIB):
                    pass


def sha256_tree(directory):
    """sha256 of every file below `directory`, by relative path."""
    hashes = {}
    for path in filter(Path.is_file, tree(directory)):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        hashes[str(path.relative_to(directory))] = digest
    return hashes


def remove(out):
    """Delete an output and let the disk come to rest."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()


def interleave(contenders, runs, out, hashed):
    """Run the contenders in turn, `runs` times over; returns samples and hashes by name."""
    samples, hashes = {name: [] for name in contenders}, {}
    for number in range(runs):
        for name, contender in contenders.items():
            remove(out)
            samples[name].append(contender(out))
            if number == 0 and name in hashed:
                hashes[name] = sha256_tree(out)
            print(f"run {number + 1}/{runs}  {name:<24} {samples[name][-1].wall:8.3f} s",
                  file=sys.stderr)
    remove(out)
    return samples, hashes


def spread(values):
    """`median (min–max)` of some seconds."""
    return f"{statistics.median(values):8.3f} ({min(values):.3f}–{max(values):.3f})"


def print_table(samples):
    """One line a contender: wall, CPU, memory."""
    print(f"{'':<24} {'wall, s':<26} {'CPU, s':<26} peak anonymous, MiB")
    for name, runs in samples.items():
        anon = max(sample.peak_anon for sample in runs)
        print(f"{name:<24} {spread([sample.wall for sample in runs]):<26} "
              f"{spread([sample.cpu for sample in runs]):<26} "
              f"{f'{anon / MIB:.1f}' if anon else '-'}")


def print_ratios(samples, reference):
    """Ratios of medians against the contender named `reference`."""
    def median(name, field):
        return statistics.median(getattr(sample, field) for sample in samples[name])

    print("\nratio of medians")
    for name in samples:
        if name != reference:
            wall = median(name, "wall") / median(reference, "wall")
            cpu = median(name, "cpu") / median(reference, "cpu")
            print(f"{name + ' / cp':<30} wall {wall:.2f}   CPU {cpu:.2f}")


def filesystem(directory):
    """The name of the file system that holds `directory`."""
    command = ["stat", "-f", "-c", "%T", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def run(args):
    """Measure; exit status 1 if one and several threads wrote different bytes."""
    base, adapter = args.dir / "base", args.dir / "adapter"
    out_dir = args.out_dir or args.dir
    scratch = Path(tempfile.mkdtemp(prefix="merge_vs_cp.", dir=out_dir))
    many, one = f"lora-tool --threads {args.threads}", "lora-tool --threads 1"
    contenders = {
        "cp -r + fsync": lambda out: run_cp(base, out),
        many: lambda out: run_merge(args.lora_tool, args.threads, base, adapter, out),
        one: lambda out: run_merge(args.lora_tool, 1, base, adapter, out),
    }
    try:
        warm(base, adapter)
        run_cp(base, scratch / "out")  # uncounted: the first output meets cold free memory
        samples, hashes = interleave(contenders, args.runs, scratch / "out", {many, one})
        if args.peft:
            peft = {"PEFT + fsync": lambda out: run_peft(args.peft, base, adapter, out)}
            samples |= interleave(peft, 1, scratch / "out", set())[0]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

    size = sum(path.stat().st_size for path in base.iterdir())
    print(f"base {size / GIB:.2f} GiB, warm; output on {filesystem(out_dir)}; "
          f"{os.cpu_count()} CPUs; {args.runs} interleaved runs: median (min–max)\n")
    print_table(samples)
    if args.peft:
        print(f"{'':<24} PEFT's peak RSS: {samples['PEFT + fsync'][0].peak_rss / MIB:.1f} MiB")
    print_ratios(samples, "cp -r + fsync")
    same = hashes[many] == hashes[one]
    print(f"\nsha256 of {len(hashes[one])} files, {args.threads} threads against 1: "
          f"{'equal' if same else 'DIFFERENT'}")
    return int(not same)


# ---- command line ---------------------------------------------------------------------


def parse_args():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="make | run")

    command = commands.add_parser("make", help="write base and adapter")
    command.set_defaults(action=make)
    command.add_argument("--out", type=Path, required=True, help="gets base/ and adapter/")
    command.add_argument("--gib", type=float, default=4, help="size of the base (default 4)")
    command.add_argument("--rank", type=int, default=16, help="default 16")
    command.add_argument("--dtype", choices=DTYPES, default="bf16", help="default bf16")

    command = commands.add_parser("run", help="measure")
    command.set_defaults(action=run)
    command.add_argument("--dir", type=Path, required=True, help="what `make` wrote")
    command.add_argument("--lora-tool", required=True, help="the binary")
    command.add_argument("--runs", type=int, default=5, help="default 5")
    command.add_argument("--threads", type=int, default=2,
                         help="threads of the run that is compared with one thread (default 2)")
    command.add_argument("--out-dir", type=Path,
                         help="write outputs below this directory (default: that of --dir)")
    command.add_argument("--peft", nargs="?", const=sys.executable, metavar="PYTHON",
                         help="also merge once with PEFT, in this interpreter")

    command = commands.add_parser("peft-merge")
    command.set_defaults(action=peft_merge)
    for name in ("base", "adapter", "out"):
        command.add_argument(name)
    args = parser.parse_args()
    if args.action is run and (args.threads < 2 or args.runs < 1):
        parser.error("run needs --threads 2 or more and --runs 1 or more")
    return args


def main():
    """Run the chosen command."""
    args = parse_args()
    try:
        return args.action(args)
    except OSError as error:
        return f"error: {error}"


if __name__ == "__main__":
    sys.exit(main())
