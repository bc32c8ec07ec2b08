#!/usr/bin/env python3
"""Time `lora-tool merge --method` against a copy and against mergekit, on a synthetic Llama-shaped model.

`make` writes a base, two fine-tuned checkpoints and two adapters; `run` measures. The copy reads all
inputs and writes the output: `cat` of what is merged, `cp -r` of the base, fsync. Linux only.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from merge_vs_cp import (GIB, filesystem, fsync_tree, header_bytes, interleave, measure, print_table,
                         run_cp, warm, write_adapter, write_base)

# A fine-tune moves weights of 0.02 by about two steps of bf16.
TUNED_STD = 2e-4
DENSITIES, WEIGHTS = [0.5, 0.4], [0.7, 0.3]
# lora-tool's method, and mergekit's with its parameters beside density and weight.
METHODS = {
    "linear": ("task_arithmetic", {}),
    "ties": ("ties", {}),
    "dare-linear": ("dare_linear", {}),
    "dare-ties": ("dare_ties", {}),
    "magnitude-prune": None,
    "breadcrumbs": ("breadcrumbs", {"gamma": 0.01}),
    "della": ("della", {"epsilon": 0.1}),
    "sce": ("sce", {}),
}
INPUTS = {"tuned": ["tuned1", "tuned2"], "adapters": ["adapter1", "adapter2"]}


# ---- make -----------------------------------------------------------------------------


def write_tuned(np, base, out, seed):
    """Writes base + noise, rounded to bf16, shard by shard."""
    shutil.copytree(base, out, ignore=shutil.ignore_patterns("*.safetensors"))
    noise = np.random.default_rng(seed).standard_normal(1 << 23, dtype=np.float32) * np.float32(TUNED_STD)
    for shard in sorted(base.glob("*.safetensors")):
        with open(shard, "rb") as source, open(out / shard.name, "wb") as target:
            length = source.read(8)
            target.write(length + source.read(int.from_bytes(length, "little")))
            number = 0
            while chunk := source.read(2 << 22):
                bits = np.frombuffer(chunk, np.uint16).astype(np.uint32) << 16
                start = number * 1_000_003 % (len(noise) - bits.size + 1)
                bits = (bits.view(np.float32) + noise[start : start + bits.size]).view(np.uint32)
                target.write(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes())
                number += 1


def make(args):
    """Writes all below `--out`."""
    import numpy as np

    size, layers = write_base(np, args.out / "base", int(args.gib * GIB), "bf16")
    for number, name in enumerate(INPUTS["tuned"]):
        write_tuned(np, args.out / "base", args.out / name, 10 + number)
    for number, name in enumerate(INPUTS["adapters"]):
        write_adapter(np, args.out / name, layers, args.rank, seed=2 + number)
    print(f"base: {size / GIB:.2f} GiB, {layers} layers, bf16; two tuned checkpoints, "
          f"two adapters of rank {args.rank}")


# ---- run ------------------------------------------------------------------------------


def run_copy(args, kind, out):
    """Reads all inputs and writes the output."""
    files = [path for name in INPUTS[kind] for path in sorted((args.dir / name).glob("*.safetensors"))]
    return measure(["cat", *files]) + run_cp(args.dir / "base", out)


def run_ours(args, kind, method, threads, out):
    """`lora-tool merge`, which syncs by itself."""
    command = [args.lora_tool, "-q", "--threads", threads, "merge", args.dir / "base",
               *(args.dir / name for name in INPUTS[kind]), "-w", *WEIGHTS, "--method", method, "-o", out]
    if method == "sce":
        command += ["--density", DENSITIES[0]]
    elif method != "linear":
        command += ["--density", ",".join(map(str, DENSITIES))]
    return measure(command, sample_memory=True)


def run_mergekit(args, kind, method, out):
    """`mergekit-yaml` on as many threads, and fsync of what it wrote."""
    name, parameters = METHODS[method]
    base = str(args.dir / "base")
    above = "" if kind == "tuned" else f"{base}+"
    own = zip(INPUTS[kind], WEIGHTS, DENSITIES)
    config = {
        "merge_method": name, "base_model": base, "dtype": "bfloat16",
        "models": [{"model": f"{above}{args.dir / name}", "parameters": {"weight": weight, "density": density}}
                   for name, weight, density in own],
        "parameters": {"normalize": False, "int8_mask": False} | parameters,
    }
    if method == "sce":
        config["parameters"]["select_topk"] = DENSITIES[0]
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        file = Path(scratch) / "merge.yaml"
        file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        command = [args.mergekit, file, out, "--num-threads", args.threads, "--no-copy-tokenizer",
                   "--no-write-model-card", "--quiet", "--lora-merge-cache", Path(scratch) / "loras"]
        return measure(command, sample_memory=True) + fsync_tree(out)


def median(samples, name, field):
    """Median of one figure of one contender."""
    return statistics.median(getattr(sample, field) for sample in samples[name])


def compare(args, kind, scratch):
    """All contenders in turn, on one kind of input; whether all thread numbers wrote the same."""
    ours = {f"{method}, {threads} thread{'s' * (threads > 1)}": (method, threads)
            for method in args.methods for threads in args.threads_too + [args.threads]}
    contenders = {"copy": lambda out: run_copy(args, kind, out)}
    contenders |= {name: lambda out, own=own: run_ours(args, kind, *own, out) for name, own in ours.items()}
    out = scratch / "out"
    run_cp(args.dir / "base", out)  # uncounted: the first output meets cold free memory
    samples, hashes = interleave(contenders, args.runs, out, set(ours))
    peers = {}
    if args.mergekit:
        start = [measure([args.mergekit, "--help"]) for _ in range(3)]
        start = statistics.median(sample.wall for sample in start), statistics.median(s.cpu for s in start)
        methods = [method for method in args.methods if METHODS[method]]
        peers = {f"mergekit {method}": lambda out, own=method: run_mergekit(args, kind, own, out)
                 for method in methods}
        samples |= interleave(peers, args.peer_runs, out, set())[0]
    print(f"\n{kind} as inputs, {args.runs} interleaved runs: median (min–max)\n")
    print_table(samples)
    print("\nratio of medians")
    for name, (method, threads) in ours.items():
        ratios = [median(samples, name, field) / median(samples, "copy", field) for field in ("wall", "cpu")]
        print(f"{name + ' / copy':<32} wall {ratios[0]:.2f}   CPU {ratios[1]:.2f}")
        peer = f"mergekit {method}"
        if peer in samples and threads == args.threads:
            seconds = [median(samples, peer, field) for field in ("wall", "cpu")]
            ratios = [own / median(samples, name, field) for own, field in zip(seconds, ("wall", "cpu"))]
            rest = [(own - begun) / median(samples, name, field)
                    for own, begun, field in zip(seconds, start, ("wall", "cpu"))]
            print(f"{'  mergekit / ours':<32} wall {ratios[0]:.1f}   CPU {ratios[1]:.1f}; "
                  f"without the start of Python: wall {rest[0]:.1f}   CPU {rest[1]:.1f}")
    same = {method: {json.dumps(hashes[name], sort_keys=True) for name in ours if ours[name][0] == method}
            for method in args.methods}
    different = [method for method, found in same.items() if len(found) > 1]
    print(f"\nsha256, {[*args.threads_too, args.threads]} threads: "
          f"{'DIFFERENT: ' + ', '.join(different) if different else 'equal'}")
    return not different


def run(args):
    """Measures; exit status 1 if numbers of threads wrote different bytes."""
    out_dir = args.out_dir or args.dir
    scratch = Path(tempfile.mkdtemp(prefix="elementwise_vs_mergekit.", dir=out_dir))
    size = sum(path.stat().st_size for path in (args.dir / "base").iterdir())
    print(f"base {size / GIB:.2f} GiB, warm; output on {filesystem(out_dir)}; {os.cpu_count()} CPUs; "
          f"densities {DENSITIES}, weights {WEIGHTS}")
    try:
        same = []
        for kind in args.inputs:
            warm(args.dir / "base", *(args.dir / name for name in INPUTS[kind]))
            same.append(compare(args, kind, scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return int(not all(same))


# ---- command line ---------------------------------------------------------------------


def parse_args():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="make | run")

    command = commands.add_parser("make", help="write base, tuned checkpoints and adapters")
    command.set_defaults(action=make)
    command.add_argument("--out", type=Path, required=True, help="gets base/, tuned1/, tuned2/, adapter1/, adapter2/")
    command.add_argument("--gib", type=float, default=1.5, help="size of the base (default 1.5)")
    command.add_argument("--rank", type=int, default=16, help="of the adapters (default 16)")

    command = commands.add_parser("run", help="measure")
    command.set_defaults(action=run)
    command.add_argument("--dir", type=Path, required=True, help="what `make` wrote")
    command.add_argument("--lora-tool", required=True, help="the binary")
    command.add_argument("--mergekit", metavar="MERGEKIT-YAML", help="also merge with mergekit, by this command")
    command.add_argument("--inputs", nargs="+", choices=INPUTS, default=list(INPUTS), help="default both")
    command.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default all")
    command.add_argument("--runs", type=int, default=3, help="default 3")
    command.add_argument("--peer-runs", type=int, default=3, help="default 3")
    command.add_argument("--threads", type=int, default=2, help="of both tools (default 2)")
    command.add_argument("--threads-too", type=int, nargs="+", default=[], metavar="N",
                         help="run lora-tool with these numbers of threads as well")
    command.add_argument("--out-dir", type=Path, help="write outputs below this directory (default: that of --dir)")
    return parser.parse_args()


def main():
    """Runs the chosen command."""
    args = parse_args()
    try:
        return args.action(args)
    except OSError as error:
        return f"error: {error}"


if __name__ == "__main__":
    sys.exit(main())
