#!/usr/bin/env python3
"""How much of every task is left when adapters are merged: lora-tool's methods and PEFT's, side by side.

All adapters (one a task, each with its own linear head) are combined by every method at weight 1,
the result is merged into the base, and every task is scored on it with its own head. The mean of
accuracy over the accuracy of the task's own adapter is what a method is judged by. PEFT's methods
are its add_weighted_adapter, scored on the same texts by the same function.

Methods are run as they come: density 0.5 where one is needed, nothing is tuned to these tasks.
Exit 0: a table was made. 2: it could not be made.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

MAX_TOKENS = 48
BATCH = 64
BASE, OWN = "base alone", "each task's own adapter"

# (label, rank, flags of `combine`)
COMBINE = [
    ("linear", "lossless", ""),
    ("linear", "16", "--rank 16"),
    ("cat", "sum", "--method cat"),
    *((label, "16", f"--method {label} --rank 16")
      for label in ["df-regmean", "shared-basis", "tsv", "iso-c", "iso-cts", "star", "karcher", "model-stock",
                    "magnitude-prune", "breadcrumbs", "breadcrumbs-ties", "sce", "della", "della-linear",
                    "dare-linear", "dare-ties", "ties"]),
    *((f"{label}, {space} space", "16", f"--method {label} --space {space} --rank 16")
      for label in ["ties", "magnitude-prune"] for space in ["core", "knots"]),
    ("df-regmean, inputs", "16", "--method df-regmean --side in --rank 16"),
    ("df-regmean", "lossless", "--method df-regmean --rank lossless"),
    ("shared-basis", "lossless", "--method shared-basis --rank lossless"),
    ("tsv", "lossless", "--method tsv --rank lossless"),
]
# (label, flags of `merge`): adapters go into the base at once, no rank in between.
MERGE = [
    ("linear", ""),
    ("magnitude-prune", "--method magnitude-prune"),
    ("ties", "--method ties"),
    ("ties, density 0.5", "--method ties --density 0.5"),
    ("dare-linear", "--method dare-linear"),
    ("dare-ties", "--method dare-ties"),
    ("breadcrumbs", "--method breadcrumbs"),
    ("breadcrumbs-ties", "--method breadcrumbs-ties"),
    ("della", "--method della"),
    ("della-linear", "--method della-linear"),
    ("sce", "--method sce"),
]
# (label, rank, arguments of add_weighted_adapter)
PEFT = [
    ("cat", "sum", {"combination_type": "cat"}),
    ("svd", "16", {"combination_type": "svd", "svd_rank": 16}),
    ("magnitude_prune_svd", "16",
     {"combination_type": "magnitude_prune_svd", "svd_rank": 16, "density": 0.5}),
    ("dare_linear_svd", "16",
     {"combination_type": "dare_linear_svd", "svd_rank": 16, "density": 0.5}),
    ("ties_svd", "16", {"combination_type": "ties_svd", "svd_rank": 16, "density": 0.5}),
    ("ties_svd, density 0.2", "16",
     {"combination_type": "ties_svd", "svd_rank": 16, "density": 0.2}),
    ("dare_ties_svd", "16", {"combination_type": "dare_ties_svd", "svd_rank": 16, "density": 0.5}),
]


@dataclass
class Task:
    """A task: its adapter, its head, its texts."""

    name: str
    adapter: Path
    weight: torch.Tensor
    bias: torch.Tensor
    texts: list
    labels: torch.Tensor
    batches: list = field(default_factory=list)


@dataclass
class Row:
    """The accuracies of one merged model, task by task."""

    tool: str
    method: str
    rank: str
    accuracies: list

    def normalised(self, own):
        """Mean of accuracy over the own adapter's."""
        return sum(a / b for a, b in zip(self.accuracies, own)) / len(own)


def open_task(directory, tokenizer, every):
    """The task of one adapter directory, its texts tokenised."""
    head = load_file(directory / "head.safetensors")
    task = json.loads((directory / "task.json").read_text(encoding="utf-8"))
    texts, labels = zip(*task["test"][::every])
    opened = Task(task["task"], directory, head["weight"].float(), head["bias"].float(),
                  list(texts), torch.tensor(labels))
    # Texts of like length share a batch, so that little is padding.
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        tokens = tokenizer([texts[at] for at in part], padding=True, truncation=True,
                           max_length=MAX_TOKENS, return_tensors="pt")
        opened.batches.append((torch.tensor(part), tokens))
    return opened


@torch.inference_mode()
def accuracy(model, task):
    """Share of the task's texts that its head gets right on the model's mean-pooled embeddings."""
    right = 0
    for part, tokens in task.batches:
        hidden = model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].unsqueeze(-1).float()
        embedding = (hidden * mask).sum(1) / mask.sum(1)
        guesses = (embedding @ task.weight.T + task.bias).argmax(1)
        right += (guesses == task.labels[part]).sum().item()
    return right / len(task.texts)


def run(lora_tool, arguments):
    """Run a verb; complain if it fails."""
    command = [lora_tool, "-q", *map(str, arguments)]
    status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    if status:
        raise ValueError(f"`{shlex.join(command)}` ended with status {status}")


class Bench:
    """Everything that stays the same from method to method."""

    def __init__(self, args):
        self.lora_tool, self.base, self.weight = args.lora_tool, args.base, args.weight
        tokenizer = AutoTokenizer.from_pretrained(args.base)
        self.tasks = [open_task(task, tokenizer, args.every) for task in args.task]
        self.only = args.only
        self.rows = []

    def wanted(self, tool, method):
        """Whether --only leaves this method in."""
        return not self.only or any(part in f"{tool} {method}" for part in self.only)

    def score(self, tool, method, rank, model):
        """Score a model on every task and keep the row."""
        row = Row(tool, method, rank, [accuracy(model.eval(), task) for task in self.tasks])
        self.rows.append(row)
        print(f"{tool}: {method}, rank {rank}: "
              + " ".join(f"{value:.3f}" for value in row.accuracies), file=sys.stderr)
        return row

    def merged(self, adapters, flags, scratch):
        """The base with adapters merged in by lora-tool."""
        out = scratch / "merged"
        weights = ["-w", *[self.weight] * len(adapters)]
        run(self.lora_tool, ["merge", self.base, *adapters, *weights, *flags.split(),
                             "-o", out, "--force"])
        return AutoModel.from_pretrained(out)

    def references(self, scratch):
        """The base alone, and every task with its own adapter; the latter's accuracies."""
        self.score("", BASE, "", AutoModel.from_pretrained(self.base))
        own = []
        for task in self.tasks:
            out = scratch / "own"
            run(self.lora_tool, ["merge", self.base, task.adapter, "-o", out, "--force"])
            own.append(accuracy(AutoModel.from_pretrained(out).eval(), task))
        self.rows.append(Row("", OWN, "own", own))
        return own

    def ours(self, scratch):
        """All of our methods."""
        adapters = [task.adapter for task in self.tasks]
        for method, rank, flags in COMBINE:
            if not self.wanted("combine", method):
                continue
            out, weights = scratch / "combined", ["-w", *[self.weight] * len(adapters)]
            run(self.lora_tool, ["combine", *adapters, *weights, *flags.split(),
                                 "-o", out, "--force"])
            merged = scratch / "merged"
            run(self.lora_tool, ["merge", self.base, out, "-o", merged, "--force"])
            self.score("combine", method, rank, AutoModel.from_pretrained(merged))
        for method, flags in MERGE:
            if self.wanted("merge", method):
                self.score("merge", method, "none", self.merged(adapters, flags, scratch))

    def peft(self):
        """All of PEFT's methods that take these adapters."""
        names = [task.name for task in self.tasks]
        model = None
        for method, rank, arguments in PEFT:
            if not self.wanted("PEFT", method):
                continue
            if model is None:
                model = PeftModel.from_pretrained(
                    AutoModel.from_pretrained(self.base), self.tasks[0].adapter, names[0])
                for task in self.tasks[1:]:
                    model.load_adapter(task.adapter, task.name)
            torch.manual_seed(0)
            weights = [self.weight] * len(names)
            model.add_weighted_adapter(names, weights, "combined", **arguments)
            model.set_adapter("combined")
            self.score("PEFT", method, rank, model)
            model.delete_adapter("combined")


def print_table(bench, own):
    """Print a Markdown table, in the order of the lists above."""
    print(f"| tool | method | rank | {' | '.join(task.name for task in bench.tasks)} | normalised |")
    print("|---|---|---|" + "---|" * len(bench.tasks) + "---|")
    for row in bench.rows:
        values = " | ".join(f"{value:.3f}" for value in row.accuracies)
        print(f"| {row.tool} | {row.method} | {row.rank} | {values} | {row.normalised(own):.3f} |")


def main():
    """Score every method; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lora-tool", required=True, help="the binary to test")
    parser.add_argument("--base", type=Path, required=True, help="base model directory")
    parser.add_argument("--task", type=Path, required=True, action="append",
                        help="PEFT adapter directory with head.safetensors and task.json, repeatable")
    parser.add_argument("--weight", type=float, default=1.0,
                        help="weight of every adapter (default %(default)s)")
    parser.add_argument("--every", type=int, default=1,
                        help="score every n-th text only (default %(default)s)")
    parser.add_argument("--only", action="append", metavar="TEXT",
                        help="only methods whose `tool method` holds this text, repeatable")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        bench = Bench(args)
        with tempfile.TemporaryDirectory() as scratch:
            own = bench.references(Path(scratch))
            bench.ours(Path(scratch))
        bench.peft()
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_table(bench, own)
    return 0


if __name__ == "__main__":
    sys.exit(main())
