#!/usr/bin/env python3
"""Runs some 200 commands with two builds of lora-tool and compares all that they write and answer.

    python scripts/same_outputs.py BEFORE AFTER [--only TEXT] [--words]

BEFORE and AFTER are paths of binaries. The commands are made from the fixtures: every verb, convention,
method, rank policy and dtype that the fixtures have inputs for. Of each, the exit code and every byte of
every output file must be the same, but for the header entry that says how a result was made; with --words, stdout and stderr too (the output's path left out).
Exit 0: all the same. 1: a difference, which is named. 2: usage.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"
LLAMA = FIXTURES / "llama"
METHODS = (
    "linear cat ties dare-linear dare-ties magnitude-prune breadcrumbs breadcrumbs-ties della della-linear "
    "sce ema karcher slerp model-stock df-regmean tsv iso-c iso-cts star shared-basis peft-linear kohya-linear "
    "kohya-cat"
).split()
RANKS = "4 lossless energy:0.9 fro:0.9 nuclear:0.9 ratio:10 abs:1e-2 error:0.2 size:20KiB params:4k".split()


def adapters_of(case):
    """Directories and files of a golden case that are adapters, in order of their names."""
    found = [path.parent for path in case.rglob("adapter_config.json")]
    return sorted(path for path in found if path.name != "expected")


def checkpoint_of(case, name):
    """The directory or file of a golden case that is its base, or the tuned model, or None."""
    places = [case / "input" / name, case / "input" / f"{name}.safetensors", case / name, case / f"{name}.safetensors"]
    return next((str(place) for place in places if place.exists()), None)


def commands():
    """Each command as a list of arguments; `OUT` stands for the output."""
    base, style, task = (str(LLAMA / name) for name in ("base", "style", "task"))
    yield ["merge", base, style, "-o", "OUT"]
    yield ["merge", base, style, "-o", "OUT.safetensors"]
    yield ["merge", base, style, task, "-w", "0.7", "-0.3", "-o", "OUT", "--verify"]
    yield ["merge", base, style, "-o", "OUT", "--max-shard-size", "100kB"]
    yield ["merge", base, style, "-o", "OUT", "--receipt", "OUT.receipt"]
    yield ["merge", base, style, "-o", "OUT", "--include", "q_proj"]
    yield ["merge", base, style, "-o", "OUT", "--exclude", "mlp"]
    yield ["merge", base, style, "-o", "OUT", "--module-weight", "q_proj=0.5"]
    for dtype in ("f32", "f16", "bf16"):
        yield ["merge", base, style, task, "-o", "OUT", "--dtype", dtype]
        yield ["combine", style, task, "-o", "OUT", "--dtype", dtype]
    for method in METHODS:
        yield ["combine", style, task, "-o", "OUT", "--method", method]
        yield ["combine", style, task, "-w", "0.6", "0.9", "-o", "OUT", "--method", method, "--rank", "4"]
        yield ["merge", base, style, task, "-o", "OUT", "--method", method]
    for rank in RANKS:
        yield ["combine", style, task, "-o", "OUT", "--rank", rank]
        yield ["resize", style, "-o", "OUT", "--rank", rank]
    for target in ("peft", "kohya", "comfyui", "mlx", "diffusers", "gguf"):
        yield ["convert", style, "-o", "OUT", "--to", target]
        yield ["convert", style, "-o", "OUT.safetensors", "--to", target]
        yield ["combine", style, task, "-o", "OUT.safetensors", "--to", target]
    yield ["convert", style, "-o", "OUT.gguf", "--to", "gguf", "--reference", base]
    for verb in (["inspect", "--json"], ["inspect", "--modules", "--spectrum", "--json"]):
        yield [*verb, style]
        yield [*verb, base]
    yield ["compare", style, task, "--json"]
    yield ["diff", style, task, "--json"]
    for program in ("peft", "vllm", "llama.cpp", "comfyui", "diffusers", "mlx-lm"):
        yield ["check", style, "--for", program, "--json"]
    yield from golden()


def golden():
    """What the golden cases' own inputs allow: merges, combinations, extractions, conversions."""
    for case in sorted((FIXTURES / "golden").iterdir()):
        adapters = [str(path) for path in adapters_of(case)]
        base, tuned = checkpoint_of(case, "base"), checkpoint_of(case, "tuned")
        if base and adapters:
            yield ["merge", base, *adapters, "-o", "OUT"]
            yield ["merge", base, *adapters, "-o", "OUT.safetensors", "--dtype", "f32"]
        if base and tuned:
            yield ["extract", base, tuned, "-o", "OUT", "--rank", "4"]
            yield ["extract", base, tuned, "-o", "OUT", "--rank", "auto"]
            yield ["diff", base, tuned, "--json"]
        if len(adapters) > 1:
            yield ["combine", *adapters, "-o", "OUT"]
            yield ["compare", *adapters, "--json"]
        for adapter in adapters[:1]:
            yield ["inspect", adapter, "--modules", "--json"]
            yield ["resize", adapter, "-o", "OUT", "--rank", "2"]
            yield ["convert", adapter, "-o", "OUT.safetensors", "--to", "kohya"]


def content(path):
    """The bytes of a file; of a safetensors file without what its header says of how it was made."""
    data = path.read_bytes()
    if path.suffix == ".safetensors" and len(data) > 8:
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        header.get("__metadata__", {}).pop("lora_tool", None)
        data = json.dumps(header).encode() + data[end:]
    return data


def answer(binary, command, place, words):
    """What a command leaves: the exit code, a hash of every file by name, and its words if asked for."""
    arguments = [str(place / part) if part.startswith("OUT") else part for part in command]
    done = subprocess.run([binary, "-q", *arguments], capture_output=True, cwd=ROOT, check=False, timeout=600)
    files = {}
    for path in sorted(place.rglob("*")):
        if path.is_file():
            files[str(path.relative_to(place))] = hashlib.sha256(content(path)).hexdigest()
    said = (done.stdout + done.stderr).replace(str(place).encode(), b"PLACE") if words else b""
    return done.returncode, files, said


def difference(before, after):
    """The first thing in which two answers differ, or None."""
    if before[0] != after[0]:
        return f"exit {before[0]} before, {after[0]} after"
    for name in sorted(before[1].keys() | after[1].keys()):
        if before[1].get(name) != after[1].get(name):
            state = "missing" if name not in after[1] else "new" if name not in before[1] else "different"
            return f"{name} is {state}"
    return None if before[2] == after[2] else "other words"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--only", default="", help="commands that contain this text")
    parser.add_argument("--words", action="store_true", help="compare what is printed, too")
    options = parser.parse_args()
    binaries = [str(pathlib.Path(path).resolve()) for path in (options.before, options.after)]
    count, written, faults = 0, 0, []
    for command in commands():
        line = " ".join(command).replace(str(FIXTURES), "fixtures")
        if options.only not in line:
            continue
        answers = []
        for binary in binaries:
            with tempfile.TemporaryDirectory() as place:
                answers.append(answer(binary, command, pathlib.Path(place), options.words))
        count += 1
        written += bool(answers[0][1])
        if found := difference(*answers):
            faults.append(f"{line}\n  {found}")
            print(f"DIFFERENT  {faults[-1]}")
    print(f"{count} commands, {written} of them with outputs, {len(faults)} differ")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
