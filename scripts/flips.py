#!/usr/bin/env python3
"""Flip single bits in receipts and in merged checkpoints, and see that none goes unnoticed.

usage: flips.py LORA_TOOL [--receipts N] [--merged N] [--seed N]

Defaults are the full form: 750 bits of receipts, half of them in the contents at the end, and 300 bits
anywhere in a merged directory (weights, headers, index, configs, tokenizer; every other one in a file
chosen evenly, since weights are most of the bytes). `undo` must restore the very base or refuse; `verify`
must say no or that it cannot judge. Works on `fixtures/llama`, below $TMPDIR; Python 3's own library only.

Exit 0: none was missed. 1: some were, with a line for each.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "llama"
# Merges whose receipts differ: the base's own dtype, another one, other shards, one file.
MERGES = (
    ("merged", ()),
    ("half", ("--dtype", "f16")),
    ("shards", ("--max-shard-size", "9KB")),
    ("one.safetensors", ()),
)


def run(tool, *arguments):
    """The exit status of a command."""
    command = [tool, "-q", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def tree(directory):
    """The bytes of every file below a directory, by relative path."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory): path.read_bytes() for path in files}


def flipped(data, at, bit):
    """The bytes with one bit turned over."""
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def contents_start(receipt):
    """Where the contents of a receipt begin: their length stands before the hash at the end."""
    return len(receipt) - 40 - int.from_bytes(receipt[-40:-32], "little")


def receipts(tool, work, count, rng):
    """Flips in receipts: (refused, base intact, missed)."""
    base, refused, intact, missed = tree(FIXTURES / "base"), 0, 0, []
    made = []
    for name, options in MERGES:
        out, receipt = work / name, work / f"{name}.receipt"
        inputs = (FIXTURES / "base", FIXTURES / "style")
        if run(tool, "merge", *inputs, "-o", out, "--receipt", receipt, *options):
            sys.exit(f"error: the merge to {name} failed")
        made.append((out, receipt.read_bytes()))
    for trial in range(count):
        merged, sound = made[trial % len(made)]
        start = contents_start(sound) if trial // len(made) % 2 else 0
        at, bit = rng.randrange(start, len(sound)), rng.randrange(8)
        damaged, out = work / "damaged.receipt", work / "undone"
        damaged.write_bytes(flipped(sound, at, bit))
        code = run(tool, "undo", merged, "--receipt", damaged, "-o", out)
        if code == 0 and tree(out) == base:
            intact += 1
        elif code == 2 and not out.exists():
            refused += 1
        else:
            missed.append(f"receipt of {merged.name}: bit {bit} of byte {at}, exit {code}")
        shutil.rmtree(out, ignore_errors=True)
    return refused, intact, missed


def checkpoints(tool, work, count, rng):
    """Flips in a merged directory: (noticed, missed)."""
    merged, noticed, missed = work / "judged", 0, []
    if run(tool, "merge", FIXTURES / "base", FIXTURES / "style", "-o", merged):
        sys.exit("error: the merge failed")
    judge = ("verify", merged, "--base", FIXTURES / "base", "--adapter", FIXTURES / "style")
    if run(tool, *judge):
        sys.exit("error: a sound merge is not verified")
    files = [(path, data) for path, data in tree(merged).items() if data]
    sizes = [len(data) for _, data in files]
    for trial in range(count):
        path, data = rng.choices(files, weights=None if trial % 2 else sizes)[0]
        at, bit = rng.randrange(len(data)), rng.randrange(8)
        (merged / path).write_bytes(flipped(data, at, bit))
        code = run(tool, *judge)
        if code in (1, 2):
            noticed += 1
        else:
            missed.append(f"{path}: bit {bit} of byte {at}, exit {code}")
        (merged / path).write_bytes(data)
    if run(tool, *judge):
        sys.exit("error: the merge put back is not verified")
    return noticed, missed


def main():
    """Run both forms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lora_tool", type=Path)
    parser.add_argument("--receipts", type=int, default=750)
    parser.add_argument("--merged", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng, tool = random.Random(args.seed), args.lora_tool.resolve()
    with tempfile.TemporaryDirectory(prefix="flips.") as work:
        refused, intact, missed = receipts(tool, Path(work), args.receipts, rng)
        noticed, unseen = checkpoints(tool, Path(work), args.merged, rng)
    print(f"receipts: {args.receipts} bits, {refused} refused, {intact} base intact, "
          f"{len(missed)} missed")
    print(f"merged: {args.merged} bits, {noticed} noticed, {len(unseen)} missed")
    for line in missed + unseen:
        print("MISSED:", line)
    return int(bool(missed or unseen))


if __name__ == "__main__":
    sys.exit(main())
