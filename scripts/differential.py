#!/usr/bin/env python3
"""Random merges, combinations, conversions and resizes, held to plain f64 arithmetic that shares
nothing with the project: its own reader, its own formulas (scripts/differential/).

usage: differential.py BINARY [--seed N] [--merges N] [--others N] [--jobs N]
       differential.py BINARY --only KIND:SEED    (one case, whose files are kept)

Needs numpy. Exits 1 on a mismatch, and says how to run that case alone."""

import argparse
import collections
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "differential"))

import numpy as np  # noqa: E402

import adapters  # noqa: E402
import files  # noqa: E402
import models  # noqa: E402
import reference  # noqa: E402

CONVENTIONS = ["peft", "kohya", "comfyui", "diffusers"]
PATTERNS = ["q_proj", "c_proj", "attn", "layers.0", "mlp", "conv", "experts", "proj_in", "embed"]


class Mismatch(Exception):
    pass


def run(binary, arguments):
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=300, check=False)
    if done.returncode not in (0, 2):
        raise Mismatch(f"exit code {done.returncode}: {done.stderr}")
    return done


def some(rng, items, most=6):
    count = int(rng.integers(1, min(most, len(items)) + 1))
    chosen = sorted(rng.choice(len(items), count, replace=False))
    return [items[at] for at in chosen]


def suitable(layers, convention):
    """The layers that a convention has a spelling for."""
    if convention == "peft":
        return layers
    return [layer for layer in layers if layer.kind != "embedding" and not layer.place
            and layer.name != "lm_head"]


def number(rng):
    return float(np.round(rng.choice([1.0, rng.normal(0, 1), 0.5, -0.7]), 4)) or 1.0


def merge(binary, rng, room):
    """A base and one to three adapters."""
    base = models.base(rng)
    config = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": base.tied}
    files.save_base(f"{room}/base", base.tensors, config, int(rng.choice([1, 1, 2, 3])), rng)
    dora = rng.random() < 0.2
    made, weights = [], []
    for at in range(1 if dora else int(rng.integers(1, 4))):
        convention = "peft" if dora else str(rng.choice(CONVENTIONS))
        layers = suitable(base.layers, convention)
        if dora:
            layers = [layer for layer in layers if not layer.place]
        path = f"{room}/adapter{at}" + ("" if convention == "peft" else ".safetensors")
        made.append(adapters.Maker(rng, path, convention, some(rng, layers), dora).make())
        weights.append(number(rng))
    updates = [update for adapter in made for update in adapter.updates]
    # Mostly patterns that match something; the others are to be refused.
    known = [pattern for pattern in PATTERNS if reached(pattern, updates)]
    pattern = lambda: str(rng.choice(known if known and rng.random() < 0.95 else PATTERNS))
    rules = [(pattern(), number(rng)) for _ in range(int(rng.choice([0, 0, 1, 2])))]
    include = pattern() if rng.random() < 0.15 else None
    exclude = pattern() if rng.random() < 0.15 else None
    selection = reference.Selection(weights, rules, include, exclude)
    dtype = str(rng.choice(["keep", "keep", "f32", "f16", "bf16"]))
    output = f"{room}/out" + (".safetensors" if rng.random() < 0.2 else "")
    command = ["merge", f"{room}/base", *(adapter.path for adapter in made), "-o", output,
               "--dtype", dtype, "-w", *weights]
    for pattern, factor in rules:
        command += ["--module-weight", f"{pattern}={factor}"]
    command += ["--include", include] if include else []
    command += ["--exclude", exclude] if exclude else []
    command += ["--max-shard-size", "2000"] if rng.random() < 0.2 and not output.endswith("s") else []
    done = run(binary, command)
    expected = reference.merged(base, made, selection)
    if done.returncode == 2:
        chosen = [update for update in updates if selection.chooses(update)]
        idle = [p for p in (include, exclude) if p and not reached(p, updates)]
        # The last rule that matches a module decides; one that decides nothing is refused.
        deciding = {selection.rule(update) for update in chosen}
        idle += [pattern for at, (pattern, _) in enumerate(rules) if at not in deciding]
        return refused(done.stderr, not expected, idle)
    check_merged(output, base, expected, None if dtype == "keep" else dtype.upper())
    return "merge " + "+".join(sorted({adapter.convention for adapter in made})) + " dora" * dora


def reached(pattern, updates):
    """Whether a pattern matches any of the modules."""
    return any(re.search(pattern, name) for update in updates
               for name in (update.name, update.layer.tensor))


def refused(said, nothing_left, idle):
    """Why a command was refused, if it may be."""
    if nothing_left:
        return "refused: nothing is left to merge"
    if any(pattern in said for pattern in idle):
        return "refused: an option that matches nothing"
    if "outside the range" in said:
        return "refused: overflow"
    raise Mismatch("refused: " + said.split("error: ")[-1].splitlines()[0])


def check_merged(output, base, expected, dtype):
    found, _ = files.read(output)
    names = set(base.tensors) | set(expected)
    if set(found) != names:
        raise Mismatch(f"tensors differ: {sorted(set(found) ^ names)}")
    for name, (kind, shape, data) in found.items():
        stored, values = base.tensors.get(name, base.tensors.get("model.embed_tokens.weight"))
        wanted = dtype or stored
        if kind != wanted or list(shape) != list(np.shape(values)):
            raise Mismatch(f"{name} is {kind} {shape}")
        if name not in expected:
            if data != files.encode(values, wanted):
                raise Mismatch(f"{name} should not have changed")
            continue
        excess = reference.compare(files.decode(data, kind, shape), expected[name], kind)
        if excess > 0:
            raise Mismatch(f"{name}: {excess:.3g} more off than rounding explains")


def other(binary, rng, room):
    """A combination, a resize or a conversion: updates of modules, as the files have them."""
    verb = str(rng.choice(["combine", "resize", "convert"]))
    base = models.base(rng)
    config = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": base.tied}
    files.save_base(f"{room}/base", base.tensors, config, 1, rng)
    convention = str(rng.choice(CONVENTIONS))
    layers = [layer for layer in suitable(base.layers, convention) if not layer.place
              and layer.kind != "embedding" and layer.name != "lm_head"]
    # One part of a model: another prefix would mean another layer.
    prefix = str(rng.choice(adapters.PREFIXES[convention]))
    made, weights = [], []
    for at in range(int(rng.integers(2, 4)) if verb == "combine" else 1):
        path = f"{room}/adapter{at}" + ("" if convention == "peft" else ".safetensors")
        maker = adapters.Maker(rng, path, convention, some(rng, layers), prefix=prefix)
        made.append(maker.make())
        weights.append(number(rng))
    exact, size = {}, {}
    for adapter, weight in zip(made, weights if verb == "combine" else [1.0]):
        for update in adapter.updates:
            name = adapters.flat(update.layer.name)
            exact[name] = exact.get(name, 0) + weight * update.delta
            size[name] = size.get(name, 0) + abs(weight) * update.size
    # The narrowest dtype that factors are written in.
    loss, tails = reference.EPSILON, {}
    if verb == "combine":
        command = ["combine", *(adapter.path for adapter in made), "-w", *weights, "--dtype", "f32",
                   "--method", str(rng.choice(["linear", "cat"])), "--rank", "lossless", "--allow-disjoint"]
        to = convention
    elif verb == "resize":
        rank, to = int(rng.integers(1, 7)), convention
        command = ["resize", made[0].path, "--rank", rank, "--dtype", "f32"]
        for name, delta in exact.items():
            values = np.linalg.svd(delta, compute_uv=False)
            tails[name] = float(np.sqrt(np.sum(values[rank:] ** 2)))
    else:
        to = str(rng.choice(CONVENTIONS))
        command = ["convert", made[0].path, "--to", to, "--reference", f"{room}/base"]
        loss = 2.0**-9
    output = f"{room}/out" + ("" if to == "peft" else ".safetensors")
    done = run(binary, [*command, "-o", output])
    if done.returncode == 2:
        reason = done.stderr.split("error: ")[-1].splitlines()[0]
        lost = done.stderr.count("\n  ")
        if verb == "convert" and lost and lost == done.stderr.count("convention is unknown:"):
            return "refused: convert, names that the other convention does not have"
        raise Mismatch(f"{verb} refused: {reason}")
    check_updates(adapters.updates(output), exact, size, tails, loss)
    return f"{verb} {convention} to {to}"


def check_updates(found, exact, size, tails, loss):
    if set(found) != set(exact):
        raise Mismatch(f"modules differ: {sorted(set(found) ^ set(exact))}")
    for name, delta in exact.items():
        off = float(np.linalg.norm(found[name] - delta))
        allowed = tails.get(name, 0.0) * (1 + 1e-5) + 64 * loss * float(np.linalg.norm(size[name]))
        if not off <= allowed:
            raise Mismatch(f"{name}: {off:.3g} off, at most {allowed:.3g} is explained")


KINDS = {"merge": merge, "other": other}


def case(task):
    """(kind, seed, what it was, mismatch or None) of one case."""
    binary, kind, seed, keep = task
    room = tempfile.mkdtemp(prefix="differential-")
    try:
        what, fault = KINDS[kind](binary, np.random.default_rng(seed), room), None
    except Exception as error:  # whatever goes wrong is told with the case
        what, fault = "mismatch", f"{type(error).__name__}: {error}"
    if keep:
        print(f"kept in {room}")
    else:
        shutil.rmtree(room)
    return kind, seed, what, fault


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--merges", type=int, default=2400)
    parser.add_argument("--others", type=int, default=1300)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", metavar="KIND:SEED")
    asked = parser.parse_args()
    binary = os.path.abspath(asked.binary)
    if asked.only:
        kind, seed = asked.only.split(":")
        _, _, what, fault = case((binary, kind, int(seed), True))
        print(fault or what)
        return 1 if fault else 0
    first = asked.seed * 1_000_000
    tasks = [(binary, "merge", first + at, False) for at in range(asked.merges)]
    tasks += [(binary, "other", first + at, False) for at in range(asked.others)]
    counts, faults = collections.Counter(), []
    with multiprocessing.Pool(asked.jobs) as pool:
        for kind, seed, what, fault in pool.imap_unordered(case, tasks, chunksize=8):
            counts[what if what.startswith(("refused", "mismatch")) else kind] += 1
            counts[f"  {what}"] += 1
            if fault:
                faults.append((kind, seed, fault))
                print(f"--only {kind}:{seed}  {fault}", flush=True)
    print(f"seed {asked.seed}")
    print(json.dumps(dict(sorted(counts.items())), indent=1))
    compared = counts["merge"] + counts["other"]
    print(f"{compared} compared, {len(faults)} mismatches")
    return 1 if faults or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
