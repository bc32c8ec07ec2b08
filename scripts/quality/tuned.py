#!/usr/bin/env python3
"""What `lora_tool.tune` finds without labels: the weights at which a merge does most like each adapter on 32 texts or
images of its task.

The first 32 of a task's texts or images are what weights are found on, all others what results are scored on. A
language model's texts are prompts with what the task's own adapter answers; how near the merged model is counts on the
answer's tokens. Needs `lora-tool` on the PATH, and the package in `python/`.

Exit 0: a table was made. 2: it could not be made.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from benches import ENCODER_TOKENS, Decoder, Encoder, Vision, adapter_deltas
from scores import Scores

COUNT = 32
# Method, weight: rows without a search.
UNTUNED = [("linear", 1.0), ("linear", 0.7), ("df-regmean", 1.0), ("df-regmean", 0.7), ("df-regmean", 0.5), ("tsv", 0.7)]
# Of convolutions besides, at the sum of the ranks.
ELEMENTWISE = [("ties", 1.0), ("sce", 1.0)]


class Samples:
    """What a bench's tasks are tuned on."""

    def __init__(self, bench, base, directories):
        self.bench = bench
        facts = [json.loads((path / "task.json").read_text(encoding="utf-8")) for path in directories]
        if isinstance(bench, Decoder):
            self.of = [[(prompt, own) for (prompt, _), own in zip(one["pairs"][:COUNT], one["own_answers"])] for one in facts]
            self.logits = self.of_answers
        elif isinstance(bench, Encoder):
            self.of = [[text for text, _ in one["test"][:COUNT]] for one in facts]
            self.logits = self.of_texts
        else:
            import numpy

            stored = [numpy.load(path / one["test"])["images"][:COUNT] for path, one in zip(directories, facts)]
            self.of = [list(torch.from_numpy(images)) for images in stored]
            self.logits = self.of_images
        if isinstance(bench, (Decoder, Encoder)):
            from transformers import AutoTokenizer

            self.tokenizer = AutoTokenizer.from_pretrained(base)

    def of_texts(self, net, texts, task):
        """The head's outputs for each text."""
        _, _, weight, bias = self.bench.tasks[task]
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=ENCODER_TOKENS, return_tensors="pt")
        mask = tokens["attention_mask"].unsqueeze(-1).float()
        embedding = (net(**tokens).last_hidden_state * mask).sum(1) / mask.sum(1)
        return embedding @ weight.T + bias

    def of_images(self, _, images, task):
        """The head's outputs for each image."""
        _, _, weight, bias = self.bench.tasks[task]
        return self.bench.outputs(self.bench.pixels(torch.stack(images))) @ weight.T + bias

    def of_answers(self, net, pairs, _):
        """What follows the prompt and each token of the answer but the last."""
        rows = [(self.tokenizer(prompt)["input_ids"], answer) for prompt, answer in pairs]
        width = max(len(before) + len(answer) for before, answer in rows)
        # The padding on the right is read by nothing before it.
        tokens = torch.tensor([(before + answer + [0] * width)[:width] for before, answer in rows])
        hidden = net.model(input_ids=tokens).last_hidden_state
        parts = [hidden[at, len(before) - 1 :][: len(answer)] for at, (before, answer) in enumerate(rows)]
        return net.lm_head(torch.cat(parts))


def tuned(args, scores, samples, method, scratch):
    """The recipe that a search ends with, and its report."""
    import lora_tool

    recipe = args.recipes / f"{scores.dirs[0].parent.name}-{method}.yaml"
    bench = scores.bench
    bench.use({})
    report = lora_tool.tune(scores.base, scores.dirs, samples.of, recipe, method=method, logits=samples.logits,
                            model=bench.net, batch=COUNT, force=True)
    for trial in report["trials"]:
        print(f"{recipe.name} {trial['number']}/{trial['of']}: lambda {trial['lambda']:g}, weights {trial['weights']}, "
              f"{trial['score']:.5f}{' known' if trial['known'] else ''}", file=sys.stderr, flush=True)
    return recipe, report


def rows_of(args, base, tasks, scratch):
    """The lines of one bench."""
    take = slice(COUNT, None, args.every)
    scores = Scores(args.lora_tool, Path(base), [Path(task) for task in tasks], args.results, take=take)
    samples = Samples(scores.bench, base, scores.dirs)
    every = list(range(len(scores.dirs)))
    found = []
    facts = [json.loads((path / "adapter_config.json").read_text(encoding="utf-8")) for path in scores.dirs]
    ranks = sum(one["r"] for one in facts)
    for method, weight in UNTUNED + (ELEMENTWISE if isinstance(scores.bench, Vision) else []):
        weights = " ".join([f"{weight:g}"] * len(every))
        rank = ranks if (method, weight) in ELEMENTWISE else "lossless"
        flags = "" if method == "linear" else f" --method {method} --rank {rank}"
        row = scores.combined(f"-w {weights}{flags}", every, scratch)
        found.append((f"{method}, {weight:g}", row))
    best = max(found, key=lambda one: sum(scores.normalised(one[1], every)))
    for method in args.method:
        recipe, report = tuned(args, scores, samples, method, scratch)
        lines = recipe.read_text(encoding="utf-8")

        def make(recipe=recipe):
            scores.run("run", [recipe], "", scratch / "tuned")
            scores.bench.use(adapter_deltas(scratch / "tuned"))
            return scores.bench
        best_trial = report["best"]
        weights = ", ".join(f"{best_trial['lambda'] * weight:.3g}" for weight in best_trial["weights"])
        row = scores.scored(f"tuned {method} {hash_of(lines)}", every, make)
        found.append((f"{method}, tuned to {weights}", row))
    for label, row in found:
        ratios = scores.normalised(row, every)
        difference, error = scores.difference(row, best[1], every)
        print(f"| {scores.dirs[0].parent.name} | {label} | {sum(ratios) / len(ratios):.3f} | {min(ratios):.3f} | "
              f"{100 * difference:+.1f} ± {100 * error:.1f} |", flush=True)


def hash_of(text):
    """A short name of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def main():
    """Search, score, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lora-tool", required=True, help="the binary to test")
    parser.add_argument("--bench", nargs="+", action="append", required=True, metavar="PATH",
                        help="a base model directory and PEFT adapter directories with their tasks, repeatable")
    parser.add_argument("--method", nargs="+", default=["linear", "df-regmean"], help="methods whose weights are searched")
    parser.add_argument("--results", type=Path, required=True, help="file that keeps what was scored")
    parser.add_argument("--recipes", type=Path, required=True, help="directory for the recipes that are found")
    parser.add_argument("--every", type=int, default=1, help="score one in so many texts or images (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    args.recipes.mkdir(parents=True, exist_ok=True)
    print("| set | row | normalised | worst | to the best untuned row |\n|---|---|---|---|---|")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for base, *tasks in args.bench:
                rows_of(args, base, tasks, Path(scratch))
    except (OSError, ValueError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
