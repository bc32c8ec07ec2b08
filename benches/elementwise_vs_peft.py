#!/usr/bin/env python3
"""Elementwise combinations, side by side with PEFT's `*_svd` types.

`make` writes two rank-16 adapters of Llama-7B's shape (32 layers, 224 modules); `run` combines them with
lora-tool to rank 16 and, with --peft, one layer with PEFT, whose time is scaled to all layers. All get
the same number of threads. CPU seconds are user + system; of PEFT only the call itself is counted, of
lora-tool the whole process.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from combine_vs_peft import LLAMA, LLAMA_LAYERS, make_llama, timed

# lora-tool's method, PEFT's combination type, the density of both.
METHODS = [("ties", "ties_svd", 0.2), ("dare-ties", "dare_ties_svd", 0.5)]
RANK = 16
WEIGHTS = [0.7, 0.3]


def peft_layer(kind, density):
    """Prints wall and CPU seconds of PEFT's add_weighted_adapter on one Llama-7B layer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=1,
                         num_attention_heads=32, vocab_size=32)
    targets = [name.split(".")[1] for name in LLAMA]
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, init_lora_weights=False)
    model = get_peft_model(LlamaForCausalLM(config), lora, adapter_name="a")
    model.add_adapter("b", lora)
    wall, cpu = time.monotonic(), time.process_time()
    with torch.no_grad():
        model.add_weighted_adapter(["a", "b"], WEIGHTS, "ab", combination_type=kind, svd_rank=RANK,
                                   density=density)
    print(json.dumps([time.monotonic() - wall, time.process_time() - cpu]))


def measure_peft(python, kind, density, threads):
    """(wall, CPU seconds) of one layer in a fresh process with so many threads."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    command = [python, os.path.abspath(__file__), "peft", "--type", kind, "--density", str(density)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return tuple(json.loads(output.splitlines()[-1]))


def measure(tool, directory, method, density, threads, runs):
    """(wall, CPU seconds, peak anonymous MiB) of each of our runs."""
    scratch, results = tempfile.mkdtemp(dir=directory), []
    try:
        for _ in range(runs):
            out = os.path.join(scratch, "out")
            shutil.rmtree(out, ignore_errors=True)
            results.append(timed([
                tool, "-q", "--threads", str(threads), "combine", f"{directory}/llama-a",
                f"{directory}/llama-b", "-w", *map(str, WEIGHTS), "--method", method,
                "--density", str(density), "--rank", str(RANK), "-o", out]))
    finally:
        shutil.rmtree(scratch)
    return results


def run(arguments):
    """Times everything and prints the ratios."""
    directory, threads = arguments.dir, arguments.threads
    files = [f"{directory}/{name}/adapter_model.safetensors" for name in ("llama-a", "llama-b")]
    given = sum(map(os.path.getsize, files)) / 2**20
    for path in files:  # into the page cache
        with open(path, "rb") as file:
            while file.read(1 << 24):
                pass
    print(f"two rank-{RANK} adapters, {LLAMA_LAYERS * len(LLAMA)} modules, {given:.0f} MiB, {threads} threads")
    for method, kind, density in METHODS:
        results = measure(arguments.lora_tool, directory, method, density, threads, arguments.runs)
        wall, cpu, peak = (statistics.median(column) for column in zip(*results))
        walls = [result[0] for result in results]
        print(f"{method:10} wall {wall:6.1f} s ({min(walls):.1f}–{max(walls):.1f})   CPU {cpu:6.1f} s   "
              f"peak anonymous {peak:.0f} MiB = adapters {peak - given:+.0f} MiB", flush=True)
        if arguments.peft:
            layer = measure_peft(arguments.peft, kind, density, threads)
            whole = [seconds * LLAMA_LAYERS for seconds in layer]
            print(f"  PEFT {kind}: one layer wall {layer[0]:.0f} s, CPU {layer[1]:.0f} s; {LLAMA_LAYERS} layers "
                  f"{whole[0]:.0f} s, {whole[1]:.0f} s (scaled): {whole[0] / wall:.0f} times the wall time, "
                  f"{whole[1] / cpu:.0f} times the CPU time", flush=True)


def main():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="write the adapters")
    make.add_argument("--dir", required=True)
    timing = commands.add_parser("run", help="time lora-tool, and PEFT if asked")
    timing.add_argument("--dir", required=True)
    timing.add_argument("--lora-tool", required=True)
    timing.add_argument("--runs", type=int, default=3)
    timing.add_argument("--threads", type=int, default=2)
    timing.add_argument("--peft", nargs="?", const=sys.executable, metavar="PYTHON",
                        help="time PEFT on one layer too (minutes), in this interpreter")
    peft = commands.add_parser("peft", help="one layer with PEFT, in this interpreter")
    peft.add_argument("--type", required=True)
    peft.add_argument("--density", type=float, required=True)
    arguments = parser.parse_args()
    if arguments.command == "make":
        os.makedirs(arguments.dir, exist_ok=True)
        for seed, name in enumerate(("llama-a", "llama-b")):
            make_llama(os.path.join(arguments.dir, name), seed, RANK)
    elif arguments.command == "run":
        run(arguments)
    else:
        peft_layer(arguments.type, arguments.density)


if __name__ == "__main__":
    main()
