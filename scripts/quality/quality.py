#!/usr/bin/env python3
"""How much of every task is left when adapters are merged: lora-tool's methods and PEFT's, side by side.

All adapters of a set, one a task, are combined by every method at several weights, and every task is scored on the one
result. Each figure is the mean of accuracy over that of the task's own adapter; the difference to the plain sum
is paired, text by text, with its standard error.

Exit 0: a table was made. 2: it could not be made.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from benches import adapter_deltas, open_bench

# (label, rank, flags of `combine`)
COMBINE = [
    ("linear", "lossless", ""),
    ("linear", "16", "--rank 16"),
    *((method, rank, f"--method {method} --rank {rank}")
      for method in ["df-regmean", "tsv"] for rank in ["lossless", "16"]),
    *((method, "16", f"--method {method} --rank 16")
      for method in ["ties", "magnitude-prune", "shared-basis", "iso-c", "star", "karcher", "breadcrumbs", "sce",
                     "della", "dare-linear"]),
    ("auto", "its own", "--method auto"),
]
# (label, flags of `merge`): adapters go into the base at once, no rank in between.
MERGE = [("ties", "--method ties"), ("magnitude-prune", "--method magnitude-prune"),
         ("breadcrumbs", "--method breadcrumbs")]
# (label, rank, arguments of add_weighted_adapter)
PEFT = [
    ("svd", "16", {"combination_type": "svd", "svd_rank": 16}),
    ("magnitude_prune_svd", "16", {"combination_type": "magnitude_prune_svd", "svd_rank": 16, "density": 0.5}),
    ("ties_svd, density 0.2", "16", {"combination_type": "ties_svd", "svd_rank": 16, "density": 0.2}),
]


class Table:
    """A set of tasks, and the rows scored on it so far."""

    def __init__(self, args):
        self.args, self.dirs = args, args.task
        self.dtype = torch.float32 if args.f32 else torch.bfloat16
        self.bench = open_bench(args.base, args.task, self.dtype)
        own = []
        for at, directory in enumerate(self.dirs):
            self.bench.use(adapter_deltas(directory))
            own.append(self.bench.score(only=at)[at])
        self.own = [score.right for score in own]
        self.sum = None
        names = [directory.name for directory in self.dirs]
        self.say("| tool | method | rank | weight | " + " | ".join(names) + " | normalised | worst | agree | to linear |")
        self.say("|---|---|---|---|" + "---|" * (len(names) + 4))
        self.row(("", "each task's own adapter", "own", ""), own)

    @staticmethod
    def say(line):
        """A line of the table, at once."""
        print(line, flush=True)

    def row(self, labels, scores):
        """One line: accuracies; their mean over the own ones and the least of these; the share of texts or images
        with the own adapter's answer; the paired difference to the plain sum."""
        right = [score.right for score in scores]
        ratios = [found.mean() / own.mean() for found, own in zip(right, self.own)]
        agree = sum(score.agrees.mean() for score in scores) / len(scores)
        summary = [sum(ratios) / len(ratios), min(ratios), agree]
        cells = [f"{found.mean():.3f}" for found in right] + [f"{value:.3f}" for value in summary]
        difference = ""
        if self.sum is not None:
            parts = [(found - plain) / own.mean() for found, plain, own in zip(right, self.sum, self.own)]
            mean = sum(part.mean() for part in parts) / len(parts)
            error = sum(part.var() / len(part) for part in parts) ** 0.5 / len(parts)
            difference = f"{100 * mean:+.1f} ± {100 * error:.1f}"
        self.say("| " + " | ".join([*labels, *cells, difference]) + " |")

    def tool(self, verb, inputs, flags, output):
        """Run a verb of lora-tool."""
        command = [self.args.lora_tool, "-q", verb, *map(str, inputs), *flags.split(), "-o", str(output), "--force"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"{' '.join(command)}: {done.stderr.strip()}")

    def wanted(self, label):
        """Whether --only leaves a method in."""
        return not self.args.only or any(part in label for part in self.args.only)

    def ours(self, scratch):
        """All of our methods at all weights."""
        for weight in self.args.weight:
            weights = f"-w {' '.join([str(weight)] * len(self.dirs))}"
            for label, rank, flags in COMBINE:
                # What `auto` multiplies is the weight that it is given.
                if not self.wanted(f"combine {label}") or (label == "auto" and weight != 1):
                    continue
                self.tool("combine", self.dirs, f"{weights} {flags}", scratch / "adapter")
                self.bench.use(adapter_deltas(scratch / "adapter"))
                scores = self.bench.score()
                if self.sum is None and label == "linear":
                    self.sum = [score.right for score in scores]
                self.row(("combine", label, rank, str(weight)), scores)
            for label, flags in MERGE:
                if self.wanted(f"merge {label}"):
                    self.tool("merge", [self.args.base, *self.dirs], f"{weights} {flags}", scratch / "model")
                    self.bench.use_model(scratch / "model")
                    self.row(("merge", label, "none", str(weight)), self.bench.score())

    def peft(self, scratch):
        """PEFT's methods, at weight 1, from adapters of which it takes the layers as they are."""
        from peft import PeftModel

        self.bench.use({})
        names, model = [directory.name for directory in self.dirs], None
        for label, rank, arguments in PEFT:
            if not self.wanted(f"PEFT {label}"):
                continue
            if model is None:
                model = PeftModel.from_pretrained(self.bench.net, self.dirs[0], adapter_name=names[0])
                for name, directory in zip(names[1:], self.dirs[1:]):
                    model.load_adapter(directory, adapter_name=name)
            model.add_weighted_adapter(names, [1.0] * len(names), "all", **arguments)
            model.save_pretrained(scratch / "peft", selected_adapters=["all"])
            model.delete_adapter("all")
            bench = open_bench(self.args.base, self.dirs, self.dtype)
            bench.own = self.bench.own
            bench.use(adapter_deltas(scratch / "peft" / "all"))
            self.row(("PEFT", label, rank, "1"), bench.score())


def main():
    """Score every method; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lora-tool", required=True, help="the binary to test")
    parser.add_argument("--base", type=Path, required=True, help="base model directory")
    parser.add_argument("--task", type=Path, required=True, action="append",
                        help="PEFT adapter directory with its task beside it, repeatable")
    parser.add_argument("--weight", type=float, nargs="+", default=[1, 0.7, 0.5],
                        help="weights of every adapter (default: 1 0.7 0.5)")
    parser.add_argument("--only", action="append", metavar="TEXT",
                        help="only methods whose `tool method` holds this text, repeatable")
    parser.add_argument("--f32", action="store_true",
                        help="a decoder computes in f32: single answers may differ, and it is fast on processors "
                             "without bfloat16")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    try:
        table = Table(args)
        with tempfile.TemporaryDirectory() as scratch:
            table.ours(Path(scratch))
            table.peft(Path(scratch))
    except (OSError, ValueError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
