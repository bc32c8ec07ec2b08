#!/usr/bin/env python3
"""What the tool costs per gigabyte, on this machine, as JSON for simulate.py.

    scripts/scale/costs.py target/release/lora-tool --disk DIRECTORY > scripts/scale/costs.json

A base of --bytes in 40 shards lies in memory (--memory, a tmpfs); core seconds are medians of --runs there. Runs on
--disk are timed for simulate.py --check. With the package moto[server,s3] and a binary with the feature `cloud`, the
same merge from and to a bucket: requests, and the core seconds that they add, without encryption.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import fleet

SHARDS = 40


def measured(arguments, env=None):
    """Seconds, core seconds, and bytes of read and write calls of a command."""
    began = time.monotonic()
    process = subprocess.Popen([*map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    took = time.monotonic() - began
    calls = dict(line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, arguments))}: {process.stderr.read().decode()}")
    return {"seconds": took, "cpu": usage.ru_utime + usage.ru_stime,
            "read": int(calls["rchar"]), "written": int(calls["wchar"])}


def median(runs, name):
    return statistics.median(one[name] for one in runs)


class Scene:
    """Inputs, and where results go."""

    def __init__(self, binary, inputs, out):
        self.binary, self.inputs, self.out, self.plan = binary, inputs, out, out / "plan.json"
        self.out.mkdir(exist_ok=True)

    def clear(self):
        shutil.rmtree(self.out)
        self.out.mkdir()

    def tool(self, *arguments):
        return measured([self.binary, "-q", *arguments])

    def merge(self, *options):
        return self.tool("merge", self.inputs / "base", self.inputs / "adapter", "-o", self.out / "out", *options)

    def planned(self, workers, *options):
        """Plans, works in so many processes of one thread each at once, commits; what each step took."""
        self.clear()
        found = {"plan": self.merge("--plan", self.plan, "--workers", workers, *options)}
        began = time.monotonic()
        parts = [subprocess.Popen([self.binary, "-q", "--threads", "1", "work", self.plan, "--shard", f"{part}/{workers}"],
                                  stdout=subprocess.DEVNULL) for part in range(1, workers)]
        found["work"] = self.tool("--threads", "1", "work", self.plan, "--shard", f"{workers}/{workers}")
        if any(part.wait() for part in parts):
            sys.exit("a worker failed")
        found["all work"] = time.monotonic() - began
        found["nothing left"] = self.tool("work", self.plan, "--shard", "1000/1000")
        found["commit"] = self.tool("commit", self.plan)
        return found


def rates(scene, gb, runs):
    """Core seconds per GB, in memory."""
    merges, plans, verifies = [], [], []
    for _ in range(runs):
        scene.clear()
        merges.append(scene.merge("--threads", "1"))
        verifies.append(scene.tool("verify", scene.out / "out", "--base", scene.inputs / "base",
                                   "--adapter", scene.inputs / "adapter"))
        plans.append(scene.planned(1))
    counted = scene.planned(1, "--no-mmap")
    step = lambda name: median([one[name] for one in plans], "cpu")
    start = median([one["nothing left"] for one in plans], "seconds")
    return {
        "merge_cpu": (median(merges, "cpu") - start) / gb, "hash_cpu": (step("commit") - start) / gb,
        "work_cpu": (step("work") - start) / gb, "verify_cpu": median(verifies, "cpu") / gb,
        "plan_cpu_in_all": step("plan"), "start": start,
        "work_read": counted["work"]["read"] / gb / 1e9, "work_written": counted["work"]["written"] / gb / 1e9,
        "commit_read": counted["commit"]["read"] / gb / 1e9,
    }


def timed(scene, gb, runs):
    """Seconds on a disk, with the base in memory."""
    block, file = os.urandom(1 << 24), scene.out / "probe"
    speeds = []
    for _ in range(runs):
        began = time.monotonic()
        with open(file, "wb", buffering=0) as out:
            for _ in range(int(gb * 1e9) >> 24):
                out.write(block)
            os.fsync(out.fileno())
        speeds.append(gb * 1000 / (time.monotonic() - began))
        file.unlink()
    merges, one, two = [], [], []
    for _ in range(runs):
        scene.clear()
        merges.append(scene.merge())
        one.append(scene.planned(1))
        two.append(scene.planned(2))
    return {"gb": gb, "shards": SHARDS, "cores": os.cpu_count(), "write_mb_s": statistics.median(speeds), "seconds": {
        "merge": median(merges, "seconds"), "one worker": statistics.median(found["all work"] for found in one),
        "two workers": statistics.median(found["all work"] for found in two),
        "commit": statistics.median(found["commit"]["seconds"] for found in one)}}


def in_a_bucket(binary, inputs, place, gb, merge_cpu):
    """Requests per GB of base, and the core seconds that a store adds, of a merge from and to moto."""
    import object_store

    moto, server, env = object_store.serve(place)
    try:
        store = object_store.Store("models")
        for name in ("base", "adapter"):
            store.put(inputs / name, name)
        object_store.Proxy.requests.clear()
        object_store.Proxy.read = 0
        run = measured([binary, "-q", "merge", "s3://models/base", "s3://models/adapter", "-o", "s3://models/out"], env)
        requests = object_store.Proxy.requests
        return {"gets": (requests["GET"] + requests["HEAD"]) / gb, "puts": (requests["PUT"] + requests["POST"]) / gb,
                "store_read": object_store.Proxy.read / gb / 1e9, "store_cpu": run["cpu"] / gb - merge_cpu}
    finally:
        server.shutdown()
        moto.kill()


def machine():
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {"processor": model.partition(": ")[2], "cores": os.cpu_count(), "kernel": platform.release(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9), "date": str(date.today())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=lambda text: str(Path(text).resolve()))
    parser.add_argument("--bytes", type=float, default=2e9)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--no-store", action="store_true", help="leave the bucket out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.memory) as memory, tempfile.TemporaryDirectory(dir=options.disk) as disk:
        inputs = Path(memory) / "inputs"
        names = fleet.make_base(inputs / "base", int(options.bytes), SHARDS)
        fleet.make_adapter(inputs / "adapter", names)
        gb = sum(file.stat().st_size for file in (inputs / "base").iterdir()) / 1e9
        costs = rates(Scene(options.binary, inputs, Path(memory) / "out"), gb, options.runs)
        seconds = timed(Scene(options.binary, inputs, Path(disk) / "out"), gb, options.runs)
        shutil.rmtree(Path(memory) / "out")
        if not options.no_store:
            costs |= in_a_bucket(options.binary, inputs, Path(disk), gb, costs["merge_cpu"])
    rounded = lambda value: round(value, 4) if isinstance(value, float) else value
    found = {"machine": machine(), "base": {"gb": gb, "shards": SHARDS, "tensors": len(names), "rank": fleet.RANK},
             "costs": {name: rounded(value) for name, value in costs.items()}, "timed": seconds}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
