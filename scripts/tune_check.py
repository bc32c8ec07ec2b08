#!/usr/bin/env python3
"""Whether `lora_tool.tune` finds weights on texts without labels: a tiny model, two adapters that get in each other's way.

    python scripts/tune_check.py target/debug/lora-tool

Exit 0: it does, twice the same. 1: it does not. Needs torch, transformers and safetensors.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parent.parent / "python"))

import lora_tool  # noqa: E402
from lora_tool import _call  # noqa: E402

WORDS = "abcdefghijklmnopqrstuvwxyz"


class Letters:
    """A tokenizer of single letters."""

    def __call__(self, text: str) -> dict:
        return {"input_ids": [1 + WORDS.index(letter) for letter in text]}


def model() -> LlamaForCausalLM:
    """A random Llama with two layers."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=4, initializer_range=0.3)
    return LlamaForCausalLM(config).float()


def adapter(path: Path, seed: int, size: float) -> Path:
    """A random adapter of the query and down projections."""
    draw = torch.Generator().manual_seed(seed)
    path.mkdir()
    tensors = {}
    for layer in range(2):
        for name, inputs in (("self_attn.q_proj", 32), ("mlp.down_proj", 64)):
            key = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(4, inputs, generator=draw) * size
            tensors[f"{key}.lora_B.weight"] = torch.randn(32, 4, generator=draw) * size
    save_file(tensors, path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"],
              "base_model_name_or_path": "tiny"}
    (path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def main() -> int:
    """Tunes, twice and with labels."""
    _call.find_binary = lambda: os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        adapters = [adapter(root / "a", 1, 0.35), adapter(root / "b", 2, 0.3)]
        draw = torch.Generator().manual_seed(9)
        text = lambda: "".join(WORDS[at] for at in torch.randint(26, (12,), generator=draw))  # noqa: E731
        texts = [[text() for _ in range(32)] for _ in adapters]
        net = model()
        before = {name: weight.clone() for name, weight in net.state_dict().items()}
        runs = [lora_tool.tune("tiny", adapters, texts, root / f"tuned{run}.yaml", method="linear", model=net,
                               tokenizer=Letters()) for run in range(2)]
        scores = [trial["score"] for trial in runs[0]["trials"]]
        assert len(scores) == 6 + 2 * 2, scores
        assert runs[0]["best"]["score"] == min(scores) < 0.99 * scores[0], scores
        assert [trial["score"] for trial in runs[1]["trials"]] == scores, "it is not reproducible"
        assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items()), "the base changed"
        recipes = [(root / f"tuned{run}.yaml").read_text(encoding="utf-8") for run in range(2)]
        assert recipes[0] == recipes[1]
        # One adapter by itself is what it is.
        judge = lora_tool.tuning._Judge("tiny", texts, None, None, net, Letters(), 64, 8)
        judge.remember(adapters)
        assert judge.score(adapters[0]) > 0
        judge._texts, judge._own = texts[:1], judge._own[:1]
        assert abs(judge.score(adapters[0])) < 1e-4, judge.score(adapters[0])
        judge.restore()
        labels = [["a"] * 32, ["b"] * 32]
        labelled = lora_tool.tune("tiny", adapters, texts, root / "labelled.yaml", labels=labels, method="linear",
                                  model=net, tokenizer=Letters())
        assert labelled["best"]["score"] <= labelled["trials"][0]["score"], labelled
        try:
            lora_tool.tune("tiny", adapters, texts[:1], root / "no.yaml", model=net, tokenizer=Letters())
        except ValueError as error:
            assert "lists of texts" in str(error)
        else:
            raise AssertionError("one list of texts for two adapters was taken")
        print(f"KL {scores[0]:.4f} at weight 1, {min(scores):.4f} tuned")
    return 0


if __name__ == "__main__":
    sys.exit(main())
