"""Two Ray workers make a plan's shards, and one is killed while it does: `many_machines.py --engine ray` runs this."""

import os
import signal
import sys
import threading
import time

import ray

import lora_tool.ray


def kill_one(killed):
    """Kills the first process of a task, and the command it runs, once it has worked a moment."""
    while not killed:
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as opened:
                    words = opened.read().split(b"\0")
                with open(f"/proc/{entry}/status", encoding="ascii") as opened:
                    parent = next(int(line.split()[1]) for line in opened if line.startswith("PPid"))
            except OSError:
                continue
            if b"work" in words[1:2] and words[0].endswith(b"lora-tool"):
                time.sleep(0.1)
                # The driver's own process starts no worker: the parent is Ray's.
                os.kill(parent, signal.SIGKILL)
                os.kill(int(entry), signal.SIGKILL)
                killed.append(parent)
                return
        time.sleep(0.01)


def main():
    plan, workers = sys.argv[1], int(sys.argv[2])
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    killed = []
    threading.Thread(target=kill_one, args=(killed,), daemon=True).start()
    reports = lora_tool.ray.work_on(plan, workers)
    assert len(reports) == workers, reports
    assert killed, "no worker was caught at work"
    print(f"ok: process {killed[0]} of a task was killed; all {workers} parts were made")


if __name__ == "__main__":
    main()
