#!/usr/bin/env python3
"""One merge by many workers against the same merge in one process: bytes, kills, missing and altered shards.

    scripts/scale/many_machines.py target/release/lora-tool                     # 2 GB in 40 shards, 8 workers
    scripts/scale/many_machines.py target/release/lora-tool --engine slurm      # an array job on this machine
    scripts/scale/many_machines.py target/release/lora-tool --engine ray        # tasks of Ray, two at a time

Slurm's `slurmctld`, `slurmd`, `munged` and Ray's package have to be installed for theirs; needs twice the base's
size and as much for each result on the disk of --place.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import fleet
from fleet import command, expect


def processes(scene):
    """Workers in a random order; one is killed while it writes, run again, and once more when it is done."""
    order = list(range(1, scene.workers + 1))
    random.Random(scene.seed).shuffle(order)
    print(f"order of the workers: {order}")
    victim = order[scene.workers // 2]
    for worker in order:
        arguments = ["work", str(scene.plan), "--shard", f"{worker}/{scene.workers}"]
        if worker == victim:
            started = subprocess.Popen([scene.binary, *arguments], stderr=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL)
            time.sleep(scene.kill_after)
            started.send_signal(signal.SIGKILL)
            expect(started.wait() == -signal.SIGKILL, f"worker {worker} was killed while it worked")
            told = command(scene.binary, "commit", scene.plan, expect=2)
            expect("shard" in told, "nothing is put in place while shards are missing")
        command(scene.binary, *arguments)
    told = command(scene.binary, "work", scene.plan, "--shard", f"{victim}/{scene.workers}", "--json")
    expect('"made": 0' in told, "a worker that is run again makes nothing again")


def slurm(scene):
    """The array script of examples/ on a cluster of this machine; one task is requeued while it runs."""
    import slurm_cluster

    script = Path(__file__).parents[2] / "examples" / "slurm_array.sh"
    with slurm_cluster.started(scene.place / "slurm") as cluster:
        job = cluster.submit(script, scene.plan, tasks=scene.workers, binary=scene.binary)
        expect(cluster.requeue_one(job), "a running task was killed and put back into the queue")
        states = cluster.wait(job)
    expect(set(states) == {"COMPLETED"}, f"all tasks of the array completed: {len(states)}")


def ray(scene):
    """`lora_tool.ray.work_on` with two workers at a time; one of their processes is killed."""
    done = subprocess.run(
        [scene.python, Path(__file__).with_name("ray_kill.py"), scene.plan, str(scene.workers)],
        env=os.environ | {"PATH": f"{Path(scene.binary).parent}:{os.environ['PATH']}",
                          "PYTHONPATH": str(Path(__file__).parents[2] / "python")},
        check=False)
    expect(done.returncode == 0, "Ray's tasks came to their end, one after its worker had been killed")


ENGINES = {"processes": processes, "slurm": slurm, "ray": ray}


def broken_shards(scene, staged):
    """What commit says of a shard that is missing, and of one with another byte; and that `work` mends it."""
    shard = sorted(staged.glob("*.safetensors"))[3]
    worker = ["work", scene.plan, "--shard"]
    whole = shard.read_bytes()
    shard.unlink()
    expect(shard.name in command(scene.binary, "commit", scene.plan, expect=2), "a missing shard is named")
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    expect(shard.name in command(scene.binary, "commit", scene.plan, expect=2), "an altered shard is named")
    for part in range(1, scene.workers + 1):
        command(scene.binary, *worker, f"{part}/{scene.workers}")
    expect(shard.read_bytes() == whole, "the workers make it as it was")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--engine", choices=ENGINES, default="processes")
    parser.add_argument("--bytes", type=float, default=2e9)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kill-after", type=float, default=0.25, help="seconds")
    parser.add_argument("--python", default="python3", help="the interpreter that has Ray")
    parser.add_argument("--place", type=Path, help="a directory to work in")
    scene = parser.parse_args()
    scene.binary = str(Path(scene.binary).resolve())
    scene.place = Path(tempfile.mkdtemp(prefix="many-machines-", dir=scene.place)).resolve()
    scene.plan = scene.place / "plan.json"
    try:
        base, adapter = scene.place / "base", scene.place / "adapter"
        names = fleet.make_base(base, int(scene.bytes), scene.shards)
        fleet.make_adapter(adapter, names)
        merge = ["merge", base, adapter, "-o"]
        began = time.monotonic()
        command(scene.binary, *merge, scene.place / "at-once")
        print(f"one process: {time.monotonic() - began:.1f} s")
        command(scene.binary, *merge, scene.place / "out", "--plan", scene.plan, "--workers", scene.workers)
        command(scene.binary, "commit", scene.plan, expect=2)
        began = time.monotonic()
        ENGINES[scene.engine](scene)
        print(f"{scene.workers} workers of {scene.engine}: {time.monotonic() - began:.1f} s")
        expect(not (scene.place / "out").exists(), "nothing is visible before the commit")
        if scene.engine == "processes":
            (staged,) = {file.parent for file in scene.place.rglob("model-*.safetensors")
                         if file.parent.name not in ("base", "at-once")}
            broken_shards(scene, staged)
        command(scene.binary, "commit", scene.plan)
        expect(fleet.hashes(scene.place / "out") == fleet.hashes(scene.place / "at-once"),
               f"{scene.shards} shards and their side files have the bytes of the merge in one process")
        command(scene.binary, "commit", scene.plan, expect=2)
        print("ok: a second commit is refused")
    finally:
        shutil.rmtree(scene.place, ignore_errors=True)


if __name__ == "__main__":
    main()
