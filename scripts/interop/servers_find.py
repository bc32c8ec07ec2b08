#!/usr/bin/env python3
"""Whether programs that serve language models find every module of what `convert --for` writes.

For 9 classes with vision and 7 with experts (`llm_classes.py`) PEFT writes an adapter of the whole language
model, `lora-tool convert --for PROGRAM --reference BASE` converts it, and the program's own code is asked:

- vllm: `WeightsMapper` with the class's mapper, `parse_fine_tuned_lora_name`, the packed experts' names and
  the stacks' reshaping, by definition from its wheel;
- sglang: the normalisation of `LoRAAdapter`, `get_layer_id` and `get_target_module_name`, likewise;
- llama.cpp: the base as its converter writes it, whose tensors the run time looks up by name and shape;
- mlx: `load_adapters` over the class's model;
- peft: `PeftModel.from_pretrained`, whose merged weights have to be those of the first adapter.

    pip download --no-deps vllm==0.33.0 sglang==0.5.23
    PYTHONPATH=TREE/gguf-py python scripts/interop/servers_find.py --lora-tool BINARY --vllm WHEEL --sglang WHEEL \\
        --llama-cpp TREE [--class NAME …] [--program NAME …]

What a program has no place for the conversion has to refuse in words, or `check` to say of what it writes
(`NO_PLACE`).
Exit 0: every module is found. 1: some are not.
"""

import argparse
import ast
import json
import logging
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import regex
import torch
import transformers
from llm_classes import CLASSES, EXPERTS, adapted, model_of
from peft import PeftModel
from safetensors.torch import load_file
from wheels import Classes, Wheel

ROOT = "base_model.model."


# What a program's class has in another form than as one matrix, and the words that refuse it.
NO_PLACE = {
    # Two tensors, one of them turned.
    ("deepseek_v3", "llama.cpp"): "self_attn.kv_b_proj: its name in the gguf convention is unknown",
    ("deepseek_v3", "mlx"): "it has kv_b_proj of this class as two matrices",
    # A class without experts.
    ("llama4_text", "mlx"): "mlx-lm's class of the base has no such experts",
    # No class in its converter.
    ("mllama", "llama.cpp"): "its converter has no class for model_type mllama",
}


class Refused(Exception):
    """The program does not take the adapter, or does not find something in it."""


def want(truth, says):
    if not truth:
        raise Refused(says)


def tensors_of(directory):
    found = {}
    for path in sorted(directory.glob("*.safetensors")):
        found |= load_file(path)
    return found


class Vllm:
    MODELS = "vllm/model_executor/models"

    def __init__(self, wheel):
        self.wheel = Wheel(wheel)
        from collections.abc import Mapping
        from dataclasses import dataclass, field, replace

        space = dict(Mapping=Mapping, dataclass=dataclass, field=field, replace=replace, re=regex)
        space = self.wheel.run(f"{self.MODELS}/utils.py", ["WeightsMapper"], space)
        names = ["parse_fine_tuned_lora_name", "is_base_embedding_weights"]
        self.names = self.wheel.run("vllm/lora/utils.py", names, dict(space))
        self.classes = Classes(self.wheel, self.MODELS, space | dict(ClassVar=None, typing=None))
        self.registry = {}
        for node in ast.walk(self.wheel.tree(f"{self.MODELS}/registry.py")):
            if not isinstance(node, ast.Dict):
                continue
            for key, value in zip(node.keys, node.values):
                if key is not None and getattr(value, "elts", None) and len(value.elts) == 2:
                    parts = [getattr(part, "value", None) for part in value.elts]
                    if all(isinstance(part, str) for part in parts):
                        self.registry.setdefault(key.value, parts)

    def expert_names(self, module):
        """Gate, down and up as the class's checkpoints call them."""
        for node in ast.walk(self.wheel.tree(f"{self.MODELS}/{module}.py")):
            if isinstance(node, ast.keyword) and node.arg == "ckpt_names":
                return ast.literal_eval(node.value)
        return ["gate_proj", "down_proj", "up_proj"]  # the default of FusedMoE

    def judge(self, base, adapter, config):
        if config["architectures"][0] not in self.registry:
            raise NotImplementedError("it has no such class any more")
        module, name = self.registry[config["architectures"][0]]
        of_class = lambda attribute, default=None: self.classes.attribute(module, name, attribute, default)
        mapper = of_class("hf_to_vllm_mapper")
        mapper = mapper and mapper.get_rename_mapper()
        mapped = lambda key: mapper.map_name(key) if mapper else key
        known = {mapped(key): value.shape for key, value in tensors_of(base).items()}
        parse = self.names["parse_fine_tuned_lora_name"]
        found, shapes = set(), {}
        for key, value in tensors_of(adapter).items():
            want(not self.names["is_base_embedding_weights"](key), f"{key} is skipped")
            path, is_a = parse(key, mapper)
            shapes.setdefault(path, {})["A" if is_a else "B"] = value.shape
        count = config.get("num_local_experts") or config.get("num_experts") or config.get("n_routed_experts")
        singles = self.expert_names(module)
        layers = {}
        for path, pair in shapes.items():
            want(pair.keys() == {"A", "B"}, f"{path} has no pair")
            holder, experts, rest = path.partition(".experts")
            if experts and of_class("is_3d_moe_weight", False):
                want(rest in ("", ".base_layer"), f"{path} is no stack")
                layers.setdefault(holder, {})[rest] = pair
            elif experts:
                layers.setdefault(holder, {})[rest] = pair
            else:
                shape = known.get(f"{path}.weight")
                want(shape is not None, f"no module {path}")
                want((pair["B"][0], pair["A"][1]) == tuple(shape), f"{path}: {pair} on {shape}")
                found.add(path)
        for holder, parts in layers.items():
            if of_class("is_3d_moe_weight", False):
                want(parts.keys() == {"", ".base_layer"}, f"{holder}: {sorted(parts)}")
                want(all(pair["A"][0] % count == 0 for pair in parts.values()), f"{holder}: ranks")
                found |= {f"{holder}.experts{rest}" for rest in parts}
                continue
            expected = {f".{number}.{one}" for number in range(count) for one in singles}
            want(parts.keys() == expected, f"{holder}: {sorted(parts.keys() ^ expected)[:4]}")
            for one in singles:
                ranks = {pair["A"][0] for rest, pair in parts.items() if rest.endswith(one)}
                want(len(ranks) == 1, f"{holder}: ranks of {one} {ranks}")
            for rest, pair in parts.items():
                shape = known.get(f"{holder}.experts{rest}.weight")
                if shape is None:  # a checkpoint of stacks, inputs × outputs, which its loader cuts
                    stack = "down_proj" if rest.endswith("down_proj") else "gate_up_proj"
                    _, inputs, outputs = known[f"{holder}.experts.{stack}"]
                    shape = (outputs // (1 if stack == "down_proj" else 2), inputs)
                want((pair["B"][0], pair["A"][1]) == tuple(shape), f"{holder}.experts{rest}: {shape}")
            found |= {f"{holder}.experts{rest}" for rest in parts}
        return len(found)


class Sglang:
    LORA = "sglang/srt/lora"

    def __init__(self, wheel):
        wheel = Wheel(wheel)
        common = wheel.run("sglang/srt/layers/utils/common.py", ["get_layer_id"], dict(re=re))
        wanted = ["get_normalized_target_modules", "get_target_module_name"]
        self.utils = wheel.run(f"{self.LORA}/utils.py", wanted, dict(re=re))
        space = dict(re=re, torch=torch, nn=torch.nn, logger=logging.getLogger("sglang"))
        space |= dict(get_layer_id=common["get_layer_id"])
        wanted = ["LoRALayer", "LoRAAdapter", "_ROUTED_EXPERT_PATTERN"]
        self.space = wheel.run(f"{self.LORA}/lora.py", wanted, space)
        # `_process_weight` imports this one where it runs.
        sys.modules["sglang.srt.lora.utils"] = SimpleNamespace(**self.utils)
        for name in ("sglang", "sglang.srt", "sglang.srt.lora"):
            sys.modules.setdefault(name, SimpleNamespace(__path__=[]))

    def judge(self, base, adapter, config):
        peft = json.loads((adapter / "adapter_config.json").read_text())
        text = config.get("text_config", config)
        settings = SimpleNamespace(num_hidden_layers=text["num_hidden_layers"], architectures=[], model_type="")
        own = SimpleNamespace(hf_config=peft, r=peft["r"], lora_alpha=peft["lora_alpha"])
        own.target_modules, own.lora_added_tokens_size = peft["target_modules"], 0
        model = self.space["LoRAAdapter"]("one", own, settings, None, None, None)
        tensors = tensors_of(adapter)
        model.initialize_weights_from_tensors(tensors)
        targets = self.utils["get_normalized_target_modules"](peft["target_modules"])
        rows = 0
        for layer in model.layers:
            for name, value in layer.weights.items():
                self.utils["get_target_module_name"](name, targets)
                parts = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "base_layer")
                left = [part for part in parts if f".{part}." in name]
                want(not left, f"{name} is left over")
                if "lora_A" in name:
                    rows += value.shape[0]
        taken = sum(value.shape[0] for key, value in tensors.items() if "lora_A" in key)
        want(rows == taken, f"{rows} directions of {taken}")
        return sum("lora_A" in key for key in tensors)


class LlamaCpp:
    def __init__(self, tree):
        from llama_cpp_loads import LlamaCpp as Own

        self.own = Own(tree, None)

    def judge(self, base, adapter, config):
        out = base.parent / "base.gguf"
        try:
            if not out.exists():
                self.own.model(base, out)
        except Exception as error:
            out.unlink(missing_ok=True)
            raise NotImplementedError(f"llama.cpp does not convert this base: {error!r}"[:120]) from error
        there, own = self.own.tensors(out), self.own.tensors(adapter)
        for name, value in own.items():
            stem, _, part = name.rpartition(".")
            want(stem in there and part in ("lora_a", "lora_b"), f"no tensor {stem}")
            want(f"{stem}.lora_a" in own and f"{stem}.lora_b" in own, f"{stem} has no pair")
            weight = there[stem].shape
            weight = (1, *weight) if len(weight) == 1 else weight  # ggml forgets ones in front
            pair = (*own[f"{stem}.lora_a"].shape[:-2], own[f"{stem}.lora_b"].shape[-2], own[f"{stem}.lora_a"].shape[-1])
            want(tuple(weight) == tuple(pair), f"{stem}: {pair} on {tuple(weight)}")
        return len(own) // 2


class Mlx:
    def judge(self, base, adapter, config):
        import mlx.core as mx
        from mlx.utils import tree_flatten
        from mlx_lm.tuner.utils import load_adapters
        from mlx_lm.utils import _get_classes

        try:
            model_class, arguments = _get_classes(config)
        except ValueError as error:
            raise NotImplementedError(str(error)) from error
        # Its classes read what releases of transformers before 5 wrote.
        text = config.get("text_config", config)
        text.setdefault("rope_theta", 10000.0)
        text.setdefault("num_experts", text.get("num_local_experts", 0))
        model = model_class(arguments.from_dict(config))
        load_adapters(model, str(adapter))
        weights = dict(tree_flatten(model.parameters()))
        given = tensors_of(adapter)
        zero = [name for name, value in weights.items() if name.endswith("lora_b") and not mx.any(value).item()]
        want(not zero, f"{zero[:3]} got nothing")
        return len(given) // 2


class Peft:
    def judge(self, base, adapter, config):
        import warnings

        name = base.parent.name
        def merged(path):
            model = type(model_of(name)).from_pretrained(base, dtype=torch.float32)
            return PeftModel.from_pretrained(model, path).merge_and_unload().state_dict()

        before = model_of(name).state_dict()
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            ours, first = merged(adapter), merged(base.parent / "adapter")
        moved = max((first[key] - before[key]).abs().max().item() for key in first)
        off = max((first[key] - ours[key]).abs().max().item() for key in first)
        want(off <= 1e-6 * moved, f"merged weights differ by {off / moved:.1e}")
        return sum("lora_A" in key for key in tensors_of(adapter))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lora-tool", required=True, type=Path)
    parser.add_argument("--vllm", type=Path)
    parser.add_argument("--sglang", type=Path)
    parser.add_argument("--llama-cpp", type=Path)
    parser.add_argument("--class", dest="classes", action="append", choices=CLASSES)
    parser.add_argument("--program", dest="programs", action="append")
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    judges = {"peft": Peft, "mlx": Mlx}
    for name, kind in {"vllm": Vllm, "sglang": Sglang, "llama_cpp": LlamaCpp}.items():
        if (path := getattr(options, name)) is not None:
            judges[name.replace("_cpp", ".cpp")] = lambda kind=kind, path=path: kind(path.resolve())
    judges = {name: judge() for name, judge in judges.items() if name in (options.programs or judges)}
    wrong = 0
    for name in options.classes or CLASSES:
        with tempfile.TemporaryDirectory() as scratch:
            scratch = Path(scratch) / name
            scratch.mkdir()
            base, adapter, own, parameters = adapted(name, scratch)
            config = json.loads((base / "config.json").read_text())
            for program, judge in judges.items():
                out = scratch / (program + (".gguf" if program == "llama.cpp" else ""))
                command = [options.lora_tool, "convert", adapter, "--for", program, "--reference", base, "-o", out]
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
                refused = NO_PLACE.get((name, program))
                try:
                    if refused is not None:
                        command = [options.lora_tool, "check", out, "--for", program, "--against", base]
                        check = subprocess.run(list(map(str, command)), capture_output=True, text=True)
                        want(refused in done.stderr + " ".join(check.stdout.split()), done.stderr + check.stdout)
                        print(f"{name:12} {program:10} refused: {refused}", flush=True)
                        continue
                    want(done.returncode == 0, done.stderr.strip().replace("\n", " "))
                    said = f"{judge.judge(base, out, config)} modules found"
                except NotImplementedError as error:
                    said = f"not judged: {error}"
                except Exception as error:
                    wrong += 1
                    said = f"WRONG: {error!r}"
                print(f"{name:12} {program:10} {len(own)} layers, {len(parameters)} parameters: {said}", flush=True)
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
