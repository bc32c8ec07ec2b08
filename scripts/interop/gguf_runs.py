#!/usr/bin/env python3
"""Merged GGUF files in llama.cpp itself: its logits, against those of transformers for the dense merge.

A tiny random Llama, converted by llama.cpp's own converter and quantised by lora-tool, is merged with `--types auto`,
`keep` and a few others; each result is decoded by llama.cpp. Its logits are those that transformers computes with the numbers that the file holds, but for
activations of 8 bits, and differ from the dense merge's by no more than the rounding of the weights. Exit 0: all agree. 1: some do not.

Needs a source tree of llama.cpp with its `gguf-py` in PYTHONPATH, and llama-cpp-python.
"""

import argparse
import ctypes
import sys
import tempfile
from pathlib import Path

import torch
from llama_cpp_loads import TOKENS, LlamaCpp
from moe_vs_peft import randomise, run
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

import llama_cpp as api

SIZES = dict(
    vocab_size=64, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=64, max_position_embeddings=64, pad_token_id=0,
)
OWN = ["q4_k", "q6_k", "q8_0", "q4_0"]
# llama.cpp multiplies quantised weights with activations of 8 bits.
ACTIVATIONS = 0.03
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def logits(path):
    model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp does not load {path}")
    params = api.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 64
    params.type_k = params.type_v = 0  # f32
    params.flash_attn_type = 0
    context = api.llama_init_from_model(model, params)
    batch = api.llama_batch_init(len(TOKENS), 0, 1)
    batch.n_tokens = len(TOKENS)
    for at, token in enumerate(TOKENS):
        batch.token[at], batch.pos[at], batch.logits[at] = token, at, 1
        batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
    if api.llama_decode(context, batch):
        raise RuntimeError("llama.cpp does not decode")
    values = api.llama_get_logits(context)[: len(TOKENS) * SIZES["vocab_size"]]
    found = torch.tensor(values).reshape(len(TOKENS), -1)
    api.llama_free(context)
    api.llama_model_free(model)
    return found


def dense(directory):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0]


def off(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def judge(tool, scratch, label, after):
    """Whether llama.cpp's logits are those of the numbers that the file holds, and so no further from the dense merge's."""
    tool(scratch / "out.gguf", scratch / "zero", "-o", scratch / "held", "-f", "--reference", scratch / "hub")
    found, held = logits(scratch / "out.gguf"), dense(scratch / "held")
    own, moved, rounding = off(found, held), off(found, after), off(held, after)
    fits = own <= ACTIVATIONS and moved <= rounding + ACTIVATIONS
    print(f"{label:12} off its own numbers {own:.4f}, off the dense merge {moved:.4f}, rounding's {rounding:.4f}",
          "" if fits else "BAD", flush=True)
    return not fits


def make(scratch, llama):
    """The model, its GGUF file, an adapter and one that changes nothing."""
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZES)).float()
    model.save_pretrained(scratch / "hub")
    llama.model(scratch / "hub", scratch / "f32.gguf")
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR, task_type="CAUSAL_LM"))
    # Its factors B are zeros: a merge of it quantises the base.
    peft.save_pretrained(scratch / "zero", save_embedding_layers=False)
    randomise(peft)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.mul_(0.25)
    peft.save_pretrained(scratch / "adapter", save_embedding_layers=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--llama-cpp", type=Path, required=True, help="its source tree")
    parser.add_argument("--lora-tool", default="target/release/lora-tool")
    arguments = parser.parse_args()
    llama, bad = LlamaCpp(arguments.llama_cpp, None), 0
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        make(scratch, llama)
        tool = lambda *words: run(arguments.lora_tool, "-q", "merge", *words)
        tool(scratch / "hub", scratch / "adapter", "-o", scratch / "dense")
        before, after, out = dense(scratch / "hub"), dense(scratch / "dense"), scratch / "out.gguf"
        print(f"the adapter moves logits by {off(after, before):.3f}")
        for own in OWN:
            base = scratch / f"{own}.gguf"
            tool(scratch / "hub", scratch / "zero", "-o", base, "--reference", scratch / "f32.gguf", "--types", own)
            for types in ["auto", "keep"]:
                tool(base, scratch / "adapter", "-o", out, "-f", "--types", types, "--min-survival", "0.5")
                bad += judge(tool, scratch, f"{own} {types}", after)
        # From the dense base at once: rounded once.
        for types in ["q4_k", "q6_k"]:
            tool(scratch / "hub", scratch / "adapter", "-o", out, "-f", "--types", types, "--min-survival", "0.5",
                 "--reference", scratch / "f32.gguf")
            bad += judge(tool, scratch, f"{types} once", after)
    print(f"{bad} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
