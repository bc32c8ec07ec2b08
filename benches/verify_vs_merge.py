#!/usr/bin/env python3
"""Time `lora-tool verify` against the `lora-tool merge` whose result it judges.

Takes what `merge_vs_cp.py make` wrote. Merge and verify take turns; the ratio of the median wall times
is printed, and the exit status is 1 if it is above `--most` (1.5).
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from merge_vs_cp import GIB, measure, remove, run_merge, spread, warm


def run_verify(lora_tool, threads, base, adapter, merged, extra):
    """`lora-tool verify` of a merged checkpoint."""
    command = [lora_tool, "-q", "--threads", threads, "verify", merged, "--base", base]
    return measure([*command, "--adapter", adapter, *extra], sample_memory=True)


def main():
    """Measure; exit status 1 if a full verification costs more than `--most` merges."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, required=True, help="what merge_vs_cp.py make wrote")
    parser.add_argument("--lora-tool", required=True, help="the binary")
    parser.add_argument("--runs", type=int, default=5, help="default 5")
    parser.add_argument("--threads", type=int, default=2, help="default 2")
    parser.add_argument("--most", type=float, default=1.5, help="highest ratio (default 1.5)")
    args = parser.parse_args()
    base, adapter = args.dir / "base", args.dir / "adapter"
    scratch = Path(tempfile.mkdtemp(prefix="verify_vs_merge.", dir=args.dir))
    out = scratch / "out"
    samples = {"merge": [], "verify": [], "verify --sample 8": []}
    try:
        warm(base, adapter)
        for number in range(args.runs):
            remove(out)
            tool, threads = args.lora_tool, args.threads
            samples["merge"].append(run_merge(tool, threads, base, adapter, out))
            for name, extra in (("verify", []), ("verify --sample 8", ["--sample", 8])):
                sample = run_verify(tool, threads, base, adapter, out, extra)
                samples[name].append(sample)
            print(f"run {number + 1}/{args.runs}", file=sys.stderr)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

    size = sum(path.stat().st_size for path in base.iterdir())
    print(f"base {size / GIB:.2f} GiB; {args.runs} interleaved runs, {args.threads} threads: "
          "median (min–max)\n")
    print(f"{'':<20} {'wall, s':<26} {'CPU, s':<26} peak anonymous, MiB")
    for name, runs in samples.items():
        anon = max(sample.peak_anon for sample in runs) / (1 << 20)
        print(f"{name:<20} {spread([run.wall for run in runs]):<26} "
              f"{spread([run.cpu for run in runs]):<26} {anon:.1f}")
    median = {name: statistics.median(run.wall for run in runs) for name, runs in samples.items()}
    ratio = median["verify"] / median["merge"]
    print(f"\nverify / merge: {ratio:.2f} of the wall time (at most {args.most})")
    return int(ratio > args.most)


if __name__ == "__main__":
    sys.exit(main())
