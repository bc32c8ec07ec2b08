#!/usr/bin/env python3
"""How long, and for how much, a merge of a large checkpoint takes on one machine, on a cluster, and from a bucket.

    scripts/scale/simulate.py                       # 1 TB, three ways
    scripts/scale/simulate.py --check               # the runs that costs.py timed, against what this predicts
    scripts/scale/simulate.py --workers 16 --filesystem 4000 --fails 0.05

What the tool costs per byte comes from costs.json, which costs.py measures. All else is an assumption, and a flag.
A worker does its shards one after another. A shard has stages, and in a stage the processor and the disk work at the
same time: it is over when the slower one is. The file system is shared: nobody gets more than one client's rate, and
all together no more than the whole's. A worker that fails loses the shard it is at, waits to be started again, and
hashes what it had finished, as `work` does. The commit reads and hashes all shards on one machine.
"""

import argparse
import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path

GB = 1e9
HOUR = 3600
# Bytes of a part of what is sent, as src/format/cloud/upload.rs has it.
PART = 8 << 20


@dataclass
class Stage:
    """Seconds of one core, of how many cores at once, and megabytes for the disk."""

    cpu: float
    cores: float
    megabytes: float = 0.0


@dataclass
class Worker:
    """Shards that are still to be made, each as its stages, and what it is doing now."""

    shards: list
    done: float = 0.0
    stages: list = field(default_factory=list)
    cpu: float = 0.0
    megabytes: float = 0.0
    idle: float = 0.0
    fails_in: float = float("inf")


def shard_sizes(options, rng):
    """Gigabytes of each shard: a mean with a spread, and the last one what is left."""
    sizes, left = [], options.terabytes * 1000
    while left > 1e-9:
        size = min(left, max(0.1, rng.gauss(options.shard, options.shard * options.shard_spread)))
        sizes.append(size)
        left -= size
    return sizes


def balance(sizes, workers):
    """As `merge --plan --workers` shares them out: the largest first, to whoever has least."""
    loads = [[] for _ in range(workers)]
    for size in sorted(sizes, reverse=True):
        min(loads, key=sum).append(size)
    return loads


def stages_of(costs, size, cores, serial):
    """Of a shard: base is read and result written, then read back from memory and hashed with one thread."""
    cpu, megabytes = costs["merge_cpu"] * size, 2000 * size
    merge = [Stage(cpu, cores), Stage(0.0, 1, megabytes)] if serial else [Stage(cpu, cores, megabytes)]
    return [*merge, Stage(costs["hash_cpu"] * size, 1)]


def run(loads, options, costs, rng, client, whole, cores):
    """Seconds until the last worker is done, seconds that were paid for, and how many failed."""
    workers, now, failures, paid = [], 0.0, 0, 0.0
    rate = options.fails / HOUR
    for load in loads:
        worker = Worker([(size, stages_of(costs, size, cores, options.serial)) for size in load])
        worker.idle = costs["start"]
        worker.fails_in = rng.expovariate(rate) if rate else float("inf")
        workers.append(worker)
    while active := [worker for worker in workers if worker.shards or worker.stages or worker.idle > 0]:
        for worker in active:
            if worker.idle <= 0 and not worker.stages:
                worker.stages = list(worker.shards[0][1])
                worker.cpu, worker.megabytes = worker.stages[0].cpu, worker.stages[0].megabytes
        reading = [worker for worker in active if worker.idle <= 0 and worker.megabytes > 0]
        disk = min(client, whole / max(1, len(reading)))
        step = min(next_event(worker, disk) for worker in active)
        now += step
        paid += step * (len(active) if options.release else len(workers))
        for worker in active:
            advance(worker, step, disk)
            if worker.fails_in <= 0:
                failures += 1
                # What was finished is hashed again before the next shard is made.
                worker.idle = options.restart + costs["start"] + costs["hash_cpu"] * worker.done
                worker.stages = []
                worker.fails_in = rng.expovariate(rate)
    return now, paid, failures


def next_event(worker, disk):
    """Seconds until something changes for a worker."""
    if worker.idle > 0:
        return max(worker.idle, 1e-9)
    waits = [worker.fails_in]
    if worker.cpu > 0:
        waits.append(worker.cpu / worker.stages[0].cores)
    if worker.megabytes > 0:
        waits.append(worker.megabytes / disk)
    return max(min(waits), 1e-9)


def advance(worker, step, disk):
    """Lets time pass for a worker."""
    if worker.idle > 0:
        worker.idle = max(0.0, worker.idle - step)
        return
    worker.fails_in -= step
    worker.cpu = max(0.0, worker.cpu - step * worker.stages[0].cores)
    worker.megabytes = max(0.0, worker.megabytes - step * disk)
    if worker.cpu < 1e-9 and worker.megabytes < 1e-6:
        worker.stages.pop(0)
        if worker.stages:
            worker.cpu, worker.megabytes = worker.stages[0].cpu, worker.stages[0].megabytes
        else:
            worker.done += worker.shards.pop(0)[0]


def at_once(size, costs, cores, disk, serial):
    """Seconds of one process on one machine: no hashes, no commit."""
    computing, moving = costs["merge_cpu"] * size / cores, 2000 * size / disk
    return costs["start"] + (computing + moving if serial else max(computing, moving))


def commit(size, costs, cores, disk):
    """Seconds of the commit: every byte is read and hashed, a shard a thread."""
    return costs["start"] + max(costs["hash_cpu"] * size / cores, 1000 * size / disk)


def bucket(sizes, options, costs):
    """Seconds of reading and merging, seconds of sending, and requests: GET and PUT.

    Pieces of the base come ahead of who reads them; so many parts of the result are on their way at once."""
    size = sum(sizes)
    gets = 1000 * size / options.piece if options.piece else costs["gets"] * size
    parts = sum(math.ceil(GB * one / PART) for one in sizes)
    # Beginning and ending an upload are requests too.
    puts = parts + 2 * len(sizes)
    get = options.latency + 1000 * size / gets / options.stream + options.retries * options.backoff
    put = options.latency + PART / 1e6 / options.stream + options.retries * options.backoff
    cpu = (costs["merge_cpu"] + costs["store_cpu"] + 2 * options.tls) * size / options.cores
    asking = gets * get / min(options.cores, options.streams)
    reading = max(cpu, asking, 1000 * size / options.nic, 1000 * size / options.disk)
    sending = max(puts * put / options.upload_streams, 1000 * size / options.nic)
    again = 1 + options.retries
    return reading, sending, gets * again, puts * again


def table(options, costs):
    """The three ways, as rows of Markdown."""
    rng = random.Random(options.seed)
    sizes = shard_sizes(options, rng)
    size = sum(sizes)
    print(f"{size / 1000:g} TB in {len(sizes)} shards\n\n| way | merge | commit or sending | all | cost |\n|---|---|---|---|---|")

    def row(name, first, second, dollars):
        print(f"| {name} | {first / 60:.0f} min | {second / 60:.0f} min | {(first + second) / 60:.0f} min | ${dollars:.2f} |")

    alone = at_once(size, costs, options.cores, options.disk, options.serial)
    row(f"one machine, {options.cores} cores, disk of {options.disk:.0f} MB/s", alone, 0, alone / HOUR * options.price)
    runs = []
    for _ in range(options.runs):
        loads = balance(sizes, options.workers)
        runs.append(run(loads, options, costs, rng, options.client, options.filesystem, options.cores))
    runs.sort()
    took, paid, _ = runs[len(runs) // 2]
    last = commit(size, costs, options.cores, min(options.client, options.filesystem))
    failures = sum(one[2] for one in runs) / len(runs)
    row(f"{options.workers} tasks, {options.fails:g} failures an hour each ({failures:.1f} a run)",
        took, last, (paid + last) / HOUR * options.price)
    print(f"<!-- of {len(runs)} runs: shortest {runs[0][0] / 60:.1f}, longest {runs[-1][0] / 60:.1f} min -->")
    reading, sending, gets, puts = bucket(sizes, options, costs)
    requests = gets / 1000 * options.get + puts / 1000 * options.put
    row(f"bucket, {options.upload_streams} parts up at once", reading, sending,
        (reading + sending) / HOUR * options.price + requests)
    print(f"<!-- {gets:.0f} GET and {puts:.0f} PUT requests: ${requests:.2f} -->")


def check(options, costs, timed):
    """What the model says of the runs that costs.py timed on its own machine."""
    print("| run | measured | predicted | error |\n|---|---|---|---|")
    # Shards of 25 MB are written when they are whole: the kernel does not begin earlier.
    options.fails, options.serial, rng = 0.0, True, random.Random(0)
    size, shards, disk = timed["gb"], timed["shards"], timed["write_mb_s"]
    # The base is in memory there: half of the megabytes of a merge cost nothing.
    loads = lambda workers: balance([size / shards] * shards, workers)
    predictions = {
        "merge": at_once(size, costs, timed["cores"], 2 * disk, options.serial),
        "one worker": run(loads(1), options, costs, rng, 2 * disk, 2 * disk, 1)[0],
        "two workers": run(loads(2), options, costs, rng, 2 * disk, 2 * disk, 1)[0],
        "commit": commit(size, costs, timed["cores"], float("inf")),
    }
    for name, predicted in predictions.items():
        measured = timed["seconds"][name]
        print(f"| {name} | {measured:.2f} s | {predicted:.2f} s | {100 * (predicted / measured - 1):+.0f} % |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = lambda name, default, text: parser.add_argument(name, type=type(default), default=default, help=f"{text} [{default}]")
    parser.add_argument("--costs", type=Path, default=Path(__file__).with_name("costs.json"))
    parser.add_argument("--check", action="store_true")
    add("--terabytes", 1.0, "size of the base, and of the result")
    add("--shard", 5.0, "GB of a shard")
    add("--shard-spread", 0.1, "standard deviation of it, as a share")
    add("--cores", 16, "cores of a machine")
    add("--disk", 1000.0, "MB/s of one machine's disk, reading and writing together")
    add("--workers", 16, "tasks of the cluster, each on its machine")
    add("--client", 1000.0, "MB/s that one machine gets from the file system")
    add("--filesystem", 8000.0, "MB/s of the file system for all machines")
    add("--fails", 0.05, "failures of a machine an hour")
    add("--restart", 120.0, "seconds until a failed task runs again")
    add("--nic", 1250.0, "MB/s of the network card")
    add("--stream", 85.0, "MB/s of one request to the bucket")
    add("--streams", 2, "requests at once when reading: what is used, and what comes next")
    add("--upload-streams", 4, "parts at once when sending")
    add("--piece", 8.39, "MB of a request when reading; 0 for what was measured, with small shards")
    add("--latency", 0.15, "seconds until a store begins to answer")
    add("--retries", 0.001, "share of requests that are made again")
    add("--backoff", 1.0, "seconds before a request is made again")
    add("--tls", 0.0, "seconds of a core for encrypting a GB")
    add("--price", 0.68, "dollars an hour of a machine")
    add("--get", 0.0004, "dollars for 1000 GET")
    add("--put", 0.005, "dollars for 1000 PUT")
    add("--runs", 101, "simulated runs of the cluster; the median is shown")
    add("--seed", 0, "of the random numbers")
    parser.add_argument("--serial", action="store_true", help="a shard is computed first and written then")
    parser.add_argument("--release", action="store_true", help="a task that is done gives its machine back")
    options = parser.parse_args()
    measured = json.loads(options.costs.read_text(encoding="utf-8"))
    if options.check:
        check(options, measured["costs"], measured["timed"])
    else:
        table(options, measured["costs"])


if __name__ == "__main__":
    main()
