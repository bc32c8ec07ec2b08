"""Merges into quantised bases against the packages that make them, on fresh random cases.

usage: quantised.py --lora-tool BINARY [--seed N] [--rounds N] [--only WORD]

Every case is a model of random matrices of random, ragged sizes and of experts, quantised by the package, its tensors
spread over several shards at random, and a random adapter (quantised_models.py). Compared are

  read     weights that no adapter touches, `merge --dtype f32`, with the package's own values: bit for bit
  merged   weights that one touches with those values + s B A in f64: within 5e-7 of the sum of the terms' magnitudes
  again    `--quantized requantize` with what the package makes of the merged weights: the share of codes that differ,
           and scales within a step of their dtype; all other tensors byte for byte
  hybrid   `--quantized hybrid`: what is touched is plain, what is not (and not loaded with it) keeps its bytes

Exit status: 0 if all agree, 1 if not. Packages: requirements.txt; one that is missing is said, and skipped."""
import argparse, json, os, shutil, subprocess, sys, tempfile
import numpy as np
import torch
from safetensors import safe_open
import quantisers
from quantised_models import make

def load(path):
    files = [path] if path.endswith(".safetensors") else [
        f"{path}/{name}" for name in sorted(os.listdir(path)) if name.endswith(".safetensors")]
    found = {}
    for file in files:
        with safe_open(file, "pt") as handle:
            found |= {name: handle.get_tensor(name) for name in handle.keys()}
    return found


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


class Difference(Exception):
    pass


def need(condition, text):
    if not condition:
        raise Difference(text)


def merge(tool, base, adapter, out, *options):
    out += ".safetensors" if base.endswith(".safetensors") else ""
    done = subprocess.run([tool, "merge", base, adapter, "-o", out, *options], capture_output=True, text=True)
    need(done.returncode == 0, f"{' '.join(options)}: {(done.stderr.strip() or 'no message').splitlines()[0]}")
    return load(out)


def same(before, after, names, what):
    for name in names:
        need(name in after, f"{what}: {name} is missing")
        need(raw(before[name]) == raw(after[name]), f"{what}: {name} changed")


def codes_that_differ(name, found, expected, signed_zero=None):
    """The share of bytes that differ; scales have to be a step apart at most. A code of 4 bits may be the second one of 0:
    rows that nothing changes keep it, and the package would write the first."""
    if "quant_state" in name:
        old, new = (json.loads(raw(tensor)) for tensor in (expected, found))
        offset = lambda state: state.pop("nested_offset", 0.0)
        need(abs(offset(old) - offset(new)) < 1e-6 and old == new, f"{name}: {old}, {new}")
        return 0.0
    need(found.dtype == expected.dtype and found.shape == expected.shape, f"{name}: {found.dtype} {list(found.shape)}")
    if expected.dtype == torch.float32 and not name.endswith("quant_map"):
        need(torch.allclose(found, expected, rtol=1e-6, atol=0), f"{name}: scales differ")
        return 0.0
    if expected.dtype in (torch.bfloat16, torch.float16):
        steps = (found.view(torch.int16).int() - expected.view(torch.int16).int()).abs()
        need(int(steps.max()) <= 1, f"{name}: scales are {int(steps.max())} steps apart")
        need(float((steps > 0).float().mean()) < 0.01, f"{name}: too many scales differ")
        return 0.0
    a, b = np.frombuffer(raw(found), np.uint8), np.frombuffer(raw(expected), np.uint8)
    if signed_zero is not None:
        first = np.where(np.arange(16) == signed_zero, 0, np.arange(16))
        a, b = (first[codes >> 4] << 4 | first[codes & 15] for codes in (a, b))
    return float((a != b).mean()) if len(a) else 0.0


def compare(scheme, tool, root, rng):
    case = make(scheme, root, rng)
    base, adapter, values, tensors = case.base, case.adapter, case.values, case.tensors
    # Dense, in f32.
    dense, worst, merged = merge(tool, base, adapter, f"{root}/dense", "--dtype", "f32"), 0.0, {}
    for name, value in values.items():
        need(name in dense, f"dense: {name} is missing")
        need(dense[name].shape == value.shape, f"dense: {name} is {list(dense[name].shape)}, not {list(value.shape)}")
        if name not in case.updates:
            need(raw(dense[name]) == raw(value), f"read: {name} is off by {(dense[name] - value).abs().max():.3g}")
            continue
        delta, terms = case.updates[name]
        merged[name] = (value.double() + delta).float()
        off = ((dense[name].double() - merged[name]).abs() / (5e-7 * (value.double().abs() + terms))).nan_to_num(0).max()
        worst = max(worst, float(off))
    need(worst <= 1, f"merged: {worst:.3g} times the tolerance")
    # Quantised again.
    part_of = lambda name: {part for part in tensors if part == name or scheme.part_of(part, name)}
    touched = {name: part_of(name) for name in merged if name in case.quantised}
    untouched = set(tensors) - (set(merged) - set(case.quantised)) - set().union(*touched.values())
    share = None
    if scheme.written:
        again = merge(tool, base, adapter, f"{root}/again", "--quantized", "requantize", "--min-survival", "0")
        need(set(again) == set(tensors), f"again: {sorted(set(again) ^ set(tensors))[:3]}")
        same(tensors, again, untouched, "again")
        share = 0.0
        for name in touched:
            for part, expected in scheme.store(name, merged[name]).items():
                # Experts that nothing changes keep their codes and scales.
                if case.form == "switch" and expected.ndim == 3:
                    still = (case.updates[name][0] == 0).flatten(1).all(1)
                    for expert in still.nonzero().flatten().tolist():
                        expected[expert] = tensors[part][expert]
                signed_zero = scheme.signed_zero if part == name else None
                share = max(share, codes_that_differ(part, again[part], expected, signed_zero))
        need(share <= scheme.most_codes, f"again: {share:.2%} of the codes differ")
    # What changes, and what is loaded as one with it, in plain numbers.
    hybrid = merge(tool, base, adapter, f"{root}/hybrid", "--quantized", "hybrid")
    same(tensors, hybrid, untouched - set().union(*map(part_of, case.together), set()), "hybrid")
    for name in [*touched, *case.together]:
        wanted = merged.get(name, values[name])
        need(name in hybrid and hybrid[name].dtype == getattr(torch, scheme.dtype), f"hybrid: {name} is not plain")
        need(not (part_of(name) - {name}) & set(hybrid), f"hybrid: {name} has companions")
        need(torch.allclose(hybrid[name].float(), wanted, rtol=2 ** -8, atol=1e-7), f"hybrid: {name} is another")
    return case.form, worst, share


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lora-tool", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    good = total = 0
    print("| scheme | experts | read | merged, of the tolerance | codes that differ, again | hybrid |\n|---|---|---|---|---|---|")
    for _ in range(options.rounds):
        found, missing = quantisers.schemes(rng)
        for scheme in (scheme for scheme in found if options.only in scheme.name):
            root = tempfile.mkdtemp()
            total += 1
            try:
                form, worst, share = compare(scheme, options.lora_tool, root, rng)
                good += 1
                written = "not written" if share is None else f"{share:.3%}"
                print(f"| {scheme.name} | {form} | equal | {worst:.2f} | {written} | equal |", flush=True)
            except Difference as difference:
                print(f"| {scheme.name} | **{difference}** | | | | |", flush=True)
            shutil.rmtree(root)
    for package, reason in missing.items():
        print(f"skipped: {package} ({reason})")
    print(f"{good} of {total} cases agree")
    sys.exit(good != total)


if __name__ == "__main__":
    main()
