"""Three kinds of models on which merges are judged: an encoder, a decoder that writes answers, a convolutional network.

A bench holds a base and tasks; `use` puts deltas on the base's weights, `score` says of every task which of its
texts or images come out right, and which get the answer of the task's own adapter. Which kind it is, the tasks say
themselves.
"""

import copy
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

ENCODER_TOKENS = 48
BATCH = 64
# Which texts or images of a task are scored.
ALL = slice(None)


class Score(NamedTuple):
    """Of a task's texts or images, 1 or 0 each."""

    right: torch.Tensor
    agrees: torch.Tensor


def adapter_deltas(directory):
    """{module: scale · B · A} of a PEFT directory, in f32, in the shape of the weight."""
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    tensors = load_file(directory / "adapter_model.safetensors")

    def by_pattern(field, module, default):
        patterns = config.get(field) or {}
        found = (value for pattern, value in patterns.items()
                 if re.fullmatch(rf"(.*\.)?({pattern})", module))
        return next(found, default)

    deltas = {}
    for name, down in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        up = tensors[name.replace(".lora_A.", ".lora_B.")].float()
        module = name.removesuffix(".lora_A.weight").removeprefix("base_model.model.")
        rank = by_pattern("rank_pattern", module, config["r"])
        alpha = by_pattern("alpha_pattern", module, config["lora_alpha"])
        scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
        delta = scale * (up.flatten(1) @ down.float().flatten(1))
        deltas[module] = delta.reshape(up.shape[0], *down.shape[1:])
    if 2 * len(deltas) != len(tensors):
        raise ValueError(f"{directory} holds more than factors of linear layers and convolutions")
    return deltas


class Bench:
    """A base with its tasks."""

    def __init__(self, net, tasks):
        self.net, self.tasks, self.own = net.eval(), tasks, {}
        self.weights = dict(net.named_parameters())
        self.base = {name: weight.data.clone() for name, weight in self.weights.items()}

    def use(self, deltas):
        """Put the base's weights with deltas added in place."""
        for name, weight in self.weights.items():
            weight.data = self.base[name]
        for module, delta in deltas.items():
            name = f"{module}.weight"
            self.weights[name].data = self.base[name] + delta.to(self.base[name].dtype)

    def use_model(self, directory):
        """Put a merged checkpoint's weights in place."""
        merged = {}
        for file in sorted(Path(directory).glob("*.safetensors")):
            merged.update(load_file(file))
        for name, weight in self.weights.items():
            weight.data = merged[name].to(self.base[name].dtype)

    @torch.inference_mode()
    def score(self, only=None):
        """Of each task, or of one alone, its `Score`. The first score of one alone is its own adapter's."""
        return [self.score_of(at, task) if only in (None, at) else None
                for at, task in enumerate(self.tasks)]

    def score_of(self, at, task):
        """Classes: whether each is the label, and whether it is that of the own adapter."""
        found, labels = self.classes(task), task[1]
        own = self.own.setdefault(at, found)
        return Score((found == labels).float(), (found == own).float())


class Encoder(Bench):
    """Sentence embeddings, the mean over tokens, with a linear head a task."""

    def __init__(self, base, directories, take=ALL):
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(base)
        super().__init__(AutoModel.from_pretrained(base, dtype=torch.float32),
                         [self.task(directory, tokenizer, take) for directory in directories])

    @staticmethod
    def task(directory, tokenizer, take):
        """Texts in batches of like length, with the head."""
        head = load_file(directory / "head.safetensors")
        facts = json.loads((directory / "task.json").read_text(encoding="utf-8"))
        texts, labels = zip(*facts["test"][take])
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        batches = []
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            tokens = tokenizer([texts[at] for at in part], padding=True, truncation=True,
                               max_length=ENCODER_TOKENS, return_tensors="pt")
            batches.append((part, tokens))
        return batches, torch.tensor(labels), head["weight"].float(), head["bias"].float()

    def classes(self, task):
        """The head's class of each text."""
        batches, labels, weight, bias = task
        found = torch.zeros_like(labels)
        for part, tokens in batches:
            hidden = self.net(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).float()
            embedding = (hidden * mask).sum(1) / mask.sum(1)
            found[torch.tensor(part)] = (embedding @ weight.T + bias).argmax(1)
        return found


class Decoder(Bench):
    """Answers by greedy decoding: right is the whole answer with the token that ends it."""

    def __init__(self, base, directories, dtype=torch.bfloat16, take=ALL):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(base)
        net = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        super().__init__(net, [self.task(directory, tokenizer, take) for directory in directories])
        exact = load_file(Path(base) / "model.safetensors")
        self.base = {name: exact.get(name, weight) for name, weight in self.base.items()}
        # The first layer that differs from the base's, and what comes out of those before it.
        self.first, self.kept = 0, {}

    @staticmethod
    def task(directory, tokenizer, take):
        """Prompts, right answers and the own adapter's as tokens."""
        facts = json.loads((directory / "task.json").read_text(encoding="utf-8"))
        tokens = lambda text: tokenizer(text)["input_ids"]
        return [(tokens(prompt), [*tokens(answer), facts["eos_id"]], own)
                for (prompt, answer), own in zip(facts["pairs"][take], facts["own_answers"][take])]

    def use(self, deltas):
        """Sums are made in f32 and rounded once, to the network's dtype."""
        for name, weight in self.weights.items():
            delta = deltas.get(name.removesuffix(".weight"))
            exact = self.base[name] if delta is None else self.base[name].float() + delta
            weight.data = exact.to(weight.dtype)
        layers = [re.match(r"model\.layers\.(\d+)\.", module) for module in deltas]
        self.first = min((int(layer[1]) for layer in layers), default=0) if all(layers) else 0

    def use_model(self, directory):
        """A checkpoint may have changed any layer."""
        super().use_model(directory)
        self.first = 0

    def score_of(self, at, task):
        """Whether greedy decoding would write the right answer, and whether it would write the own adapter's."""
        others = [row for row, (_, answer, own) in enumerate(task) if answer != own]
        pairs = [(prompt, answer) for prompt, answer, _ in task] + [(task[row][0], task[row][2]) for row in others]
        found = self.writes(at, pairs)
        right = found[: len(task)]
        agrees = right.clone()
        agrees[others] = found[len(task) :]
        return Score(right, agrees)

    def writes(self, at, pairs):
        """Whether each token of an answer is the likeliest after those before it: what greedy decoding would write.

        What all prompts of the task begin with goes through the layers once.
        """
        from transformers import DynamicCache

        order = sorted(range(len(pairs)), key=lambda row: sum(map(len, pairs[row])))
        shared = len(os.path.commonprefix([prompt[:-1] for prompt, _ in pairs]))
        prefix, found = DynamicCache(), torch.zeros(len(pairs))
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            hidden = self.below(at, start, [pairs[row] for row in part])
            if shared and not start:
                self.through(slice(self.first, None), hidden[:1, :shared], prefix)
            cache = copy.deepcopy(prefix)
            if shared:
                cache.batch_repeat_interleave(len(part))
            hidden = self.through(slice(self.first, None), hidden[:, shared:], cache)
            rows = [row for row, pair in enumerate(part) for _ in pairs[pair][1]]
            places = [len(pairs[row][0]) - 1 - shared + place for row in part for place in range(len(pairs[row][1]))]
            answers = [pairs[row][1] for row in part]
            logits = self.net.lm_head(self.net.model.norm(hidden[rows, places]))
            hits = logits.argmax(-1) == torch.tensor(sum(answers, []))
            found[part] = torch.stack([hit.all() for hit in hits.split([len(answer) for answer in answers])]).float()
        return found

    def below(self, at, start, pairs):
        """Hidden states before the first layer that an adapter changes, of one batch: they stay the same, so they are
        kept. The padding on the right is read by nothing before it."""
        key = at, start, self.first
        if self.first == 0 or key not in self.kept:
            width = max(len(prompt) + len(answer) for prompt, answer in pairs) - 1
            rows = [(prompt + answer)[:width] for prompt, answer in pairs]
            tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
            self.kept[key] = self.through(slice(self.first), self.net.model.embed_tokens(tokens))
        return self.kept[key]

    def through(self, part, hidden, cache=None):
        """Hidden states after some of the layers."""
        model = self.net.model
        layers, norm = model.layers, model.norm
        model.layers, model.norm = layers[part], torch.nn.Identity()
        for at, layer in enumerate(model.layers):
            layer.self_attn.layer_idx = at
        try:
            return model(inputs_embeds=hidden, past_key_values=cache, use_cache=cache is not None).last_hidden_state
        finally:
            model.layers, model.norm = layers, norm
            for at, layer in enumerate(layers):
                layer.self_attn.layer_idx = at


class Vision(Bench):
    """EfficientNet-lite0 with plain convolutions, as PEFT can adapt them, and a linear head a task."""

    def __init__(self, base, directories, take=ALL):
        super().__init__(self.network(load_file(Path(base) / "model.safetensors")),
                         [self.task(directory, take) for directory in directories])

    @staticmethod
    def network(weights):
        """The package's network; all convolutions that are not depthwise become torch's own."""
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name("efficientnet-lite0")
        for name, module in list(net.named_modules()):
            if isinstance(module, torch.nn.Conv2d) and module.groups == 1:
                plain = torch.nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size,
                                        stride=module.stride, bias=module.bias is not None)
                parent, _, leaf = name.rpartition(".")
                setattr(net.get_submodule(parent) if parent else net, leaf, plain)
        net.load_state_dict(weights)
        return net

    @staticmethod
    def task(directory, take):
        """Images and labels, with the head."""
        import numpy

        facts = json.loads((directory / "task.json").read_text(encoding="utf-8"))
        stored, head = numpy.load(directory / facts["test"]), load_file(directory / "head.safetensors")
        images = torch.from_numpy(stored["images"][take])
        labels = torch.from_numpy(stored["labels"][take])
        return Vision.pixels(images), labels, head["weight"], head["bias"]

    @staticmethod
    def pixels(images):
        """Bytes as the network takes them."""
        return ((images.float() - 127) / 128).permute(0, 3, 1, 2).contiguous()

    def outputs(self, images):
        """The thousand outputs of the last layer; the stem's padding is one row and column at the end."""
        net = self.net
        hidden = net._swish(net._bn0(net._conv_stem(torch.nn.functional.pad(images, (0, 1, 0, 1)))))
        for block in net._blocks:
            hidden = block(hidden)
        return net._fc(net._swish(net._bn1(net._conv_head(hidden))).mean((2, 3)))

    def classes(self, task):
        """The head's class of each image."""
        images, _, weight, bias = task
        found = [self.outputs(images[start : start + BATCH]) @ weight.T + bias
                 for start in range(0, len(images), BATCH)]
        return torch.cat(found).argmax(1)


def open_bench(base, directories, dtype=torch.bfloat16, take=ALL):
    """The bench of the kind that the tasks are of, with those of their texts or images that `take` takes; `dtype` is a decoder's."""
    facts = json.loads((directories[0] / "task.json").read_text(encoding="utf-8"))
    if facts.get("kind") == "generate":
        return Decoder(base, directories, dtype, take)
    return (Vision if (directories[0] / "test.npz").exists() else Encoder)(base, directories, take)
