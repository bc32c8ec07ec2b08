#!/usr/bin/env python3
"""CPU seconds and memory of `collect build` on many adapters of one layer, with a structure that is known.

    python benches/collect.py target/release/lora-tool [--adapters 1000] [--rank 64]

Adapters of rank 16 of a 4096 × 4096 layer are mixtures of 64 shared directions on either side, with noise of a tenth
of their size, in a scratch directory of half a gigabyte.
"""

import argparse
import json
import resource
import subprocess
import tempfile
from pathlib import Path

import numpy
from safetensors.numpy import save_file

SIZE, RANK, SHARED = 4096, 16, 64
KEY = "base_model.model.model.layers.0.self_attn.q_proj"


def write(folder, count):
    """The adapters."""
    draw = numpy.random.default_rng(0)
    left, right = (draw.standard_normal((SIZE, SHARED), dtype=numpy.float32) for _ in range(2))
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj"],
              "base_model_name_or_path": "base"}
    for number in range(count):
        own = [draw.standard_normal((SHARED, RANK), dtype=numpy.float32) / 8 for _ in range(2)]
        noise = [0.1 * draw.standard_normal((SIZE, RANK), dtype=numpy.float32) for _ in range(2)]
        path = folder / f"a{number:04}"
        path.mkdir(parents=True)
        up, down = left @ own[0] + noise[0], (right @ own[1] + noise[1]).T.copy()
        save_file({f"{KEY}.lora_B.weight": up, f"{KEY}.lora_A.weight": down}, path / "adapter_model.safetensors")
        (path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def main():
    """Write, build, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lora_tool")
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--rank", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write(root / "loras", args.adapters)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [args.lora_tool, "collect", "build", root / "loras", "-o", root / "store",
                   "--rank", str(args.rank), "--json"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        report = json.loads(done.stdout)
        seconds = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
        print(f"{args.adapters} adapters, K = {args.rank}: {seconds:.1f} CPU s, {after.ru_maxrss / 1024:.0f} MiB at most, "
              f"{report['passes']} passes, error {report['relative_error']:.4f}, "
              f"{report['bytes_before'] / 1e6:.0f} MB to {report['bytes'] / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
