#!/usr/bin/env python3
"""Whether the advice is right: on every subset of the adapters at hand, the row that `--method auto` advises beside the
best of all rows.

Sets are all subsets of two adapters or more of each base at weight 1, and variants of them: other weights, and adapters
cut to a lower rank. A row is a method at one factor on all weights.

Exit 0: a table was made. 2: it could not be made.
"""

import argparse
import json
import sys
import tempfile
import warnings
from itertools import combinations
from pathlib import Path

import torch
from scores import Scores

FACTORS = [1.0, 0.7, 0.5]
# Method, flags, factors.
ROWS = [("linear", "", FACTORS), ("df-regmean", "--method df-regmean --rank lossless", FACTORS),
        ("tsv", "--method tsv --rank lossless", FACTORS), ("ties", "--method ties --rank {rank}", [1.0]),
        ("sce", "--method sce --rank {rank}", [1.0]), ("magnitude-prune", "--method magnitude-prune --rank {rank}", FACTORS[:2])]
# What is below the others on language models, which are slow to score (docs/quality.md).
LEFT_OUT = {("tsv", 1.0), ("tsv", 0.5), ("ties", 1.0), ("sce", 1.0), ("magnitude-prune", 1.0), ("magnitude-prune", 0.7),
            ("linear", 0.5)}
# Weights beside 1, of all adapters of a base.
WEIGHTS = {2: [(1.5, 1.5), (0.7, 0.7), (1.0, 0.5), (0.5, 1.0), (1.5, 0.75), (0.75, 1.5)], 4: [(1.5,) * 4, (1, 1, 0.6, 0.6)]}
# The error that counts as right.
NEAR = 0.015


def ranks(values):
    """Ranks, of equals their mean."""
    order = sorted(values)
    return [order.index(value) + (order.count(value) - 1) / 2 for value in values]


def rank_correlation(xs, ys):
    """Spearman's."""
    a, b = torch.tensor(ranks(xs)), torch.tensor(ranks(ys))
    return torch.corrcoef(torch.stack([a, b]))[0, 1].item()


def sets_of(scores, cut):
    """(tasks, weights, inputs or none) of every set of a bench."""
    count = len(scores.dirs)
    for size in range(2, count + 1):
        for tasks in combinations(range(count), size):
            yield list(tasks), (1.0,) * size, None
    for weights in WEIGHTS.get(count, []):
        yield list(range(count)), weights, None
    if scores.fast:
        yield list(range(count)), (1.0,) * count, cut


def adviser(scores, inputs, weights, scratch):
    """What the rule says of a set: (advice, mean spill, sum of ranks)."""
    text = scores.run("combine", inputs, f"-w {weights} --method auto --dry-run --json", scratch / "none")
    report = json.loads(text)
    spills = [one["spill"] for one in report["inputs"] if one["spill"] is not None]
    return report["chosen"], sum(spills) / len(spills), max(one["rank_before"] for one in report["modules"])


def judged(scores, tasks, weights, inputs, scratch):
    """One set: its line's facts."""
    chosen, spill, rank = adviser(scores, inputs or [scores.dirs[at] for at in tasks],
                                  " ".join(map(str, weights)), scratch)
    rows = {}
    for method, flags, factors in ROWS:
        for factor in factors:
            if not scores.convolutions and (method, factor) in LEFT_OUT:
                continue
            # `ties` takes a weighted mean.
            scale = factor / max(weights) if method == "ties" else factor
            given = " ".join(f"{scale * weight:g}" for weight in weights)
            flags_here = f"-w {given} {flags.format(rank=rank)}".strip()
            rows[method, factor] = scores.combined(flags_here, tasks, scratch, inputs)
    means = {}
    for key, row in rows.items():
        ratios = scores.normalised(row, tasks)
        means[key] = sum(ratios) / len(ratios)
    best = max(means, key=means.get)
    advised = (chosen["method"], 1.0 if chosen["method"] == "ties" else chosen["factor"])
    if advised not in rows:
        raise ValueError(f"the advised row {advised} was not scored")
    difference, error = scores.difference(rows[advised], rows[best], tasks)
    return {"tasks": " + ".join(scores.dirs[at].name for at in tasks), "kind": scores.kind,
            "weights": "cut to half their ranks" if inputs else " ".join(f"{weight:g}" for weight in weights),
            "spill": spill, "linear": means["linear", 1.0], "advised": advised, "advised mean": means[advised],
            "best": best, "best mean": means[best], "difference": difference, "error": error}


def print_table(found):
    """The table, and what it says in sum."""
    print("| set | weights | spill | linear | advised | has | best row | has | difference | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for one in found:
        right = "" if one["difference"] >= -NEAR else "off"
        print(f"| {one['kind']}: {one['tasks']} | {one['weights']} | {100 * one['spill']:.0f} % | {one['linear']:.3f} | "
              f"{one['advised'][0]}, {one['advised'][1]:g} | {one['advised mean']:.3f} | {one['best'][0]}, {one['best'][1]:g} | "
              f"{one['best mean']:.3f} | {100 * one['difference']:+.1f} ± {100 * one['error']:.1f} | {right} |")
    near = sum(one["difference"] >= -NEAR for one in found)
    print(f"\nWithin 1.5 points of the best row: {near} of {len(found)}.")
    for kind in [None, *dict.fromkeys(one["kind"] for one in found)]:
        part = [one for one in found if kind in (None, one["kind"])]
        if len(part) > 2:
            value = rank_correlation([one["spill"] for one in part], [1 - one["linear"] for one in part])
            print(f"Rank correlation of spill with what the plain sum loses, {kind or 'all'}: {value:.2f} ({len(part)} sets).")


def main():
    """Score every row of every set; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lora-tool", required=True, help="the binary to test")
    parser.add_argument("--bench", nargs="+", action="append", required=True, metavar="PATH",
                        help="a base model directory and PEFT adapter directories with their tasks, repeatable")
    parser.add_argument("--results", type=Path, required=True, help="file that keeps what was scored")
    parser.add_argument("--every", type=int, default=1, help="score one in so many texts or images (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    found = []
    try:
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            for base, *tasks in args.bench:
                scores = Scores(args.lora_tool, Path(base), [Path(task) for task in tasks], args.results,
                                take=slice(None, None, args.every))
                scores.kind = scores.dirs[0].parent.name
                facts = json.loads((scores.dirs[0] / "task.json").read_text(encoding="utf-8"))
                scores.fast, scores.convolutions = facts.get("kind") != "generate", (scores.dirs[0] / "test.npz").exists()
                cut = []
                (scratch / "half").mkdir(exist_ok=True)
                for directory in scores.dirs:
                    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
                    cut.append(scratch / "half" / f"{scores.kind}-{directory.name}")
                    scores.run("resize", [directory], f"--rank {config['r'] // 2}", cut[-1])
                for tasks_of, weights, inputs in sets_of(scores, cut):
                    found.append(judged(scores, tasks_of, weights, inputs, scratch))
                    print(json.dumps(found[-1]), file=sys.stderr, flush=True)
        print_table(found)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
