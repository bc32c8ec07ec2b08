"""Reads an adapter that lora-tool converted for llama.cpp with the gguf package, and compares it with
the PEFT adapter it was made of, rows put back as llama.cpp's own converter would have ordered them.

    python gguf_reads.py PEFT_DIRECTORY CONVERTED.gguf BASE_DIRECTORY     (pip install gguf)
"""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from safetensors.numpy import load_file

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def permute(weights, heads):
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py."""
    rows = weights.shape[0]
    return weights.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(weights.shape)


def pattern(config, field, default, module):
    import re

    for key, value in config.get(field, {}).items():
        if re.match(rf"^(.*\.)?({key})$", module):
            return value
    return default


def main(peft, converted, base):
    reader = GGUFReader(converted)
    base = json.loads((Path(base) / "config.json").read_text())
    config = json.loads((Path(peft) / "adapter_config.json").read_text())
    text = lambda key: bytes(reader.fields[key].parts[-1]).decode()
    alpha = float(reader.fields["adapter.lora.alpha"].parts[-1][0])
    print(text("general.type"), text("general.architecture"), text("adapter.type"), "alpha", alpha)
    tensors = {t.name: t.data.reshape(list(reversed([int(n) for n in t.shape]))) for t in reader.tensors}
    source = load_file(Path(peft) / "adapter_model.safetensors")
    worst, count = 0.0, 0
    for key in source:
        if not key.endswith(".lora_A.weight"):
            continue
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        down = source[key].astype(np.float64)
        up = source[key.replace("lora_A", "lora_B")].astype(np.float64)
        rank = pattern(config, "rank_pattern", config["r"], module)
        scale = pattern(config, "alpha_pattern", config["lora_alpha"], module)
        scale /= rank**0.5 if config.get("use_rslora") else rank
        if module == "lm_head":
            name = "output"
        else:
            layer, rest = module.removeprefix("model.layers.").split(".", 1)
            name = f"blk.{layer}.{NAMES[rest]}"
        heads = base["num_attention_heads"]
        if base["model_type"] in ("llama", "mistral"):
            if name.endswith("attn_q"):
                up = permute(up, heads)
            if name.endswith("attn_k"):
                up = permute(up, base.get("num_key_value_heads", heads))
        a = tensors.pop(f"{name}.weight.lora_a").astype(np.float64)
        b = tensors.pop(f"{name}.weight.lora_b").astype(np.float64)
        # llama-export-lora: alpha ? alpha / rank : 1, the rank that of lora_b.
        theirs = (alpha / b.shape[1] if alpha else 1.0) * b @ a
        ours = scale * up @ down
        worst = max(worst, np.linalg.norm(theirs - ours) / max(np.linalg.norm(ours), 1e-300))
        count += 1
    print(f"{count} modules, worst relative error {worst:.2e}, {len(tensors)} tensors left over")
    return 0 if worst < 1e-6 and not tensors else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
