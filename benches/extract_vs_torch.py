"""extract against the dense SVD that kohya's and mergekit's scripts call: CPU seconds of one weight, side by side.

    python benches/extract_vs_torch.py [--tool target/release/lora-tool] [--size 4096] [--rounds 3]

Each round runs torch's `torch.linalg.svd(diff, full_matrices=False)` and `lora-tool extract` on the same
difference of two bf16 checkpoints, one after the other; medians are compared. CPU seconds are user + system of
the whole process for the tool, and of the call alone (difference in memory) for torch.
"""

import argparse
import json
import resource
import statistics
import subprocess
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file


def children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def own():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", default="target/release/lora-tool")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    size = options.size
    base = torch.randn(size, size) * 0.02
    # A power law, as fine-tuning leaves it: σⱼ ∝ j^−0.6.
    values = torch.arange(1, 513).float() ** -0.6
    delta = (torch.randn(size, 512) * values) @ torch.randn(512, size) * 1e-5 + torch.randn(size, size) * 1e-5
    before, after = base.to(torch.bfloat16), (base + delta).to(torch.bfloat16)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        name = "model.layers.0.mlp.up_proj.weight"
        save_file({name: before}, scratch / "base.safetensors")
        save_file({name: after}, scratch / "tuned.safetensors")
        difference = after.float() - before.float()
        norm = difference.double().norm().item()
        dense, values = [], None
        tool = {16: [], 64: []}
        said = {}
        for _ in range(options.rounds):
            start = own()
            _, values, _ = torch.linalg.svd(difference, full_matrices=False)
            dense.append(own() - start)
            for rank, seconds in tool.items():
                start = children()
                command = [options.tool, "--threads", "1", "extract", scratch / "base.safetensors",
                           scratch / "tuned.safetensors", "-o", scratch / "out", "--rank", str(rank), "--force", "--json"]
                done = subprocess.run(command, check=True, capture_output=True)
                seconds.append(children() - start)
                said[rank] = json.loads(done.stdout)["modules"][0]
        torch_seconds = statistics.median(dense)
        print(f"torch.linalg.svd {size} × {size}: {torch_seconds:.2f} CPU-s")
        for rank, seconds in tool.items():
            median = statistics.median(seconds)
            best = values[rank:].double().norm().item() / norm
            error = said[rank]["relative_error"]
            print(f"lora-tool extract --rank {rank}: {median:.3f} CPU-s, {torch_seconds / median:.1f} × less; "
                  f"error {error:.6f}, the best possible {best:.6f}, ratio {error / best:.5f}; {said[rank]['passes']} passes")


if __name__ == "__main__":
    main()
