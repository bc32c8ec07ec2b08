#!/usr/bin/env python3
"""What outside faults leave of `merge`: kills, interrupts, full disks, limits, denied access.

usage: faults.py LORA_TOOL [--kills N] [--disks N] [--seed N]

Defaults are the full form: 240 kills and 60 full disks. After every run the output is absent or
complete, inputs are as they were, and after SIGINT no temporary is left. An interrupted
`--resume` goes on to the very bytes of an undisturbed run. Python 3's own library only; works below
$TMPDIR. What needs root (a small disk, a read-only one) is skipped with a line elsewhere.

Exit 0: all of that held. 1: something did not, with a line for each.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FAULTS = []
COUNTS = {}


def count(name, by=1):
    COUNTS[name] = COUNTS.get(name, 0) + by


def fault(text):
    FAULTS.append(text)
    print("FAULT:", text)


def write_tensors(path, tensors):
    """tensors: (name, dtype, shape, bytes)."""
    header, at = {}, 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t[3] for t in tensors))


def make_inputs(root, shards=6, side=2048, seed=1):
    """A base of bf16 shards of 2 * side² bytes each, and an adapter of rank 8 for all of them."""
    numbers = random.Random(seed)
    index, factors = {}, []
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        module = f"model.layers.{shard}.mlp.up_proj"
        # Small values of both signs: the high byte of a bf16 is its sign and most of its exponent.
        row = b"".join(bytes([numbers.randrange(256), numbers.choice([0x3C, 0xBC])]) for _ in range(side))
        write_tensors(root / "base" / file, [(f"{module}.weight", "BF16", [side, side], row * side)])
        index[f"{module}.weight"] = file
        for part, shape in [("lora_A", [8, side]), ("lora_B", [side, 8])]:
            values = [numbers.uniform(-0.1, 0.1) for _ in range(8 * side)]
            data = struct.pack(f"<{8 * side}f", *values)
            factors.append((f"base_model.model.{module}.{part}.weight", "F32", shape, data))
    (root / "base/model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (root / "base/config.json").write_text('{"model_type": "llama"}')
    write_tensors(root / "adapter/adapter_model.safetensors", factors)
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["up_proj"]}
    (root / "adapter/adapter_config.json").write_text(json.dumps(config))


def tree(path):
    """Digests of everything at a path; nothing if there is nothing."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(f.relative_to(path)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


class Scene:
    def __init__(self, tool, root):
        self.tool, self.root = tool, root
        make_inputs(root)
        self.inputs = self.state()

    def state(self):
        return [tree(self.root / name) for name in ("base", "adapter")]

    def line(self, out, *options):
        base, adapter = self.root / "base", self.root / "adapter"
        return [self.tool, "-q", "merge", str(base), str(adapter), "-o", str(out), *options]

    def run(self, out, *options, **how):
        return subprocess.run(self.line(out, *options), capture_output=True, text=True, **how)

    def start(self, out, *options):
        pipe = subprocess.PIPE
        return subprocess.Popen(self.line(out, *options), stdout=subprocess.DEVNULL, stderr=pipe)

    def check_inputs(self, when):
        if self.state() != self.inputs:
            count("changed inputs")
            fault(f"{when}: an input changed")


def clear(directory):
    subprocess.run(["rm", "-rf", "--", str(directory)], check=True)
    directory.mkdir()


def refused(done, words, when):
    """A failure of the tool's own: exit 2, one error with the words in it, nothing on stdout."""
    said = done.stderr
    if done.returncode != 2 or not said.startswith("error: ") or done.stdout:
        fault(f"{when}: exit {done.returncode}, said {said!r}")
    elif not all(word in said for word in words):
        fault(f"{when}: {words} not all in {said!r}")


def kills(scene, number):
    """SIGKILL and SIGINT at random moments, for one file and for shards, new and replaced."""
    kinds = [("out", False), ("out.safetensors", False), ("out", True), ("out.safetensors", True)]
    work, whole, longest = scene.root / "kills", {}, 0.0
    for out, _ in kinds:
        clear(work)
        begin = time.monotonic()
        scene.run(work / out, check=True)
        longest = max(longest, time.monotonic() - begin)
        whole[out] = tree(work / out)
    for run in range(number):
        out, replace = kinds[run % len(kinds)]
        stop = signal.SIGKILL if run // len(kinds) % 2 else signal.SIGINT
        clear(work)
        if replace:
            old = work / out if out.endswith(".safetensors") else work / out / "old.txt"
            old.parent.mkdir(exist_ok=True)
            old.write_text("old")
        before = tree(work / out)
        child = scene.start(work / out, *(["--force"] if replace else []))
        time.sleep(random.random() * longest * 1.1)
        child.send_signal(stop)
        said = child.communicate()[1].decode()
        when = f"kill {run} ({stop.name}, {out}{', replaced' if replace else ''})"
        found, done = tree(work / out), child.returncode == 0
        count(f"{stop.name} in time" if not done else f"{stop.name} too late")
        if found == whole[out]:
            count("complete outputs after a kill")
        elif found != before or done:
            count("partial outputs")
            fault(f"{when}: a partial output, exit {child.returncode}")
        else:
            count("old outputs after a kill" if replace else "absent outputs after a kill")
        # A SIGINT before the handler is there ends the process as ever: nothing has begun then.
        if child.returncode not in (0, -9, 130, -2):
            fault(f"{when}: exit {child.returncode}, {said!r}")
        others = [path.name for path in work.iterdir() if path.name != out]
        if stop == signal.SIGINT and others:
            count("temporaries after SIGINT")
            fault(f"{when}: left {others}")
    scene.check_inputs("kills")


def resumes(scene, number):
    """Interrupted again and again with --resume, then let through."""
    work = scene.root / "resume"
    clear(work)
    begin = time.monotonic()
    scene.run(work / "whole", check=True)
    longest = time.monotonic() - begin
    whole = tree(work / "whole")
    for run in range(number):
        clear(work)
        for _ in range(random.randint(1, 4)):
            child = scene.start(work / "out", "--resume")
            time.sleep(random.random() * longest * 1.2)
            child.send_signal(random.choice([signal.SIGKILL, signal.SIGINT]))
            child.communicate()
            if child.returncode == 0:
                break
            count("interrupts of --resume")
            if (work / "out").exists() and tree(work / "out") != whole:
                count("partial outputs")
                fault(f"resume {run}: a partial output")
        if not (work / "out").exists():
            done = scene.run(work / "out", "--resume", "--json")
            if done.returncode:
                fault(f"resume {run}: {done.stderr}")
                continue
            count("shards used again", json.loads(done.stdout)["shards_reused"])
        if tree(work / "out") != whole:
            fault(f"resume {run}: other bytes than in one go")
        else:
            count("resumed to equal bytes")
        others = [path.name for path in work.iterdir() if path.name != "out"]
        if others:
            fault(f"resume {run}: left {others}")
    scene.check_inputs("resumes")


class Mount:
    def __init__(self, at, *options):
        self.at = at
        at.mkdir(exist_ok=True)
        line = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(at)]
        self.works = os.geteuid() == 0 and subprocess.run(line, capture_output=True).returncode == 0

    def __enter__(self):
        return self.works

    def __exit__(self, *_):
        if self.works:
            subprocess.run(["umount", str(self.at)], check=True)


def disks(scene, number):
    """Disks that are full before the run or in the middle of it; one that has no more files."""
    whole = sum(f.stat().st_size for f in (scene.root / "base").iterdir())
    for run in range(number):
        disk = scene.root / "disk"
        # Some cannot hold it from the start; some lose the room while the run is under way.
        late = run % 3 != 0
        size = whole * 2 if late else random.randrange(4096, whole)
        options = [f"size={size}"]
        if run % 6 == 1:
            options.append(f"nr_inodes={random.randint(3, 8)}")
        with Mount(disk, *options) as works:
            if not works:
                print("skipped: no disk can be mounted here")
                return
            out = disk / random.choice(["out", "out.safetensors"])
            filler = disk / "filler"
            child = scene.start(out)
            if late and len(options) == 1:
                time.sleep(random.random() * 0.06)
                try:
                    with open(filler, "wb") as file:
                        free = os.statvfs(disk)
                        room = free.f_bavail * free.f_frsize - random.randrange(0, whole // 2)
                        os.posix_fallocate(file.fileno(), 0, max(room, 1))
                except OSError:
                    pass
            said = child.communicate()[1].decode()
            left = [path.name for path in disk.iterdir() if path != filler]
            if child.returncode == 0:
                count("disks with room after all")
            elif child.returncode != 2 or "hint: " not in said or left:
                count("partial outputs", bool(left))
                fault(f"disk {run}: exit {child.returncode}, left {left}, {said!r}")
            elif "No space left" in said:
                count("ENOSPC while writing")
            elif "the disk has" in said:
                count("ENOSPC foreseen")
            else:
                fault(f"disk {run}: {said!r}")
    scene.check_inputs("disks")


def limits(scene, number):
    """A limit on the size of files, as a stand-in for a device that fails in the middle (EFBIG)."""
    work = scene.root / "limits"
    for run in range(number):
        clear(work)
        size = random.randrange(0, 2 * 1024 * 1024)

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        done = scene.run(work / "out", preexec_fn=limit)
        refused(done, ["File too large", "hint: nothing was left behind"], f"limit {run}")
        if any(work.iterdir()):
            fault(f"limit {run}: left {list(work.iterdir())}")
        count("EFBIG")
    done = scene.run("/dev/full/out")
    refused(done, ["/dev/full"], "/dev/full")


def denied(scene):
    """Paths that cannot be read or written, as a user who is nobody."""
    work = scene.root / "denied"
    clear(work)
    with Mount(scene.root / "read-only", "ro") as works:
        if works:
            done = scene.run(scene.root / "read-only" / "out")
            refused(done, ["Read-only file system", "hint: "], "a read-only disk")
            count("EROFS")
    if os.geteuid() != 0:
        print("skipped: only root can become nobody")
        return
    how = {"preexec_fn": lambda: os.setuid(65534)}
    # Where the tool was built, nobody may have no way in.
    os.chmod(scene.root, 0o755)
    scene.tool = shutil.copy2(scene.tool, scene.root)
    refused(scene.run(work / "out", **how), ["Permission denied", "hint: "], "a denied directory")
    for name in ("base/model-00002-of-00006.safetensors", "adapter/adapter_model.safetensors",
                 "adapter/adapter_config.json", "base/model.safetensors.index.json", "base"):
        path = scene.root / name
        mode = path.stat().st_mode
        path.chmod(0)
        out = work / "out"
        work.chmod(0o777)
        refused(scene.run(out, **how), ["Permission denied", name, "hint: "], f"{name} denied")
        path.chmod(mode)
        count("EACCES")
    if any(work.iterdir()):
        fault(f"denied: left {list(work.iterdir())}")
    scene.check_inputs("denied")


def races(scene, number):
    """Two runs to one output: one wins whole, the other says why not."""
    work = scene.root / "races"
    clear(work)
    scene.run(work / "whole", check=True)
    whole = tree(work / "whole")
    for run in range(number):
        clear(work)
        options = [[], ["--force"], ["--resume"]][run % 3]
        children = [scene.start(work / "out", *options) for _ in range(2)]
        said = [child.communicate()[1].decode() for child in children]
        codes = sorted(child.returncode for child in children)
        if 0 not in codes or any(code not in (0, 2) for code in codes):
            fault(f"race {run} {options}: {codes} {said}")
        if tree(work / "out") != whole or len(list(work.iterdir())) != 1:
            fault(f"race {run} {options}: {[p.name for p in work.iterdir()]}, {codes} {said}")
        count("races")
    scene.check_inputs("races")


def shrinking(scene, number):
    """A base file that is cut while it is read: an error; the process does not crash."""
    shard = scene.root / "base" / "model-00004-of-00006.safetensors"
    whole = shard.read_bytes()
    work = scene.root / "shrinking"
    for run in range(number):
        clear(work)
        reading = ["--no-mmap"] if run % 2 else []
        child = scene.start(work / "out", *reading)
        time.sleep(random.random() * 0.05)
        os.truncate(shard, random.randrange(len(whole)))
        said = child.communicate()[1].decode()
        shard.write_bytes(whole)
        if child.returncode == -signal.SIGBUS and not reading:
            count("SIGBUS in the moment of reading")
        elif child.returncode == 0:
            count("cut too late")
        elif child.returncode == 2 and said.startswith("error: "):
            count("cut, and refused")
        else:
            fault(f"shrinking {run} {reading}: exit {child.returncode}, {said!r}")
        if child.returncode != 0 and (work / "out").exists():
            count("partial outputs")
            fault(f"shrinking {run}: an output")
    scene.check_inputs("shrinking")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n")[2].removeprefix("usage: "))
    parser.add_argument("tool")
    parser.add_argument("--kills", type=int, default=240)
    parser.add_argument("--disks", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    random.seed(given.seed)
    for name in ("partial outputs", "changed inputs", "temporaries after SIGINT"):
        COUNTS[name] = 0
    with tempfile.TemporaryDirectory() as root:
        scene = Scene(str(Path(given.tool).resolve()), Path(root))
        kills(scene, given.kills)
        resumes(scene, max(given.kills // 8, 2))
        disks(scene, given.disks)
        limits(scene, max(given.disks // 6, 2))
        denied(scene)
        races(scene, max(given.disks // 4, 3))
        shrinking(scene, max(given.disks // 2, 4))
    for name, number in sorted(COUNTS.items()):
        print(f"{number:6}  {name}")
    print(f"{len(FAULTS)} faults")
    return 1 if FAULTS else 0


if __name__ == "__main__":
    sys.exit(main())
