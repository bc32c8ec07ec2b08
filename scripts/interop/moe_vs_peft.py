#!/usr/bin/env python3
"""Compare merges of experts with PEFT, on tiny random mixtures of experts.

For each model of transformers and each kind of adapter (whole parameters, by
`target_parameters`; or single experts, as transformers 4 had them), PEFT's
merge_and_unload and `lora-tool merge` are compared tensor by tensor: into a base that
stores experts as transformers' modules do, and into one as hub checkpoints do. Adapters
of whole parameters are also converted for llama.cpp (read by gguf, where it is
installed), and resized losslessly and converted, and PEFT has to merge what comes out
to the same.
Exit 0: all agree. 1: some do not.
"""

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

try:
    import gguf
except ImportError:
    gguf = None

SMALL = dict(
    vocab_size=64,
    hidden_size=24,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    tie_word_embeddings=False,
)
QWEN = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, decoder_sparse_step=1)
MODELS = {
    "qwen3_moe": ("qwen3_moe", QWEN),
    "qwen2_moe": ("qwen2_moe", QWEN | dict(shared_expert_intermediate_size=16)),
    "mixtral": ("mixtral", dict(num_local_experts=4, num_experts_per_tok=2)),
    "olmoe": ("olmoe", dict(num_experts=4, num_experts_per_tok=2)),
    "gpt_oss": ("gpt_oss", dict(num_local_experts=4, num_experts_per_tok=2)),
    "llama4": (
        "llama4_text",
        dict(num_local_experts=4, intermediate_size_mlp=20, interleave_moe_layer_step=1),
    ),
}
# Targets, and what else the config says.
KINDS = {
    "both": (["experts.gate_up_proj", "experts.down_proj"], {}),
    "both, alone by name": (["down_proj", "gate_up_proj"], {}),
    "gate and up": (["experts.gate_up_proj"], {}),
    "down": (["experts.down_proj"], {}),
    "one layer": (["1.mlp.experts.gate_up_proj", "1.mlp.experts.down_proj"], {}),
    "patterns": (
        ["experts.gate_up_proj", "experts.down_proj"],
        dict(
            rank_pattern={"experts.gate_up_proj": 5},
            alpha_pattern={r"1\..*down_proj": 3},
            use_rslora=True,
        ),
    ),
    "attention too": (
        ["experts.gate_up_proj", "experts.down_proj"],
        dict(target_modules=["q_proj", "v_proj"]),
    ),
}


def model_of(name):
    model_type, own = MODELS[name]
    torch.manual_seed(7)
    config = AutoConfig.for_model(model_type, **(SMALL | own))
    return AutoModelForCausalLM.from_config(config).float().eval()


def randomise(model):
    torch.manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())


def state(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def reload(directory, kept):
    """What transformers loads from a merged checkpoint, as the module's own tensors."""
    if kept == "modules":
        return load_file(directory / "model.safetensors")
    return state(AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32))


def distance(ours, theirs, before):
    if set(ours) != set(theirs):
        return float("inf"), 0.0
    moved = max((theirs[name] - before[name]).abs().max().item() for name in theirs)
    off = max((ours[name] - theirs[name]).abs().max().item() for name in theirs)
    return off / moved, moved


def bases(name, scratch):
    """The model as its modules are, and as save_pretrained writes it."""
    model = model_of(name)
    hub, own = scratch / "hub", scratch / "modules"
    model.save_pretrained(hub)
    own.mkdir()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, own / "model.safetensors")
    (own / "config.json").write_text((hub / "config.json").read_text())
    return {"hub": hub, "modules": own}


def single_experts(name, directory):
    """An adapter of single experts' projections, as PEFT wrote it over transformers 4."""
    config = model_of(name).config
    hidden = config.hidden_size
    inner = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    mixtral = name == "mixtral"
    names = ["w1", "w3", "w2"] if mixtral else ["gate_proj", "up_proj", "down_proj"]
    container = "block_sparse_moe" if mixtral else "mlp"
    torch.manual_seed(13)
    tensors = {}
    for layer in range(config.num_hidden_layers):
        for expert in range(4):
            for at, own in enumerate(names):
                outputs, inputs = (hidden, inner) if at == 2 else (inner, hidden)
                path = f"base_model.model.model.layers.{layer}.{container}.experts.{expert}.{own}"
                tensors[f"{path}.lora_A.weight"] = torch.randn(2, inputs) * 0.2
                tensors[f"{path}.lora_B.weight"] = torch.randn(outputs, 2) * 0.2
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    LoraConfig(r=2, lora_alpha=3, target_modules=names, task_type="CAUSAL_LM").save_pretrained(directory)


class Comparison:
    def __init__(self, lora_tool, tolerance):
        self.lora_tool, self.tolerance, self.bad, self.count = lora_tool, tolerance, 0, 0
        self.worst = 0.0

    def add(self, label, off, moved, tolerance=None):
        """Of one with a tolerance of its own the worst is not kept."""
        good = off <= (tolerance or self.tolerance) and moved > 0
        self.count += 1
        self.bad += not good
        self.worst = self.worst if tolerance else max(self.worst, off)
        print(f"{'ok ' if good else 'BAD'} {label:58} {off:9.1e} of {moved:.3f}", flush=True)

    def fail(self, label, error):
        self.count += 1
        self.bad += 1
        print(f"BAD {label:58} {error}", flush=True)

    def merge(self, label, adapter, directories, theirs, before, scratch):
        for kept, base in directories.items():
            out = scratch / f"merged-{self.count}"
            try:
                run(self.lora_tool, "-q", "merge", base, adapter, "-o", out, "--verify")
                self.add(f"{label}, {kept}", *distance(reload(out, kept), theirs, before))
            except RuntimeError as error:
                self.fail(f"{label}, {kept}", error)


def parameters(comparison, name, kind, directories, scratch):
    targets, more = KINDS[kind]
    model = model_of(name)
    if name == "llama4":
        targets = [target.replace("mlp", "feed_forward") for target in targets]
    before = state(model)
    adapter = scratch / "adapter"
    options = dict(r=3, lora_alpha=5, target_modules=[], target_parameters=targets) | more
    peft = get_peft_model(model, LoraConfig(**options))
    randomise(peft)
    peft.save_pretrained(adapter)
    theirs = state(peft.merge_and_unload())
    label = f"{name}, {kind}"
    comparison.merge(label, adapter, directories, theirs, before, scratch)
    for verb, arguments in [
        ("resize", ["resize", adapter, "--rank", "lossless"]),
        ("convert", ["convert", adapter, "--to", "peft"]),
    ]:
        out = scratch / verb
        try:
            run(comparison.lora_tool, "-q", *arguments, "-o", out)
            again = PeftModel.from_pretrained(model_of(name), out).merge_and_unload()
            comparison.add(f"{label}, after {verb}", *distance(state(again), theirs, before))
        except Exception as error:  # whatever PEFT raises
            comparison.fail(f"{label}, after {verb}", repr(error))


def stacks_of_llama_cpp(comparison, name, directories, scratch):
    """The converted GGUF file, read by the gguf package, against what PEFT's merge changed."""
    model = model_of(name)
    before = state(model)
    targets = KINDS["both"][0]
    peft = get_peft_model(
        model, LoraConfig(r=3, lora_alpha=5, target_modules=[], target_parameters=targets)
    )
    randomise(peft)
    peft.save_pretrained(scratch / "adapter")
    theirs = state(peft.merge_and_unload())
    out = scratch / "out.gguf"
    arguments = ["convert", scratch / "adapter", "--to", "gguf", "--reference", directories["hub"]]
    run(comparison.lora_tool, "-q", *arguments, "-o", out)
    reader = gguf.GGUFReader(out)
    alpha = float(reader.fields["adapter.lora.alpha"].parts[-1][0])
    tensors = {
        tensor.name: torch.tensor(tensor.data).reshape([int(n) for n in reversed(tensor.shape)])
        for tensor in reader.tensors
    }

    def delta(layer, stack):
        place = f"blk.{layer}.{stack}.weight"
        up, down = tensors.pop(f"{place}.lora_b"), tensors.pop(f"{place}.lora_a")
        # llama.cpp: alpha / rank, or 1 without an alpha.
        return (alpha / up.shape[2] if alpha else 1.0) * up @ down

    ours = dict(before)
    for layer in range(2):
        gate, up, down = (delta(layer, f"ffn_{kind}_exps") for kind in ("gate", "up", "down"))
        experts = f"model.layers.{layer}.mlp.experts"
        for own, change in (("gate_up_proj", torch.cat([gate, up], 1)), ("down_proj", down)):
            ours[f"{experts}.{own}"] = before[f"{experts}.{own}"] + change
    off, moved = distance(ours, theirs, before)
    comparison.add(f"{name}, GGUF", float("inf") if tensors else off, moved)


def experts(comparison, name, directories, scratch):
    adapter = scratch / "adapter"
    single_experts(name, adapter)
    model = model_of(name)
    before = state(model)
    theirs = state(PeftModel.from_pretrained(model, adapter).merge_and_unload())
    comparison.merge(f"{name}, single experts", adapter, directories, theirs, before, scratch)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lora-tool", default="target/release/lora-tool")
    parser.add_argument("--tolerance", type=float, default=3e-6)
    parser.add_argument("--model", choices=MODELS, action="append")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    comparison = Comparison(arguments.lora_tool, arguments.tolerance)
    for name in arguments.model or MODELS:
        with tempfile.TemporaryDirectory() as directory:
            directories = bases(name, Path(directory))
            for kind in KINDS:
                with tempfile.TemporaryDirectory() as scratch:
                    parameters(comparison, name, kind, directories, Path(scratch))
            if gguf and name in ("qwen3_moe", "qwen2_moe", "mixtral"):
                with tempfile.TemporaryDirectory() as scratch:
                    stacks_of_llama_cpp(comparison, name, directories, Path(scratch))
            if name in ("qwen3_moe", "mixtral"):  # PEFT converts these
                with tempfile.TemporaryDirectory() as scratch:
                    experts(comparison, name, directories, Path(scratch))
    print(f"{comparison.count} cases, {comparison.bad} bad, worst {comparison.worst:.1e}")
    return 1 if comparison.bad else 0


if __name__ == "__main__":
    sys.exit(main())
