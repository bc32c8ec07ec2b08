"""Weights for adapters, found on a few texts without labels.

What a merge should do with a text is known without a label: what the text's own adapter does. :func:`tune` searches the
weights at which the merged model's distributions are nearest to the own adapters', by the mean of KL(own ‖ merged) over
32 to 64 texts a task. The search is ``lora-tool tune``'s, so a killed one goes on, and the result is a recipe.

Needs ``torch`` and ``transformers`` (``pip install lora-tool[tune]``).
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import threading
from multiprocessing.connection import Listener
from typing import Any, Callable, Sequence

from ._call import Path, Report, call

_SCORER = "LORA_TOOL_SCORER"


def tune(base: Path, adapters: Sequence[Path], texts: Sequence[Sequence[str]], output: Path, *,
         method: str | None = None, labels: Sequence[Sequence[Any]] | None = None,
         weights: Sequence[float] | None = None, rank: int | str | None = None,
         logits: Callable[[Any, list[str], int], Any] | None = None, model: Any = None,
         tokenizer: Any = None, max_tokens: int = 64, batch: int = 8, force: bool = False,
         **options: Any) -> Report:
    """Searches the weights at which the merge of ``adapters`` does most like each of them on its own texts.

    ``texts`` are lists of texts, one an adapter; ``output`` is the recipe. Without ``labels`` the score is the mean of
    KL(own ‖ merged) over tasks; with them, the mean negative log-likelihood of the labels, which are answers
    that follow the texts (or, with ``logits``, numbers of classes).

    The base is loaded as a causal language model unless ``model`` is one that is loaded already (with its
    ``tokenizer``). Of other models, ``logits(model, texts, task)`` gives a row of logits a text.
    """
    if not (len(texts) == len(adapters) and (labels is None or len(labels) == len(adapters))):
        raise ValueError(f"{len(adapters)} adapters need as many lists of texts (and of labels), one each, in order")
    if any(not one for one in texts):
        raise ValueError("a task has no texts")
    if labels is not None and any(len(a) != len(b) for a, b in zip(texts, labels)):
        raise ValueError("a task has another number of labels than of texts")
    judge = _Judge(base, texts, labels, logits, model, tokenizer, max_tokens, batch)
    try:
        if labels is None:
            judge.remember(adapters)
        command = f"{_quoted(sys.executable)} {_quoted(os.path.join(os.path.dirname(__file__), '_ask.py'))} {{adapter}}"
        with _serving(judge.score):
            return call("tune", *adapters, output=output, score=command, minimize=True, method=method,
                        weights=weights, rank=rank, force=force, **options)
    finally:
        judge.restore()


def _quoted(path: str) -> str:
    return subprocess.list2cmdline([path]) if sys.platform == "win32" else shlex.quote(path)


class _serving:
    """Answers, from a thread of its own, what the command's scorer asks."""

    def __init__(self, score: Callable[[str], float]) -> None:
        self._score, key = score, secrets.token_bytes(16)
        self._listener = Listener(("127.0.0.1", 0), authkey=key)
        self._address = f"{self._listener.address[1]}:{key.hex()}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> None:
        self._before = os.environ.get(_SCORER)
        os.environ[_SCORER] = self._address
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            del os.environ[_SCORER]
        else:
            os.environ[_SCORER] = self._before
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                asker = self._listener.accept()
            except Exception:  # closed, or somebody without the key
                if self._listener._listener is None:  # type: ignore[attr-defined]
                    return
                continue
            with asker:
                path = asker.recv()
                try:
                    asker.send((self._score(path), None))
                except Exception as error:  # the command shows it
                    asker.send((None, f"{type(error).__name__}: {error}"))


class _Judge:
    """A model whose weights are the base's with an adapter's update, and the texts that it is judged by."""

    def __init__(self, base: Path, texts: Sequence[Sequence[str]], labels: Sequence[Sequence[Any]] | None,
                 logits: Callable[[Any, list[str], int], Any] | None, model: Any, tokenizer: Any,
                 max_tokens: int, batch: int) -> None:
        import torch

        self._torch = torch
        if model is None:
            from transformers import AutoModelForCausalLM

            model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
        if tokenizer is None and logits is None:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(base)
        self._model, self._tokenizer, self._logits = model.eval(), tokenizer, logits
        self._texts, self._labels = texts, labels
        self._max_tokens, self._batch = max_tokens, batch
        self._modules = dict(model.named_modules())
        self._base: dict[str, Any] = {}
        self._own: list[list[Any]] = []

    def restore(self) -> None:
        """Puts the base's weights back."""
        for name, weight in self._base.items():
            self._modules[name].weight.data = weight
        self._base = {}

    def remember(self, adapters: Sequence[Path]) -> None:
        """What each adapter by itself makes of its own texts."""
        for task, adapter in enumerate(adapters):
            self._use(adapter)
            half = self._torch.float16
            self._own.append([own.to(half) for own in self._distributions(task)])

    def score(self, adapter: Path) -> float:
        """The score of a merged adapter, the lower the better."""
        self._use(adapter)
        tasks = range(len(self._texts))
        one = self._loss if self._labels is not None else self._divergence
        return float(sum(one(task) for task in tasks) / len(tasks))

    def _use(self, adapter: Path) -> None:
        """Puts the base's weights with the update of an adapter of any convention in place."""
        torch = self._torch
        self.restore()
        with tempfile.TemporaryDirectory() as scratch:
            plain = os.path.join(scratch, "plain")
            call("combine", adapter, output=plain, to="peft", dtype="f32")
            updates = _updates(plain)
        for name, (up, down) in updates.items():
            module = self._modules.get(name)
            if module is None:
                raise ValueError(f"the model has no module {name}, which {os.fspath(adapter)} adapts")
            weight = module.weight
            update = (up.flatten(1).double() @ down.flatten(1).double()).to(weight.device)
            if type(module).__name__ == "Conv1D":  # GPT-2's is stored the other way round
                update = update.T
            self._base[name] = weight.data
            update = update.reshape(weight.shape)
            weight.data = (weight.data.to(torch.float64) + update).to(weight.dtype)

    def _batches(self, task: int) -> Any:
        texts = list(self._texts[task])
        for start in range(0, len(texts), self._batch):
            yield start, texts[start : start + self._batch]

    def _distributions(self, task: int) -> Any:
        """Log-probabilities, a row a text or a token, batch by batch."""
        torch = self._torch
        with torch.inference_mode():
            for _, texts in self._batches(task):
                if self._logits is not None:
                    rows = self._logits(self._model, texts, task)
                else:
                    # One text at a time needs no padding, which some models are sensitive to.
                    rows = torch.cat([self._rows(self._tokens(text)) for text in texts])
                yield rows.float().log_softmax(-1)

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])[: self._max_tokens]

    def _rows(self, tokens: list[int]) -> Any:
        ids = self._torch.tensor([tokens], device=next(self._model.parameters()).device)
        return self._model(input_ids=ids).logits[0]

    def _divergence(self, task: int) -> float:
        """The mean of KL(own ‖ merged) over a task's texts or tokens."""
        total, count = 0.0, 0
        for own, merged in zip(self._own[task], self._distributions(task)):
            own = own.float().log_softmax(-1)  # rounding took its sum off 1
            total += float((own.exp() * (own - merged)).sum())
            count += len(own)
        return total / count

    def _loss(self, task: int) -> float:
        """The mean negative log-likelihood of a task's labels."""
        torch, labels = self._torch, list(self._labels[task])  # type: ignore[index]
        total, count = 0.0, 0
        with torch.inference_mode():
            for start, texts in self._batches(task):
                answers = labels[start : start + len(texts)]
                if self._logits is not None:
                    rows = self._logits(self._model, texts, task).float().log_softmax(-1)
                    total -= float(sum(rows[at, answer] for at, answer in enumerate(answers)))
                    count += len(answers)
                    continue
                for text, answer in zip(texts, answers):
                    before, tokens = self._tokens(text), list(self._tokenizer(text + answer)["input_ids"])
                    rows = self._rows(tokens).float().log_softmax(-1)
                    places = range(max(len(before), 1), len(tokens))
                    total -= float(sum(rows[at - 1, tokens[at]] for at in places))
                    count += len(places)
        if not count:
            raise ValueError("the labels add no token to their texts")
        return total / count


def _updates(directory: str) -> dict[str, tuple[Any, Any]]:
    """{module: (B, A)} of a PEFT directory whose scales are in its factors, as ``combine`` writes it."""
    from safetensors.torch import load_file

    with open(os.path.join(directory, "adapter_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    alphas, ranks = config.get("alpha_pattern") or {}, config.get("rank_pattern") or {}
    if config["lora_alpha"] != config["r"] or alphas != ranks or config.get("use_rslora"):
        raise ValueError("the adapter has scales beside its factors")
    tensors = load_file(os.path.join(directory, "adapter_model.safetensors"))
    end, updates = ".lora_A.weight", {}
    for name, down in tensors.items():
        if name.endswith(end):
            updates[name.removesuffix(end).removeprefix("base_model.model.")] = (
                tensors[name.replace(".lora_A.", ".lora_B.")], down)
    if 2 * len(updates) != len(tensors):
        raise ValueError("it holds more than factors of linear layers and convolutions; "
                         "score it by a command of yours: lora-tool tune --score")
    return updates
