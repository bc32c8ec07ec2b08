"""What PEFT does for a line of the table: `peer_peft.py merge|combine …`."""

import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def load(base):
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)


def merge(base, adapter, out):
    PeftModel.from_pretrained(load(base), adapter).merge_and_unload().save_pretrained(out)


def combine(base, first, second, rank, out):
    model = PeftModel.from_pretrained(load(base), first, adapter_name="first")
    model.load_adapter(second, adapter_name="second")
    model.add_weighted_adapter(["first", "second"], [0.7, 0.3], "both", combination_type="svd",
                               svd_rank=int(rank))
    model.save_pretrained(out, selected_adapters=["both"])


{"merge": merge, "combine": combine}[sys.argv[1]](*sys.argv[2:])
