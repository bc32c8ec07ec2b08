"""What diffusers makes of files that lora-tool converted, state dict by state dict, without a model.

    python diffusers_vs_convert.py LORA_TOOL     (pip install diffusers peft)

SD 1.5: a diffusers file, converted to kohya's convention, through diffusers' own
`_convert_non_diffusers_lora_to_diffusers`, compared with the file it was made of, key by key. Flux: a
diffusers file to ComfyUI's names and back, scales read from the header's PEFT config.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

SD15 = [
    ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", 32, 32),
    ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0", 32, 32),
    ("unet.mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj", 64, 32),
    ("unet.up_blocks.1.attentions.0.proj_in", 32, 32),
    ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj", 32, 32),
    # By this one diffusers recognises the spelling of all others.
    ("text_encoder.text_model.encoder.layers.0.self_attn.out_proj", 32, 32),
    ("text_encoder.text_model.encoder.layers.0.mlp.fc1", 64, 32),
]
FLUX = [
    ("transformer.transformer_blocks.0.attn.to_q", 32, 32),
    ("transformer.single_transformer_blocks.0.proj_out", 32, 64),
]


def make(path, modules):
    torch.manual_seed(0)
    tensors, entry = {}, {}
    for at, (name, outputs, inputs) in enumerate(modules):
        tensors[f"{name}.lora_A.weight"] = torch.randn(4, inputs)
        tensors[f"{name}.lora_B.weight"] = torch.randn(outputs, 4)
        component, module = name.split(".", 1)
        entry[f"{component}.r"], entry[f"{component}.lora_alpha"] = 4, 2
        entry.setdefault(f"{component}.alpha_pattern", {})[module] = at + 1
    save_file(tensors, path, {"format": "pt", "lora_adapter_metadata": json.dumps(entry)})
    return tensors, {name: (at + 1) / 4 for at, (name, _, _) in enumerate(modules)}


def convert(tool, source, to, output, *more):
    subprocess.run([tool, "-q", "convert", source, "--to", to, "-o", output, *more], check=True)


def compare(deltas, expected):
    assert deltas.keys() == expected.keys(), deltas.keys() ^ expected.keys()
    return max(float((deltas[n] - expected[n]).norm() / expected[n].norm()) for n in expected)


def peft_deltas(state, alphas):
    """As diffusers' loaders go on: older spellings to PEFT's, alphas by the module they begin with."""
    modern = {}
    for convert_names, prefix in (
        (convert_unet_state_dict_to_peft, "unet."),
        (lambda s: convert_state_dict_to_peft(convert_state_dict_to_diffusers(s)), "text_encoder."),
    ):
        part = {k: v for k, v in state.items() if k.startswith(prefix)}
        modern |= dict(zip(convert_names(part).keys(), part.items()))
    found = {}
    for name, (old, down) in modern.items():
        if ".lora_A." not in name:
            continue
        _, up = modern[name.replace("lora_A", "lora_B")]
        alpha = next(v for k, v in alphas.items() if old.startswith(k.removesuffix(".alpha")))
        module = name.split(".lora_A.")[0].replace(".processor.to_out", ".to_out.0")
        module = module.replace(".processor.", ".")
        found[module] = alpha / down.shape[0] * up.double() @ down.double()
    return found


def main(tool):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        tensors, scales = make(scratch / "sd15.safetensors", SD15)
        delta = lambda t, n, s: s * t[f"{n}.lora_B.weight"].double() @ t[f"{n}.lora_A.weight"].double()
        expected = {n: delta(tensors, n, scales[n]) for n, _, _ in SD15}
        convert(tool, scratch / "sd15.safetensors", "kohya", scratch / "kohya.safetensors")
        state, alphas = _convert_non_diffusers_lora_to_diffusers(load_file(scratch / "kohya.safetensors"))
        found = peft_deltas(state, alphas)
        print(f"SD 1.5 through kohya and diffusers: {len(found)} modules, worst {compare(found, expected):.2e}")

        tensors, scales = make(scratch / "flux.safetensors", FLUX)
        expected = {n: delta(tensors, n, scales[n]) for n, _, _ in FLUX}
        convert(tool, scratch / "flux.safetensors", "comfyui", scratch / "comfy.safetensors")
        convert(tool, scratch / "comfy.safetensors", "diffusers", scratch / "back.safetensors")
        back = load_file(scratch / "back.safetensors")
        with safe_open(scratch / "back.safetensors", "pt") as file:
            entry = json.loads(file.metadata()["lora_adapter_metadata"])
        found = {}
        for name, _, _ in FLUX:
            component, module = name.split(".", 1)
            alpha = entry[f"{component}.alpha_pattern"].get(module, entry[f"{component}.lora_alpha"])
            found[name] = delta(back, name, alpha / entry[f"{component}.r"])
        print(f"Flux to ComfyUI and back: {len(found)} modules, worst {compare(found, expected):.2e}")


if __name__ == "__main__":
    main(sys.argv[1])
