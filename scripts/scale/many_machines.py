#!/usr/bin/env python3
"""Work of many workers against the same work in one process: bytes, kills, missing and altered parts.

    scripts/scale/many_machines.py target/release/lora-tool                     # a merge: 2 GB in 40 shards, 8 workers
    scripts/scale/many_machines.py target/release/lora-tool --kind extract      # the merge's adapter, out of it again
    scripts/scale/many_machines.py target/release/lora-tool --kind batch        # forty adapters, resized
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
            expect("missing" in told or "no worker" in told, "nothing is put in place while parts are missing")
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


def broken_parts(scene):
    """What commit says of a part that is missing, and of one with another byte; and that `work` mends it."""
    waiting = sorted(file for file in scene.place.rglob("*") if file.is_file() and "out" in file.parts[:-1]
                     and any(part.endswith(".work") for part in file.parts))
    part = waiting[3]
    whole = part.read_bytes()
    part.unlink()
    expect("is missing: " in command(scene.binary, "commit", scene.plan, expect=2), "a missing part is named")
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    expect("is not as it was made: " in command(scene.binary, "commit", scene.plan, expect=2),
           "an altered part is named")
    for number in range(1, scene.workers + 1):
        command(scene.binary, "work", scene.plan, "--shard", f"{number}/{scene.workers}")
    expect(part.read_bytes() == whole, "the workers make it as it was")


def merge(scene):
    """The adapter into the base."""
    return ["merge", scene.place / "base", scene.place / "adapter", "-o"]


def extract(scene):
    """The adapter out of what the merge made of the base."""
    tuned = scene.place / "tuned"
    command(scene.binary, *merge(scene), tuned)
    return ["extract", scene.place / "base", tuned, "--rank", "16", "-o"]


def batch(scene):
    """Forty adapters to a lower rank; the file's output is put in later."""
    for number in range(40):
        shutil.copytree(scene.place / "adapter", scene.place / "loras" / f"lora-{number:02}")
    return None


KINDS = {"merge": merge, "extract": extract, "batch": batch}


def line_to(scene, arguments, output):
    """The command that makes the result at a place."""
    if arguments is not None:
        return [*arguments, scene.place / output]
    jobs = scene.place / f"{output}.yaml"
    jobs.write_text(f"items:\n- {{verb: resize, adapter: loras/*, rank: 4, output: '{output}/{{name}}'}}\n")
    return ["batch", jobs]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--kind", choices=KINDS, default="merge")
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
        arguments = KINDS[scene.kind](scene)
        began = time.monotonic()
        command(scene.binary, *line_to(scene, arguments, "at-once"))
        print(f"one process: {time.monotonic() - began:.1f} s")
        planned = line_to(scene, arguments, "out")
        command(scene.binary, *planned, "--plan", scene.plan, "--workers", scene.workers)
        command(scene.binary, "commit", scene.plan, expect=2)
        began = time.monotonic()
        ENGINES[scene.engine](scene)
        print(f"{scene.workers} workers of {scene.engine}: {time.monotonic() - began:.1f} s")
        out = scene.place / "out"
        early = [file for file in out.rglob("*") if file.is_file() and ".work" not in str(file)]
        expect(not early, "nothing is visible before the commit")
        if scene.engine == "processes":
            broken_parts(scene)
        command(scene.binary, "commit", scene.plan)
        expect(fleet.hashes(scene.place / "out") == fleet.hashes(scene.place / "at-once"),
               f"the {scene.kind} has the bytes of the one in one process")
        command(scene.binary, "commit", scene.plan, expect=2)
        print("ok: a second commit is refused")
    finally:
        shutil.rmtree(scene.place, ignore_errors=True)


if __name__ == "__main__":
    main()
