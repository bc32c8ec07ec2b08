"""Merges into quantised bases, opened by transformers on the CPU.

usage: quantised_loads.py --lora-tool BINARY [--seed N]

Tiny Llama and Qwen2 models, quantised as fp8 in blocks (transformers), int4 (compressed-tensors) and NF4
(bitsandbytes), and an adapter of some layers. What `merge --quantized 16bit`, `hybrid` and `requantize` write is
opened with AutoModelForCausalLM.from_pretrained: no weight may be missing or left over, and logits are compared with
those of a dense model in f32 whose weights are W + s B A of the dequantised base (for requantize: of the package's own
reading of the output). bf16 computing moves logits of such models by about 1 % of their norm: the bound is 3 %.

Exit status: 0 if all agree, 1 if not. Packages: requirements-quantised.txt."""
import argparse, json, os, shutil, subprocess, sys, tempfile
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config
from quantisers import bitsandbytes_, compressed, fp8

MODELS = {"llama": LlamaConfig, "qwen2": Qwen2Config}
BOUND = 0.03
LINEAR = "_proj.weight"


def schemes():
    return {
        "fp8 block": fp8.Blocks((128, 128), False),
        "int4": compressed.Compressed("int4", "pack-quantized", num_bits=4, strategy="group", group_size=128),
        "nf4": bitsandbytes_.FourBit("nf4", False, 64),
    }


def make(root, scheme, kind, rng):
    """A quantised model and its weights in f32 as the package reads them, and an adapter with its updates."""
    config = MODELS[kind](hidden_size=256, intermediate_size=384, num_hidden_layers=2, num_attention_heads=4,
                          num_key_value_heads=2, vocab_size=96, tie_word_embeddings=False, torch_dtype="bfloat16")
    torch.manual_seed(int(rng.integers(1 << 30)))
    dense = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights, tensors = dense.state_dict(), {}
    for name, weight in weights.items():
        if not name.endswith(LINEAR):
            tensors[name] = weight.to(torch.bfloat16)
            weights[name] = tensors[name].float()
            continue
        stored = scheme.store(name, weight)
        tensors |= stored
        weights[name] = scheme.read(name, stored, weight.shape)
    os.makedirs(f"{root}/base")
    save_file(tensors, f"{root}/base/model.safetensors", {"format": "pt"})
    fields = json.loads(config.to_json_string(use_diff=False)) | scheme.config(["lm_head"])
    fields |= {"dtype": "bfloat16", "architectures": [type(dense).__name__]}
    json.dump(fields, open(f"{root}/base/config.json", "w"))
    factors, updates = {}, {}
    for module in ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "model.layers.1.self_attn.v_proj"]:
        weight = weights[f"{module}.weight"]
        down = torch.from_numpy(rng.standard_normal((4, weight.shape[1])).astype(np.float32)) * 0.02
        up = torch.from_numpy(rng.standard_normal((weight.shape[0], 4)).astype(np.float32)) * 0.3
        factors |= {f"base_model.model.{module}.lora_A.weight": down, f"base_model.model.{module}.lora_B.weight": up}
        updates[f"{module}.weight"] = 2 * (up @ down)
    os.makedirs(f"{root}/adapter")
    save_file(factors, f"{root}/adapter/adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    json.dump(settings, open(f"{root}/adapter/adapter_config.json", "w"))
    return dense, weights, updates


@torch.inference_mode()
def logits(model, tokens):
    return model(input_ids=tokens).logits.float()


def loaded(path):
    """The model as transformers opens it, and names that it missed or did not know."""
    model, about = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    strays = sorted({*about["missing_keys"], *about["unexpected_keys"]} | {str(key) for key in about["mismatched_keys"]})
    return model.eval(), strays


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lora-tool", required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng, good, total = np.random.default_rng(options.seed), 0, 0
    print("| model | base | written as | strays | logits | the adapter moves them |\n|---|---|---|---|---|---|")
    for kind in MODELS:
        for base, scheme in schemes().items():
            root = tempfile.mkdtemp()
            dense, weights, updates = make(root, scheme, kind, rng)
            tokens = torch.from_numpy(rng.integers(0, 96, (2, 12)))
            dense.load_state_dict(weights)
            before = logits(dense, tokens)
            for mode in ["16bit", "hybrid", "requantize"]:
                total += 1
                command = [options.lora_tool, "merge", f"{root}/base", f"{root}/adapter", "-o", f"{root}/{mode}",
                           "--quantized", mode, *(["--min-survival", "0"] if mode == "requantize" else [])]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    print(f"| {kind} | {base} | {mode} | **{done.stderr.strip()}** | | |", flush=True)
                    continue
                changed = {name: weights[name] + update for name, update in updates.items()}
                if mode == "requantize":
                    stored = load_file(f"{root}/{mode}/model.safetensors")
                    changed = {name: scheme.read(name, stored, value.shape) for name, value in changed.items()}
                dense.load_state_dict(weights | changed)
                expected = logits(dense, tokens)
                try:
                    model, strays = loaded(f"{root}/{mode}")
                    off = float((logits(model, tokens) - expected).norm() / expected.norm())
                except Exception as error:
                    print(f"| {kind} | {base} | {mode} | **{type(error).__name__}: {str(error)[:200]}** | | |", flush=True)
                    continue
                moved = float((expected - before).norm() / before.norm())
                fine = not strays and off < BOUND < moved
                good += fine
                mark = "" if fine else "**"
                print(f"| {kind} | {base} | {mode} | {mark}{len(strays)} {' '.join(strays[:2])}{mark} | {mark}{off:.4f}{mark} | {moved:.2f} |", flush=True)
            shutil.rmtree(root)
    print(f"{good} of {total} results load and compute the same")
    sys.exit(good != total)


main()
