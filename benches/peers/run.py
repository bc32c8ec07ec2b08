#!/usr/bin/env python3
"""lora-tool beside its peers: time, CPU, memory, and how far each is from f64.

    pip install -r benches/peers/requirements.txt
    cargo build --release
    python benches/peers/run.py [--width 1024 --layers 4 --runs 3] [--kohya CHECKOUT] [--only merge]

Makes a Llama-shaped bf16 model with a fine-tuned twin, two adapters as PEFT directories, and one as a
kohya file; every tool gets the same files. Runs are interleaved; wall and CPU are medians, memory is
the largest resident set of the process. The error of a merge or a sum is ‖result − exact‖ / ‖exact
update‖ over all modules, with `exact` computed here in f64 by numpy; where a rank is asked for, the
least error that any matrix of that rank can have stands beside it.

PEFT and mergekit come from PyPI. kohya's scripts do not: give a checkout of kohya-ss/sd-scripts (the
figures in docs/speed.md are from 48d368f) in an environment that can import them.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RANK = 16
WEIGHTS = (0.7, 0.3)


def modules(width):
    inner = width * 11 // 4 // 64 * 64
    square = {f"self_attn.{name}_proj": (width, width) for name in "qkvo"}
    return {**square, "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner)}


def to_bf16(values):
    """Rounded to nearest even, as the bits of bf16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write(path, tensors):
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, array in tensors.items():
        dtype = {"uint16": "BF16", "float32": "F32"}[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


def read(path):
    """All tensors of a file or of a directory's files, as f64."""
    path = pathlib.Path(path)
    tensors = {}
    for file in [path] if path.is_file() else sorted(path.rglob("*.safetensors")):
        data = file.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8:8 + size]).items():
            if name == "__metadata__":
                continue
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            if entry["dtype"] == "BF16":
                raw = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16
                values = raw.view(np.float32)
            else:
                kind = {"F32": np.float32, "F16": np.float16, "F64": np.float64,
                        "I64": np.int64}[entry["dtype"]]
                values = np.frombuffer(data[begin:end], kind)
            tensors[name] = values.astype(np.float64).reshape(entry["shape"])
    return tensors


class Bench:
    """Inputs, and what is exact about them."""

    def __init__(self, root, width, layers):
        self.root, self.layers, self.shapes = root, layers, modules(width)
        rng = np.random.default_rng(7)
        self.names = [f"model.layers.{layer}.{name}" for layer in range(layers)
                      for name in self.shapes]
        base = {"model.embed_tokens.weight": (2048, width), "model.norm.weight": (width,),
                "lm_head.weight": (2048, width)}
        for layer in range(layers):
            base[f"model.layers.{layer}.input_layernorm.weight"] = (width,)
            base[f"model.layers.{layer}.post_attention_layernorm.weight"] = (width,)
        base |= {f"{name}.weight": self.shape(name) for name in self.names}
        weights = {name: to_bf16(rng.standard_normal(shape) * 0.02) for name, shape in base.items()}
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
                  "hidden_size": width, "intermediate_size": self.shapes["mlp.up_proj"][0],
                  "num_hidden_layers": layers, "num_attention_heads": width // 64,
                  "num_key_value_heads": width // 64, "vocab_size": 2048, "rms_norm_eps": 1e-5,
                  "tie_word_embeddings": False, "torch_dtype": "bfloat16", "hidden_act": "silu",
                  "max_position_embeddings": 512}
        tuned = dict(weights)
        for name in self.names:
            down, up = self.factors(rng, self.shape(name), 4 * RANK)
            old = (weights[f"{name}.weight"].astype(np.uint32) << 16).view(np.float32)
            tuned[f"{name}.weight"] = to_bf16(old + up @ down)
        for folder, tensors in (("base", weights), ("tuned", tuned)):
            write(root / folder / "model.safetensors", tensors)
            (root / folder / "config.json").write_text(json.dumps(config))
        self.deltas = {name: self.adapter(rng, name) for name in ("one", "two")}

    def shape(self, name):
        return self.shapes[name.split(".", 3)[3]]

    @staticmethod
    def factors(rng, shape, rank):
        falloff = 0.93 ** np.arange(rank)
        down = rng.standard_normal((rank, shape[1])) / np.sqrt(shape[1])
        up = rng.standard_normal((shape[0], rank)) * falloff / np.sqrt(shape[0])
        return down.astype(np.float32), up.astype(np.float32)

    def adapter(self, rng, label):
        """A PEFT directory and a kohya file of one adapter; its deltas in f64."""
        peft, kohya, deltas = {}, {}, {}
        for name in self.names:
            down, up = self.factors(rng, self.shape(name), RANK)
            peft[f"base_model.model.{name}.lora_A.weight"] = down
            peft[f"base_model.model.{name}.lora_B.weight"] = up
            flat = "lora_unet_" + name.replace(".", "_")
            kohya[f"{flat}.lora_down.weight"] = down
            kohya[f"{flat}.lora_up.weight"] = up
            kohya[f"{flat}.alpha"] = np.array(RANK, dtype=np.float32)
            deltas[name] = up.astype(np.float64) @ down
        write(self.root / label / "adapter_model.safetensors", peft)
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK,
                  "base_model_name_or_path": str(self.root / "base"), "bias": "none",
                  "target_modules": sorted({name.rsplit(".", 1)[1] for name in self.names})}
        (self.root / label / "adapter_config.json").write_text(json.dumps(config))
        write(self.root / f"{label}.safetensors", kohya)
        return deltas

    def delta(self, path, name, tensors, config):
        """scale · B · A of one module of a written adapter."""
        flat = "lora_unet_" + name.replace(".", "_")
        if f"{flat}.lora_down.weight" in tensors:
            down = tensors[f"{flat}.lora_down.weight"]
            scale = tensors[f"{flat}.alpha"].item() / down.shape[0]
            return scale * tensors[f"{flat}.lora_up.weight"] @ down
        down = tensors[f"base_model.model.{name}.lora_A.weight"]
        pattern = config.get("alpha_pattern") or {}
        alpha = next((value for key, value in pattern.items() if name.endswith(key.lstrip("^."))),
                     config["lora_alpha"])
        scale = alpha / down.shape[0]
        return scale * tensors[f"base_model.model.{name}.lora_B.weight"] @ down

    def off_adapter(self, out, exact):
        tensors, config = read(out), {}
        found = list(pathlib.Path(out).rglob("adapter_config.json")) if os.path.isdir(out) else []
        if found:
            config = json.loads(found[0].read_text())
        return self.off(exact, lambda name: self.delta(out, name, tensors, config))

    def off_merge(self, out):
        base, merged = read(self.root / "base"), read(out)
        change = lambda name: merged[f"{name}.weight"] - base[f"{name}.weight"]
        return self.off(self.deltas["one"], change)

    def off(self, exact, of):
        apart = sum(np.sum((of(name) - exact[name]) ** 2) for name in self.names)
        return (apart / sum(np.sum(exact[name] ** 2) for name in self.names)) ** 0.5

    def least(self, exact, rank):
        """The error that Eckart and Young leave, module by module."""
        left = 0.0
        for name in self.names:
            delta = exact[name] if exact[name].shape[0] < exact[name].shape[1] else exact[name].T
            left += max(np.linalg.eigvalsh(delta @ delta.T)[:-rank].sum(), 0.0)
        return (left / sum(np.sum(exact[name] ** 2) for name in self.names)) ** 0.5


def measure(command):
    """Wall seconds, CPU seconds and MiB of one run."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL,
                                 stderr=errors)
        # The kernel's own maximum would count this process too, from which the child was split off.
        memory = 0
        while True:
            memory = max(memory, resident(child.pid))
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.002)
        child.returncode = status
        if status:
            errors.seek(0)
            sys.exit(f"{command}\n{errors.read().decode(errors='replace')[-2000:]}")
    wall = time.monotonic() - start
    return wall, usage.ru_utime + usage.ru_stime, memory / 1024


def resident(pid):
    """The largest resident set so far, in KiB; 0 of a process that has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            lines = [line.split() for line in status if line.startswith("VmHWM")]
    except OSError:
        return 0
    return int(lines[0][1]) if lines else 0


def jobs(bench, tool, kohya):
    """(work, who, command to an output, its name, its error, the least possible error)"""
    root, python = bench.root, sys.executable
    one, two = bench.deltas["one"], bench.deltas["two"]
    both = {name: WEIGHTS[0] * one[name] + WEIGHTS[1] * two[name] for name in bench.names}
    base, tuned = read(root / "base"), read(root / "tuned")
    change = {name: tuned[f"{name}.weight"] - base[f"{name}.weight"] for name in bench.names}
    peft = HERE / "peer_peft.py"
    weights = [str(weight) for weight in WEIGHTS]
    lists = []

    def add(work, who, command, out, off, exact=None, rank=None):
        lists.append((work, who, command, root / out, off, exact and (lambda: bench.least(exact, rank))))

    add("merge", "lora-tool", lambda out: [tool, "merge", root / "base", root / "one", "-o", out],
        "m-ours", bench.off_merge)
    add("merge", "PEFT", lambda out: [python, peft, "merge", root / "base", root / "one", out],
        "m-peft", bench.off_merge)

    off = lambda out: bench.off_adapter(out, both)
    add("combine to rank 16", "lora-tool",
        lambda out: [tool, "combine", root / "one", root / "two", "-w", *weights, "--rank", RANK,
                     "-o", out], "c-ours", off, both, RANK)
    add("combine to rank 16", "PEFT `svd`",
        lambda out: [python, peft, "combine", root / "base", root / "one", root / "two", RANK, out],
        "c-peft", off, both, RANK)
    files = [root / "one.safetensors", root / "two.safetensors"]
    if kohya:
        add("combine to rank 16", "kohya `svd_merge_lora`",
            lambda out: [python, HERE / "peer_kohya.py", kohya, "svd_merge_lora.py", "--models", *files,
                         "--ratios", *weights, "--new_rank", RANK, "--save_precision", "float",
                         "--save_to", out], "c-kohya.safetensors", off, both, RANK)

    off = lambda out: bench.off_adapter(out, one)
    add("resize 16 → 8", "lora-tool",
        lambda out: [tool, "resize", files[0], "--rank", 8, "-o", out], "r-ours.safetensors", off,
        one, 8)
    if kohya:
        add("resize 16 → 8", "kohya `resize_lora`",
            lambda out: [python, HERE / "peer_kohya.py", kohya, "resize_lora.py", "--model", files[0],
                         "--new_rank", 8, "--save_precision", "float", "--save_to", out],
            "r-kohya.safetensors", off, one, 8)

    off = lambda out: bench.off_adapter(out, change)
    add("extract at rank 16", "lora-tool",
        lambda out: [tool, "extract", root / "base", root / "tuned", "--rank", RANK, "-o", out],
        "e-ours", off, change, RANK)
    add("extract at rank 16", "mergekit-extract-lora",
        lambda out: [python, "-m", "mergekit.scripts.extract_lora", "--model", root / "tuned",
                     "--base-model", root / "base", "--out-path", out, "--max-rank", RANK],
        "e-mergekit", off, change, RANK)
    return lists


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tool", type=pathlib.Path, default=ROOT / "target/release/lora-tool")
    parser.add_argument("--kohya", type=pathlib.Path, help="a checkout of kohya-ss/sd-scripts")
    parser.add_argument("--only", action="append", help="work that begins so")
    parser.add_argument("--without", action="append", default=[], help="peers that begin so")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(pathlib.Path(directory), arguments.width, arguments.layers)
        todo = jobs(bench, arguments.tool.resolve(), arguments.kohya and arguments.kohya.resolve())
        todo = [job for job in todo
                if (not arguments.only or any(job[0].startswith(only) for only in arguments.only))
                and not any(job[1].startswith(name) for name in arguments.without)]
        taken = {job[:2]: [] for job in todo}
        for _ in range(arguments.runs):
            for work, who, command, out, _, _ in todo:
                if out.is_dir():
                    shutil.rmtree(out)
                elif out.exists():
                    out.unlink()
                taken[work, who].append(measure(command(out)))
        report(todo, taken)


def report(todo, taken):
    print("| work | tool | wall s | CPU s | peak MiB | error against f64 | least possible |")
    print("|---|---|---|---|---|---|---|")
    ours, bounds = {}, {}
    for work, who, _, out, off, least in todo:
        wall, cpu, memory = (statistics.median(column) for column in zip(*taken[work, who]))
        if who == "lora-tool":
            ours[work] = wall, cpu
        ratio = lambda value, own: f"{value:.2f}" if who == "lora-tool" else f"{value:.1f} ({value / own:.0f} ×)"
        own = ours.get(work, (wall, cpu))
        if work not in bounds:
            bounds[work] = f"{least():.6f}" if least else ""
        print(f"| {work} | {who} | {ratio(wall, own[0])} | {ratio(cpu, own[1])} | {memory:.0f} | "
              f"{off(out):.6f} | {bounds[work]} |", flush=True)


if __name__ == "__main__":
    main()
