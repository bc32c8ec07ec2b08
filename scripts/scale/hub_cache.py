#!/usr/bin/env python3
"""Merges out of a local Hub cache, watched by strace: the bytes of the merge by paths, and no socket.

    scripts/scale/hub_cache.py target/release/lora-tool
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import fleet
from fleet import expect

# 40 hexadecimal digits, as a commit has.
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache, repository, folder):
    """Puts a directory into the cache as a repository's snapshot: blobs, and links to them."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    for name, blob in fleet.hashes(folder).items():
        shutil.copy(folder / name, root / "blobs" / blob)
        (snapshot / name).symlink_to(Path("../../blobs") / blob)


def sockets(trace):
    """Lines of strace about sockets of a network; a pair or a pipe between two threads is none."""
    return [line for line in trace.read_text().splitlines() if re.search(r"\b(socket|connect)\(", line)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=lambda text: str(Path(text).resolve()))
    binary = parser.parse_args().binary
    if shutil.which("strace") is None:
        sys.exit("skipped: there is no strace")
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        names = fleet.make_base(place / "base", 40_000_000, 2)
        fleet.make_adapter(place / "adapter", names, base="org/base")
        cached(place / "cache", "org/base", place / "base")
        cached(place / "cache", "org/adapter", place / "adapter")
        fleet.command(binary, "merge", place / "base", place / "adapter", "-o", place / "by-path")
        right = fleet.hashes(place / "by-path")
        env = os.environ | {"HF_HUB_CACHE": str(place / "cache")}
        for at, inputs in enumerate((["org/base", "org/adapter@main"], ["org/base", f"org/adapter@{COMMIT}"],
                                     ["org/adapter"], ["hf://org/base", "hf://org/adapter@main"])):
            out, trace = place / f"out-{at}", place / f"trace-{at}"
            subprocess.run(["strace", "-f", "-qq", "-e", "trace=network", "-o", trace, binary, "merge", *inputs,
                            "-o", out], env=env, check=True, capture_output=True)
            expect(fleet.hashes(out) == right, f"merge {' '.join(inputs)}: the bytes of the merge by paths")
            expect(not sockets(trace), f"merge {' '.join(inputs)}: no socket")
        told = fleet.command(binary, "merge", "org/elsewhere", "org/adapter", "-o", place / "none", expect=2, env=env)
        expect("download org/elsewhere" in told, "a repository that is not there: the command that fetches it")


if __name__ == "__main__":
    main()
