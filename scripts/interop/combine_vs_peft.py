#!/usr/bin/env python3
"""Check that what `lora-tool combine` and `resize` write is what PEFT reads from it.

All adapters are combined, and each is resized. Every output is loaded with PEFT, which must find
each of its tensors and miss none; PEFT's merge_and_unload must agree with `lora-tool merge`; and the
deltas that PEFT computes must be as far from the exact weighted sum of the inputs' own, again by
PEFT, as the tool reported.
Exit 0: all agree. 1: some do not. 2: an output could not be made.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from transformers import AutoModel
from transformers.utils import logging

WEIGHTS = [0.7, 0.5, -0.4, 0.3]
COMBINE = ["", "--rank 16", "--method cat", "--rank 16 --uniform", "--to peft --rank energy:0.9"]
RESIZE = ["--rank lossless", "--rank energy:0.95", "--rank 8", "--rank size:512KiB",
          "--rank energy:0.95 --uniform", "--rank error:0.3"]


@dataclass
class Row:
    """What the check of one output found."""

    output: str
    modules: int
    ranks: str
    kilobytes: int
    strays: int
    merge_diff: float
    delta_error: float
    reported: float

    def agrees(self, tolerance):
        """Whether PEFT and the tool mean the same by it."""
        return (self.strays == 0 and self.merge_diff <= tolerance
                and abs(self.delta_error - self.reported) <= tolerance)


def run(lora_tool, arguments):
    """Run a verb; its report."""
    command = [lora_tool, "-q", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode:
        raise ValueError(f"`{shlex.join(command)}` ended with status {done.returncode}")
    return json.loads(done.stdout)


def load_base(directory):
    """The model in `directory`, ready for inference."""
    return AutoModel.from_pretrained(directory).eval()


def load_adapter(base, adapter):
    """(model with the adapter, tensors that PEFT misses, does not know, or warns of)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(load_base(base), adapter)
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        known = get_peft_model_state_dict(model, save_embedding_layers=False)
        strays = set(file.keys()) ^ known.keys()
    about_keys = [warning for warning in caught if "key" in str(warning.message)]
    return model, len(strays) + len(about_keys)


@torch.inference_mode()
def deltas(model):
    """Every adapted module's delta as PEFT computes it, in f64."""
    return {
        name: module.get_delta_weight("default").double()
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def weighted_sum(parts):
    """The sum of weight · delta by module; a module that one lacks counts as zero."""
    total = {}
    for weight, own in parts:
        for name, delta in own.items():
            total[name] = total.get(name, 0) + weight * delta
    return total


def relative_error(found, expected):
    """Frobenius norm of the difference over that of `expected`, over all modules."""
    if found.keys() != expected.keys():
        raise ValueError(f"modules only on one side: {sorted(found.keys() ^ expected.keys())}")
    apart = sum(((found[name] - expected[name]) ** 2).sum() for name in expected)
    return (apart / sum((delta**2).sum() for delta in expected.values())).sqrt().item()


def merge_diff(lora_tool, base, adapter, model, scratch):
    """Largest difference between PEFT's merge of an adapter and the tool's.

    Both sum a few dozen f32 products in one order, so it can well be 0.
    """
    before = load_base(base).state_dict()
    merged = scratch / "merged"
    run(lora_tool, ["merge", str(base), str(adapter), "-o", str(merged), "--force"])
    ours, theirs = load_base(merged).state_dict(), model.merge_and_unload().state_dict()
    if ours.keys() != theirs.keys():
        raise ValueError(f"tensors only in one merge: {sorted(ours.keys() ^ theirs.keys())}")
    if all(torch.equal(theirs[name], before[name]) for name in before):
        raise ValueError(f"{adapter}: PEFT's merge changed nothing, so nothing was compared")
    diffs = [(ours[name].double() - theirs[name].double()).abs().max() for name in ours]
    return torch.stack(diffs).max().item()  # a NaN stays visible


def check(lora_tool, base, label, arguments, exact, scratch):
    """Make one output and see what PEFT makes of it."""
    output = scratch / "output"
    report = run(lora_tool, [*arguments, "-o", str(output), "--force"])
    model, strays = load_adapter(base, output)
    ranks = sorted(module["rank"] for module in report["modules"])
    error = relative_error(deltas(model), exact)
    return Row(
        label,
        len(ranks),
        f"{ranks[0]}-{ranks[-1]}",
        report["bytes"] // 1000,
        strays,
        merge_diff(lora_tool, base, output, model, scratch),
        error,
        report["relative_error"],
    )


def check_all(lora_tool, base, adapters):
    """One row for each way to combine all adapters and to resize each."""
    weights = [WEIGHTS[at % len(WEIGHTS)] for at in range(len(adapters))]
    own = [deltas(load_adapter(base, adapter)[0]) for adapter in adapters]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        exact = weighted_sum(zip(weights, own))
        paths = [str(adapter) for adapter in adapters]
        for flags in COMBINE:
            line = ["combine", *paths, "-w", *map(str, weights), *flags.split()]
            label = f"combine {flags}".strip()
            rows.append(check(lora_tool, base, label, line, exact, scratch))
        for adapter, delta in zip(adapters, own):
            for flags in RESIZE:
                line = ["resize", str(adapter), *flags.split()]
                label = f"resize {adapter.name} {flags}"
                rows.append(check(lora_tool, base, label, line, delta, scratch))
    return rows


def print_table(rows, tolerance):
    """Print one line an output."""
    print(f"{'output':<48} {'modules':>7} {'ranks':>7} {'kB':>6} {'strays':>6} "
          f"{'merges':>9} {'error':>9} {'reported':>9}")
    for row in rows:
        verdict = "ok" if row.agrees(tolerance) else "FAIL"
        print(f"{row.output:<48} {row.modules:>7} {row.ranks:>7} {row.kilobytes:>6} {row.strays:>6} "
              f"{row.merge_diff:>9.2e} {row.delta_error:>9.2e} {row.reported:>9.2e} {verdict}")


def main():
    """Check everything; the exit status is the answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lora-tool", required=True, help="the binary to test")
    parser.add_argument("--base", type=Path, required=True, help="base model directory")
    parser.add_argument("--adapter", type=Path, required=True, action="append",
                        help="PEFT adapter directory, repeatable")
    parser.add_argument("--tolerance", type=float, default=1e-5,
                        help="largest allowed difference (default %(default)s)")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        rows = check_all(args.lora_tool, args.base, args.adapter)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_table(rows, args.tolerance)
    return int(not all(row.agrees(args.tolerance) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
