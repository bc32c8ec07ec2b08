#!/usr/bin/env python3
"""Converts adapters of PEFT's types to LoRA with lora-tool and with PEFT's `convert_to_lora`, and compares the errors.

    python scripts/interop/as_lora_vs_peft.py [--binary target/release/lora-tool] [--only NAME]

Needs torch, safetensors and peft. Models and adapters are those of `families_vs_peft.py`. For every case that PEFT can
merge, ‖merged − merged as a LoRA‖ / ‖update‖ over all weights is measured at ranks 1, 2 and 4: lora-tool's must not be
more than 1 % above the optimum of the SVD, and never above PEFT's own where PEFT converts the type.
"""

import argparse
import copy
import pathlib
import subprocess
import sys
import tempfile
import warnings

import torch
from families_vs_peft import Model, peft_cases, randomise
from safetensors.torch import load_file, save_file

# Nothing here has a matrix of its own.
NO_MATRIX = ("LN_TUNING", "BEFT", "TRAINABLE_TOKENS")


def merged_by_peft(model, directory):
    import peft

    adapter = peft.PeftModel.from_pretrained(copy.deepcopy(model), directory).eval()
    return adapter.merge_and_unload().state_dict()


def weights(state):
    return {key: value.double() for key, value in state.items() if value.dim() > 1}


def norms(base, want, got):
    """(‖want − got‖, ‖want − base‖), over all weights."""
    off = sum(((want[key] - got[key]) ** 2).sum() for key in want)
    whole = sum(((want[key] - base[key]) ** 2).sum() for key in want)
    return off.sqrt().item(), whole.sqrt().item()


def optimum(base, want, rank):
    total = 0.0
    for key, value in want.items():
        sigma = torch.linalg.svdvals((value - base[key]).flatten(1))
        total += (sigma[rank:] ** 2).sum().item()
    return total**0.5


def by_peft(wrapped, base, rank):
    """What PEFT's own conversion comes to; None if it does not convert the type. Its scale is 1, and its factors of
    convolutions are flat, which PEFT does not load again."""
    from peft import convert_to_lora

    try:
        _, state = convert_to_lora(copy.deepcopy(wrapped), rank=rank)
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        return None
    merged = dict(base)
    for key, down in state.items():
        if not key.endswith(".lora_A.weight"):
            continue
        up = state[key.replace(".lora_A.", ".lora_B.")]
        name = key.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        merged[name] = base[name] + (up.double() @ down.double()).reshape(base[name].shape)
    return merged


def by_lora_tool(binary, model, rank, scratch):
    out = scratch / f"lora{rank}"
    line = [binary, "-q", "convert", str(scratch / "adapter"), "--as", "lora", "--rank", str(rank)]
    line += ["--reference", str(scratch / "base.safetensors"), "-o", str(out)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode != 0:
        return done.stderr.strip() or done.stdout.strip()
    return merged_by_peft(model, out)


def run(binary, config, spread):
    """Rows (rank, lora-tool's error, PEFT's or None, the optimum), or what went wrong."""
    import peft

    torch.manual_seed(7)
    model = Model()
    wrapped = peft.get_peft_model(copy.deepcopy(model), config)
    randomise([p for p in wrapped.parameters() if p.requires_grad], spread)
    wrapped.eval()
    base = weights(model.state_dict())
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        save_file(model.state_dict(), scratch / "base.safetensors")
        wrapped.save_pretrained(scratch / "adapter")
        want = weights(merged_by_peft(model, scratch / "adapter"))
        for rank in (1, 2, 4):
            own = by_lora_tool(binary, model, rank, scratch)
            if isinstance(own, str):
                return own
            theirs = by_peft(wrapped, base, rank)
            off, whole = norms(base, want, weights(own))
            peers = None if theirs is None else norms(base, want, theirs)[0] / whole
            rows.append((rank, off / whole, peers, optimum(base, want, rank) / whole))
    return rows


def main():
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", default="target/release/lora-tool")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    asked = parser.parse_args()
    bad = cases = compared = 0
    for name, config, spread in peft_cases():
        if asked.only not in name or name in NO_MATRIX:
            continue
        cases += 1
        found = run(asked.binary, config, spread)
        if isinstance(found, str):
            bad += 1
            print(f"{name:24} FAILED  {found}")
            continue
        for rank, own, peers, best in found:
            # What merging in f32 leaves of an exact conversion.
            slack = 1e-6
            fits = own <= best * 1.01 + slack and (peers is None or own <= peers + slack)
            bad += not fits
            compared += peers is not None
            said = "PEFT converts none" if peers is None else f"PEFT {peers:.6f}"
            print(f"{name:24} rank {rank}: {own:.6f}, optimum {best:.6f}, {said}{'' if fits else '  WORSE'}")
    print(f"{cases} cases, {compared} conversions of PEFT's to compare with, {bad} off")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
