#!/usr/bin/env python3
"""How much of every task is left when adapters are merged: lora-tool's methods and PEFT's, side by side.

All adapters of a set, one a task, are combined by every method at several weights, and every task is scored on the one
result. Each figure is the mean of accuracy over that of the task's own adapter; the difference to the plain sum
is paired, text by text, with its standard error.

Exit 0: a table was made. 2: it could not be made.
"""

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from benches import adapter_deltas
from peft_rows import PeftMerges
from scores import Scores

# (label, rank, flags of `combine`)
COMBINE = [
    ("linear", "lossless", ""),
    ("linear", "16", "--rank 16"),
    *((method, rank, f"--method {method} --rank {rank}")
      for method in ["df-regmean", "tsv"] for rank in ["lossless", "16"]),
    *((method, "16", f"--method {method} --rank 16")
      for method in ["ties", "magnitude-prune", "shared-basis", "iso-c", "star", "karcher", "breadcrumbs", "sce",
                     "della", "dare-linear", "ram", "ram-plus"]),
    ("auto", "its own", "--method auto"),
]
# (label, flags of `merge`): adapters go into the base at once, no rank in between.
MERGE = [("auto", "--method auto"), ("ties", "--method ties"), ("magnitude-prune", "--method magnitude-prune"),
         ("breadcrumbs", "--method breadcrumbs")]
# (label, rank, arguments of add_weighted_adapter)
PEFT = [
    ("svd", "16", {"combination_type": "svd", "svd_rank": 16}),
    ("magnitude_prune_svd", "16", {"combination_type": "magnitude_prune_svd", "svd_rank": 16, "density": 0.5}),
    ("ties_svd, density 0.2", "16", {"combination_type": "ties_svd", "svd_rank": 16, "density": 0.2}),
    ("cat", "sum", {"combination_type": "cat"}),
]


class Table:
    """A set of tasks, printed row by row."""

    def __init__(self, scores, args, scratch):
        self.scores, self.args, self.scratch = scores, args, scratch
        self.tasks = list(range(len(scores.dirs)))
        names = [directory.name for directory in scores.dirs]
        self.say("| tool | method | rank | weight | " + " | ".join(names) + " | normalised | worst | agree | to linear |")
        self.say("|---|---|---|---|" + "---|" * (len(names) + 4))
        self.row(("", "each task's own adapter", "own", ""), [scores.own(at) for at in self.tasks], None)
        self.sum = scores.combined(self.flags(1, ""), self.tasks, scratch)

    @staticmethod
    def say(line):
        """A line of the table, at once."""
        print(line, flush=True)

    def flags(self, weight, flags):
        """The flags of a row at a weight."""
        return f"-w {' '.join([f'{weight:g}'] * len(self.tasks))} {flags}".strip()

    def row(self, labels, scores, plain):
        """One line: accuracies; their mean over the own ones and the least of these; the share of texts or images
        with the own adapter's answer; the paired difference to the plain sum."""
        ratios = self.scores.normalised(scores, self.tasks)
        agree = sum(score.agrees.mean().item() for score in scores) / len(scores)
        cells = [f"{score.right.mean().item():.3f}" for score in scores]
        cells += [f"{value:.3f}" for value in [sum(ratios) / len(ratios), min(ratios), agree]]
        difference = ""
        if plain is not None:
            mean, error = self.scores.difference(scores, plain, self.tasks)
            difference = f"{100 * mean:+.1f} ± {100 * error:.1f}"
        self.say("| " + " | ".join([*labels, *cells, difference]) + " |")

    def wanted(self, label):
        """Whether --only leaves a method in."""
        return not self.args.only or any(part in label for part in self.args.only)

    def ours(self):
        """All of our methods at all weights."""
        for weight in self.args.weight:
            for label, rank, flags in COMBINE:
                # What `auto` multiplies is the weight that it is given.
                if self.wanted(f"combine {label}") and (label != "auto" or weight == 1):
                    scores = self.scores.combined(self.flags(weight, flags), self.tasks, self.scratch)
                    self.row(("combine", label, rank, f"{weight:g}"), scores, self.sum)
            for label, flags in MERGE:
                if self.wanted(f"merge {label}") and (label != "auto" or weight == 1):
                    scores = self.scores.merged(self.flags(weight, flags), self.tasks, self.scratch)
                    self.row(("merge", label, "none", f"{weight:g}"), scores, self.sum)

    def peft(self):
        """PEFT's methods at all weights."""
        merges = PeftMerges(self.scores, self.scratch)
        for weight in self.args.weight:
            for label, rank, arguments in PEFT:
                if not self.wanted(f"PEFT {label}"):
                    continue

                def make(arguments=arguments, weight=weight):
                    directory = merges.merged(weight, arguments)
                    self.scores.bench.use(adapter_deltas(directory))
                    return self.scores.bench
                scores = self.scores.scored(f"PEFT {label} at {weight:g}", self.tasks, make)
                self.row(("PEFT", label, rank, f"{weight:g}"), scores, self.sum)


def main():
    """Score every method; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lora-tool", required=True, help="the binary to test")
    parser.add_argument("--bench", nargs="+", action="append", required=True, metavar="PATH",
                        help="a base model directory and PEFT adapter directories with their tasks, repeatable")
    parser.add_argument("--weight", type=float, nargs="+", default=[1, 0.7, 0.5],
                        help="weights of every adapter (default: 1 0.7 0.5)")
    parser.add_argument("--only", action="append", metavar="TEXT",
                        help="only methods whose `tool method` holds this text, repeatable")
    parser.add_argument("--results", type=Path, help="file that keeps what was scored: a killed run goes on")
    parser.add_argument("--bf16", action="store_true", help="a decoder computes in bfloat16, as it was trained")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for base, *tasks in args.bench:
                scores = Scores(args.lora_tool, Path(base), [Path(task) for task in tasks], args.results, dtype)
                table = Table(scores, args, Path(scratch))
                table.ours()
                table.peft()
                print()
    except (OSError, ValueError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
