#!/usr/bin/env python3
"""Merges from GGUF to transformers and back, on tiny random models that llama.cpp's own converter converted.

For each model: a GGUF base merged with `--reference HF` is the merge of the HF base, tensor by tensor, and transformers
loads it; the HF base merged with `--reference BASE.gguf -o OUT.gguf` is what the converter makes of the merged HF base.

Needs a source tree of llama.cpp with its `gguf-py` in PYTHONPATH. With `--fixture FILE` it converts
`fixtures/llama/base` to that file, and nothing else. Exit 0: all agree. 1: some do not.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from llama_cpp_loads import EXPERTS, MODELS, NAMED, LlamaCpp, make_adapter, save_model
from moe_vs_peft import run
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

# A norm that is stored plus one has lost some of its last digits.
TOLERANCE = 1.5e-7


def largest(found, expected):
    """The largest difference, or infinity if names or shapes differ."""
    if found.keys() != expected.keys():
        print("names:", sorted(found.keys() ^ expected.keys())[:6])
        return float("inf")
    if any(found[name].shape != expected[name].shape for name in found):
        return float("inf")
    return max((found[name].double() - expected[name].double()).abs().max().item() for name in found)


def judge(name, llama, tool, scratch):
    hub, base, adapter = scratch / "hub", scratch / "base.gguf", scratch / "adapter"
    save_model(name, hub)
    llama.model(hub, base)
    # llama.cpp has experts in stacks, and PEFT's layers of one are no GGUF base's modules by name.
    make_adapter(name, "patterns" if name in EXPERTS else "linear" if name in MODELS else "all layers", adapter)
    merge = lambda *words: run(tool, "-q", "merge", *words)
    merge(hub, adapter, "-o", scratch / "expected")
    merge(base, adapter, "-o", scratch / "found", "--reference", hub)
    load = lambda directory: load_file(directory / "model.safetensors")
    off = largest(load(scratch / "found"), load(scratch / "expected"))
    AutoModelForCausalLM.from_pretrained(scratch / "found")
    merge(hub, adapter, "-o", scratch / "out.gguf", "--reference", base)
    llama.model(scratch / "expected", scratch / "theirs.gguf")
    back = largest(llama.tensors(scratch / "out.gguf"), llama.tensors(scratch / "theirs.gguf"))
    run(tool, "-q", "verify", scratch / "out.gguf", "--base", hub, "--adapter", adapter, "--reference", base)
    print(f"{name:10} to transformers {off:.1e}, to GGUF {back:.1e}", flush=True)
    return off <= TOLERANCE and back <= TOLERANCE


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--llama-cpp", type=Path, required=True, help="its source tree")
    parser.add_argument("--lora-tool", default="target/release/lora-tool")
    parser.add_argument("--model", choices=MODELS | NAMED, action="append")
    parser.add_argument("--fixture", type=Path)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    llama = LlamaCpp(arguments.llama_cpp, None)
    if arguments.fixture:
        llama.model(Path("fixtures/llama/base"), arguments.fixture, "MOSTLY_BF16")
        return 0
    bad = 0
    models = [*MODELS, "granite", "smollm3", "ernie4_5"]
    for name in arguments.model or [name for name in models if name != "gpt2"]:
        with tempfile.TemporaryDirectory() as scratch:
            bad += not judge(name, llama, arguments.lora_tool, Path(scratch))
    print(f"{bad} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
