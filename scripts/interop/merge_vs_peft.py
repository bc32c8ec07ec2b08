#!/usr/bin/env python3
"""Compare `lora-tool merge` with PEFT's merge_and_unload on a real encoder.

For each adapter: merge it both ways, compare every tensor and the mean-pooled embeddings
of a few dozen texts, and score the adapter's own task where its directory has one.
Exit 0: all embeddings agree. 1: some do not. 2: a merge could not be made.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

MAX_TOKENS = 48
BATCH = 64

TEXTS = """\
The quick brown fox jumps over the lazy dog.
A cold wind came down from the mountains last night.
She sold the old bicycle to her neighbour for ten pounds.
How do I reset the password of my account?
Return the index of the first matching element, or -1.
The train to Vienna leaves at half past six.
This is the worst coffee I have ever tasted.
What a wonderful evening, thank you all for coming!
Parse the header before reading any tensor data.
Water boils at a lower temperature at high altitude.
The committee postponed its decision until March.
Broken link on the download page
He plays the cello in a small chamber orchestra.
Matrix multiplication is associative but not commutative.
Please forward the invoice to accounting.
Our flight was delayed by three hours because of fog.
Raises ValueError if the shapes do not match.
The bakery on the corner closes on Mondays.
Interest rates rose for the third time this year.
Where can I find the nearest pharmacy?
The museum shows paintings of the seventeenth century.
A list of pairs, sorted by the second item.
The patient was discharged after two days.
My daughter learned to swim this summer.
terrible
excellent
Lisbon
Gare du Nord
42 Baker Street, London
Acme Trading Company Ltd.
electrical engineer
Plot a histogram of the sampled values.
The river flooded the lower part of the town.
An apple a day keeps the doctor away.
They signed the contract without reading it.
The default is to keep the original dtype.
Bees communicate by dancing.
I would not recommend this hotel to anyone.
The screws are included, the batteries are not.
Compute the singular value decomposition of a matrix.
Two goals in the last minute decided the match.
Wie spät ist es?
Où est la bibliothèque ?
El perro duerme debajo de la mesa.
La vita è bella.
Store the dough in the fridge overnight.
The lecture was long but never boring.
Error: file not found
Copyright law differs from country to country.
Call me when you arrive.""".splitlines()


@dataclass
class Row:
    """What the comparison of one adapter found."""

    adapter: str
    tensors: int
    changed: int
    weight_diff: float
    embedding_shift: float
    embedding_diff: float
    accuracy: str


def load(directory):
    """The model in `directory`, ready for inference."""
    return AutoModel.from_pretrained(directory).eval()


@torch.inference_mode()
def embed(model, tokenizer, texts):
    """Mean of the last hidden states over each text's attention mask, as f32."""
    parts = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(
            texts[start : start + BATCH],
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        hidden = model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1).float()
        parts.append((hidden * mask).sum(1) / mask.sum(1))
    return torch.cat(parts)


def merge_with_lora_tool(lora_tool, base, adapter, scratch):
    """Run `lora-tool merge` and load what it wrote."""
    merged = scratch / "merged"
    command = [lora_tool, "-q", "merge", str(base), str(adapter), "-o", str(merged)]
    status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    if status:
        raise ValueError(f"`{shlex.join(command)}` ended with status {status}")
    return load(merged)


def merge_with_peft(base, adapter):
    """Let PEFT merge the adapter into a freshly loaded base."""
    return PeftModel.from_pretrained(load(base), adapter).merge_and_unload().eval()


def compare_weights(ours, theirs, base):
    """(tensors, tensors that differ from the base, largest difference between the merges)."""
    ours, theirs, base = ours.state_dict(), theirs.state_dict(), base.state_dict()
    if ours.keys() != theirs.keys():
        raise ValueError(f"tensors only in one merge: {sorted(ours.keys() ^ theirs.keys())}")
    diffs = []
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape:
            raise ValueError(f"{name}: {tensor.shape} against {theirs[name].shape}")
        diffs.append((tensor.double() - theirs[name].double()).abs().max())
    changed = sum(not torch.equal(theirs[name], base[name]) for name in base)
    return len(ours), changed, torch.stack(diffs).max().item()  # a NaN stays visible


def accuracy(model, tokenizer, adapter, task):
    """Share of the task's texts that the adapter's own linear head gets right."""
    head = load_file(adapter / "head.safetensors")
    texts, labels = zip(*task["test"])
    scores = embed(model, tokenizer, list(texts)) @ head["weight"].float().T
    guesses = (scores + head["bias"].float()).argmax(1)
    return (guesses == torch.tensor(labels)).float().mean().item()


def describe_accuracy(ours, theirs, tokenizer, adapter):
    """`lora-tool / PEFT / recorded` accuracy, or a dash for an adapter without a task."""
    if not all((adapter / file).is_file() for file in ("head.safetensors", "task.json")):
        return "-"
    task = json.loads((adapter / "task.json").read_text(encoding="utf-8"))
    scores = [accuracy(model, tokenizer, adapter, task) for model in (ours, theirs)]
    return " / ".join(f"{score:.4f}" for score in [*scores, task["accuracy_adapter"]])


def compare(lora_tool, base_dir, adapter):
    """Merge one adapter both ways and measure how far the results are apart."""
    base, tokenizer = load(base_dir), AutoTokenizer.from_pretrained(base_dir)
    with tempfile.TemporaryDirectory() as scratch:
        ours = merge_with_lora_tool(lora_tool, base_dir, adapter, Path(scratch))
        theirs = merge_with_peft(base_dir, adapter)
        tensors, changed, weight_diff = compare_weights(ours, theirs, base)
        if not changed:
            raise ValueError(f"{adapter}: PEFT's merge changed nothing, so nothing was compared")
        embeddings = [embed(model, tokenizer, TEXTS) for model in (base, ours, theirs)]
        return Row(
            adapter.name,
            tensors,
            changed,
            weight_diff,
            (embeddings[2] - embeddings[0]).abs().max().item(),
            (embeddings[1] - embeddings[2]).abs().max().item(),
            describe_accuracy(ours, theirs, tokenizer, adapter),
        )


def print_table(rows, tolerance):
    """Print one line an adapter."""
    print(f"{'adapter':<14} {'tensors':>7} {'changed':>7} {'weights':>9} "
          f"{'adapter moves':>13} {'embeddings':>10}       accuracy: lora-tool / PEFT / recorded")
    for row in rows:
        verdict = "ok  " if row.embedding_diff <= tolerance else "FAIL"
        print(f"{row.adapter:<14} {row.tensors:>7} {row.changed:>7} {row.weight_diff:>9.2e} "
              f"{row.embedding_shift:>13.2e} {row.embedding_diff:>10.2e} {verdict}  {row.accuracy}")


def main():
    """Compare every adapter asked for; the exit status is the answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lora-tool", required=True, help="the binary to test")
    parser.add_argument("--base", type=Path, required=True, help="base model directory")
    parser.add_argument("--adapter", type=Path, required=True, action="append",
                        help="PEFT adapter directory, repeatable; each is merged alone")
    parser.add_argument("--tolerance", type=float, default=1e-4,
                        help="largest allowed embedding difference (default %(default)s)")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        rows = [compare(args.lora_tool, args.base, adapter) for adapter in args.adapter]
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_table(rows, args.tolerance)
    return int(not all(row.embedding_diff <= args.tolerance for row in rows))


if __name__ == "__main__":
    sys.exit(main())
