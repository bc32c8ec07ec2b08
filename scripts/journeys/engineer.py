"""An engineer of language models: four adapters by PEFT for one Llama, blended, served, merged, and taken out again.

    python engineer.py LORA_TOOL FOLDER      (torch, transformers, peft; FOLDER is made)

Model and adapters are made by transformers and PEFT, at random; every result is loaded by them again, and its logits are
compared with PEFT's own. Errors are relative to what the adapters change: ‖logits − PEFT's‖ / ‖PEFT's − the base's‖.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from shown import Tool, arguments, digests, tell
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    "chat": {"r": 8, "lora_alpha": 16},
    "code": {"r": 16, "lora_alpha": 32, "use_rslora": True},
    "math": {"r": 64, "lora_alpha": 64},
    "dora": {"r": 16, "lora_alpha": 16, "use_dora": True},
}
TOKENS = torch.arange(96).reshape(3, 32) * 7 % 512


def make_base(place: Path) -> LlamaForCausalLM:
    """Six layers, 192 wide, in three shards."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=512, hidden_size=192, intermediate_size=384, num_hidden_layers=6, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=64))
    model.save_pretrained(place, max_shard_size="3MB")
    return model.eval()


def make_adapter(base: LlamaForCausalLM, place: Path, seed: int, options: dict[str, object]) -> None:
    """An adapter whose singular values fall off as a trained one's do."""
    torch.manual_seed(seed)
    model = get_peft_model(copy.deepcopy(base), LoraConfig(target_modules=LINEAR, **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            fall = 1 / (1 + torch.arange(parameter.shape[1]))
            parameter.data = 0.02 * torch.randn_like(parameter) * fall
    model.peft_config["default"].base_model_name_or_path = "base"
    model.save_pretrained(place)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits.double()


def merged_by_peft(base: LlamaForCausalLM, *adapters: Path) -> torch.Tensor:
    """Logits of the base with adapters merged by PEFT one after the other."""
    model = copy.deepcopy(base)
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return logits(model)


def main() -> None:
    binary, folder = arguments()
    tool, base = Tool(binary, folder), make_base(folder / "base")
    for seed, (name, options) in enumerate(ADAPTERS.items(), 1):
        make_adapter(base, folder / "adapters" / name, seed, dict(options))
    assert len(list((folder / "base").glob("*.safetensors"))) == 3
    plain = logits(base)

    def error(found: torch.Tensor, expected: torch.Tensor) -> float:
        return float((found - expected).norm() / (expected - plain).norm())

    def loaded(name: str) -> torch.Tensor:
        return logits(AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32))

    print("# What is there, and do they get along?")
    said = tool("list adapters")
    assert all(name in said for name in ADAPTERS) and "rslora" in said.lower(), said
    tool("inspect adapters/code --against base")
    tool("compare adapters/chat adapters/code adapters/math -w 0.7 0.3 0.5")

    print("\n# One adapter of two, and one that vLLM takes")
    tool("combine adapters/chat adapters/code -w 0.7 0.3 -o blend")
    both = PeftModel.from_pretrained(copy.deepcopy(base), str(folder / "adapters/chat"), adapter_name="chat")
    both.load_adapter(str(folder / "adapters/code"), adapter_name="code")
    both.add_weighted_adapter(["chat", "code"], [0.7, 0.3], "sum", combination_type="cat")
    both.set_adapter("sum")
    blend = logits(both)
    tell("blend against PEFT's cat, logits", error(merged_by_peft(base, folder / "blend"), blend), 1e-5)
    said = tool("check blend --for vllm --max-rank 16", code=1)
    assert "--rank 16" in said, said
    said = tool("convert blend --for vllm -o blend-vllm")
    assert "--max-lora-rank 32" in said, said
    tell("blend for vLLM", error(merged_by_peft(base, folder / "blend-vllm"), blend), 1e-5)
    said = tool("check blend-vllm --for vllm")
    assert "--max-lora-rank" in said, said
    tool("resize adapters/math --explore")
    tool("resize adapters/math --rank 16 -o math-16")
    report = tool.report("resize adapters/math --rank 16 -o math-16 -n --force")
    config = json.loads((folder / "math-16/adapter_config.json").read_text())
    assert config["r"] == 16 and 0.9 < report["energy_kept"] < 1, report["energy_kept"]

    print("\n# Into the model, and out again")
    tool("merge base blend -o merged --verify --receipt merged.receipt --card")
    tell("merged, loaded by transformers", error(loaded("merged"), blend), 1e-5)
    tool("verify merged")
    tool("merge base adapters/chat adapters/dora -o chat-dora")
    expected = merged_by_peft(base, folder / "adapters/chat", folder / "adapters/dora")
    tell("chat, then DoRA, against PEFT one after the other", error(loaded("chat-dora"), expected), 1e-5)
    said = tool("merge base adapters/dora adapters/chat -o wrong", code=2)
    assert "name that adapter last" in said, said
    tool("extract base merged --rank auto -o found")
    report = tool.report("inspect found")
    ranks = {int(rank) for rank in report["items"][0]["ranks"]}
    print(f"  ==> ranks found: {sorted(ranks)}")
    assert ranks == {24}, ranks
    tell("extracted against the blend", error(merged_by_peft(base, folder / "found"), blend), 1e-3)
    tool("diff blend found")
    tool("undo merged --receipt merged.receipt -o base-again")
    assert digests(folder / "base-again") == digests(folder / "base")
    print("\nthe engineer's journey holds")


main()
