"""Rows of scores, each computed once: a file remembers what was scored, so that a killed run goes on.

A row is a set of tasks, how its adapters were put together, and of every task which of its texts or images come out
right and which get the own adapter's answer.
"""

import json
import subprocess
from pathlib import Path

import torch
from benches import ALL, Score, adapter_deltas, open_bench


def _bits(values):
    return "".join("1" if value else "0" for value in values.tolist())


def _values(bits):
    return torch.tensor([float(bit == "1") for bit in bits])


class Scores:
    """One base with adapters and their tasks; rows that were scored are kept in a file."""

    def __init__(self, tool, base, directories, results, dtype=torch.float32, take=ALL):
        self.tool, self.base, self.dirs, self.dtype, self.take = tool, base, directories, dtype, take
        self.results, self.rows, self._bench = results, {}, None
        if results is not None and results.exists():
            for line in results.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.rows[row["key"]] = row["tasks"]

    @property
    def bench(self):
        """The bench of all tasks, opened when first needed; each task's own answers are known in it."""
        if self._bench is None:
            self._bench = self.opened()
            for at, directory in enumerate(self.dirs):
                self._bench.use(adapter_deltas(directory))
                self._bench.score(only=at)
        return self._bench

    def opened(self):
        """A bench with the weights of the base."""
        return open_bench(self.base, self.dirs, self.dtype, self.take)

    def key(self, label, tasks, take):
        """What a row goes by in the file."""
        names = [f"{self.dirs[at].parent.name}/{self.dirs[at].name}" for at in tasks]
        start, step = take.start or 0, take.step or 1
        sample = f", from {start} by {step}" if (start, step) != (0, 1) else ""
        return f"{' + '.join(names)}: {label}{sample}"

    def scored(self, label, tasks, make):
        """The scores of a set of tasks (their numbers); `make` puts the weights to be scored on a bench that it
        returns."""
        key, start, step = self.key(label, tasks, self.take), self.take.start or 0, self.take.step or 1
        # Of a sample, the part that is wanted of what was scored already.
        for known, part in ((ALL, self.take), (slice(None, None, step), slice(start // step, None))):
            row = self.rows.get(self.key(label, tasks, known))
            if row is not None and start % step == 0:
                self.rows[key] = [[right[part], agrees[part]] for right, agrees in row]
                break
        if key not in self.rows:
            bench = make()
            found = [bench.score(only=at)[at] for at in tasks]
            self.rows[key] = [[_bits(score.right), _bits(score.agrees)] for score in found]
            if self.results is not None:
                with self.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "tasks": self.rows[key]}) + "\n")
        return [Score(_values(right), _values(agrees)) for right, agrees in self.rows[key]]

    def own(self, at):
        """What a task's own adapter scores on it."""
        def make():
            self.bench.use(adapter_deltas(self.dirs[at]))
            return self.bench
        return self.scored("own", [at], make)[0]

    def run(self, verb, inputs, flags, output):
        """Run a verb of lora-tool."""
        command = [self.tool, "-q", verb, *map(str, inputs), *flags.split(), "-o", str(output), "--force"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def combined(self, flags, tasks, scratch, inputs=None):
        """Adapters of some tasks (or `inputs` made of them), combined by flags of `combine`."""
        def make():
            self.run("combine", inputs or [self.dirs[at] for at in tasks], flags, scratch / "adapter")
            self.bench.use(adapter_deltas(scratch / "adapter"))
            return self.bench
        return self.scored(f"combine {flags}" + (f" of {inputs[0].parent.name}" if inputs else ""), tasks, make)

    def merged(self, flags, tasks, scratch):
        """The same, merged into the base by flags of `merge`."""
        def make():
            self.run("merge", [self.base, *(self.dirs[at] for at in tasks)], flags, scratch / "model")
            self.bench.use_model(scratch / "model")
            return self.bench
        return self.scored(f"merge {flags}", tasks, make)

    def normalised(self, scores, tasks):
        """Of each task, accuracy over the own adapter's."""
        return [score.right.mean().item() / self.own(at).right.mean().item() for score, at in zip(scores, tasks)]

    def difference(self, scores, others, tasks):
        """The mean of what one row has over another, relative to the own adapters', and its standard error, paired text
        by text."""
        parts = [(a.right - b.right) / self.own(at).right.mean() for a, b, at in zip(scores, others, tasks)]
        mean = sum(part.mean() for part in parts) / len(parts)
        error = sum(part.var() / len(part) for part in parts) ** 0.5 / len(parts)
        return mean.item(), error.item()
