"""What diffusers makes of files that lora-tool converted, state dict by state dict, without a model.

    python diffusers_vs_convert.py LORA_TOOL     (pip install diffusers peft)

SD 1.5, SDXL and Flux, every module of each (fixtures/keys), with CLIP's text encoders. Both ways:

- a file with kohya's names, converted by lora-tool, against what diffusers' own
  `_maybe_map_sgm_blocks_to_diffusers` and `_convert_non_diffusers_lora_to_diffusers`, or
  `_convert_kohya_flux_lora_to_diffusers`, make of it;
- a diffusers file, converted to kohya's names, through the same functions, against itself.

Flux also through ComfyUI's names and back, and XLabs' and BFL's own files through
`_convert_xlabs_flux_lora_to_diffusers` and `_convert_bfl_flux_control_lora_to_diffusers`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_bfl_flux_control_lora_to_diffusers,
    _convert_kohya_flux_lora_to_diffusers,
    _convert_non_diffusers_lora_to_diffusers,
    _convert_xlabs_flux_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

KEYS = Path(__file__).resolve().parents[2] / "fixtures" / "keys"
RANK = 2
CLIP = {"self_attn.q_proj": 1, "self_attn.k_proj": 1, "self_attn.v_proj": 1, "self_attn.out_proj": 1, "mlp.fc1": 4, "mlp.fc2": 1}


def key_list(name):
    """Diffusers' module, the published one, (outputs, inputs) of each."""
    lines = []
    for line in (KEYS / f"{name}.txt").read_text().splitlines():
        module, tensor, rows, columns, where = line.split(" ")[:5]
        rows, columns = int(rows), int(columns)
        first, _, last = where.partition("..")
        own = int(last) - int(first) if last else rows
        lines.append((module, tensor.removesuffix(".weight"), (own, columns), (rows, columns)))
    return lines


def clip(component, layers, width):
    path = f"{component}.text_model.encoder.layers"
    for layer in range(layers):
        for name, times in CLIP.items():
            inputs = 4 * width if name == "mlp.fc2" else width
            yield f"{path}.{layer}.{name}", (times * width, inputs)


def make(path, modules):
    """A diffusers file with alphas of their own in its header."""
    torch.manual_seed(0)
    tensors, entry = {}, {}
    for at, (name, (outputs, inputs)) in enumerate(modules):
        tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, inputs)
        tensors[f"{name}.lora_B.weight"] = torch.randn(outputs, RANK)
        component, module = name.split(".", 1)
        entry[f"{component}.r"], entry[f"{component}.lora_alpha"] = RANK, 1
        entry.setdefault(f"{component}.alpha_pattern", {})["^" + module] = alpha_of(module, at)
    save_file(tensors, path, {"format": "pt", "lora_adapter_metadata": json.dumps(entry)})
    return deltas(path)


def alpha_of(module, at):
    """Parts of one fused projection have one scale, as trainers make them; kohya's names hold one."""
    fused = any(part in module for part in ("attn.to_q", "attn.to_k", "attn.to_v", "add_", "proj_mlp"))
    # diffusers forgets the alphas of these (`assign_remaining_weights`).
    forgotten = module in ("norm_out.linear", "proj_out")
    return RANK if forgotten else 1 if fused else at % 4 + 1


def make_kohya(path, modules):
    """A kohya file; modules are flattened already."""
    torch.manual_seed(1)
    tensors = {}
    for at, (name, (outputs, inputs)) in enumerate(modules):
        tensors[f"{name}.lora_down.weight"] = torch.randn(RANK, inputs)
        tensors[f"{name}.lora_up.weight"] = torch.randn(outputs, RANK)
        tensors[f"{name}.alpha"] = torch.tensor(float(RANK if "final_layer" in name else at % 3 + 1))
    save_file(tensors, path, {"format": "pt"})


def deltas(path):
    """Factors of a file in diffusers' names, B times the scale that its header says."""
    state = load_file(path)
    with safe_open(path, "pt") as file:
        entry = json.loads(file.metadata()["lora_adapter_metadata"])
    found = {}
    for key in state:
        if not key.endswith(".lora_A.weight"):
            continue
        name = key.removesuffix(".lora_A.weight")
        component, module = name.split(".", 1)
        pattern = entry.get(f"{component}.alpha_pattern", {})
        alpha = pattern.get(module, pattern.get("^" + module, entry[f"{component}.lora_alpha"]))
        found[name] = scaled(state, name, alpha)
    return found


def scaled(state, name, alpha=None):
    down, up = state[f"{name}.lora_A.weight"].double(), state[f"{name}.lora_B.weight"].double()
    return up * ((alpha or down.shape[0]) / down.shape[0]), down


def convert(tool, source, to, output):
    subprocess.run([tool, "-q", "convert", source, "--to", to, "--force", "-o", output], check=True)


def worst(found, expected):
    """The largest relative distance of two modules, by their factors: no dense matrix is needed."""
    assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())[:20]
    inner = lambda a, b: float(((a[0].T @ b[0]) * (a[1] @ b[1].T)).sum())
    distances = []
    for name, own in found.items():
        (up, down), (other_up, other_down) = own, expected[name]
        difference = torch.cat([up, -other_up], 1), torch.cat([down, other_down], 0)
        distances.append(max(inner(difference, difference), 0) / inner(expected[name], expected[name]))
    return max(distances) ** 0.5


def of_unet(state, alphas):
    """As diffusers' loaders go on: older spellings to PEFT's, alphas by the module they begin with."""
    modern = {}
    for component in ("unet", "text_encoder", "text_encoder_2"):
        part = {k: v for k, v in state.items() if k.startswith(component + ".")}
        if not part:
            continue
        names = convert_unet_state_dict_to_peft if component == "unet" else (
            lambda s: convert_state_dict_to_peft(convert_state_dict_to_diffusers(s))
        )
        # What is handed on is the old name, by which the alphas go.
        below = {k.removeprefix(component + "."): k for k in part}
        modern |= {f"{component}.{new}": old for new, old in names(dict(below)).items()}
    by_module = {k.removesuffix(".alpha"): v for k, v in alphas.items()}
    found = {}
    for name, old in modern.items():
        if ".lora_A." not in name:
            continue
        down, up = state[old], state[modern[name.replace("lora_A", "lora_B")]]
        alpha = next(by_module[m] for m in (old.split(".lora")[0], old) if m in by_module)
        module = name.split(".lora_A.")[0].replace(".processor.to_out", ".to_out.0")
        module = module.replace(".processor.", ".")
        found[module] = (up.double() * (alpha / down.shape[0]), down.double())
    return found


def unet(tool, scratch, name, config, encoders, sgm):
    lines = key_list(name)
    modules = [(f"unet.{module}", shape) for module, _, shape, _ in lines] + encoders
    theirs = lambda path: of_unet(*_convert_non_diffusers_lora_to_diffusers(
        _maybe_map_sgm_blocks_to_diffusers(load_file(path), config)
    ))
    expected = make(scratch / "d.safetensors", modules)
    convert(tool, scratch / "d.safetensors", "kohya", scratch / "k.safetensors")
    found = theirs(scratch / "k.safetensors")
    print(f"{name}: to kohya, through diffusers: {len(found)} modules, worst {worst(found, expected):.1e}")

    prefix = {"text_encoder_2": "lora_te2_", "text_encoder": "lora_te1_" if sgm else "lora_te_"}
    flat = [("lora_unet_" + (p if sgm else m).replace(".", "_"), shape) for m, p, shape, _ in lines]
    for module, shape in encoders:
        component, path = module.split(".", 1)
        flat.append((prefix[component] + path.replace(".", "_"), shape))
    make_kohya(scratch / "k.safetensors", flat)
    convert(tool, scratch / "k.safetensors", "diffusers", scratch / "d.safetensors")
    found, expected = deltas(scratch / "d.safetensors"), theirs(scratch / "k.safetensors")
    print(f"{name}: from kohya, as diffusers does: {len(found)} modules, worst {worst(found, expected):.1e}")


def flux(tool, scratch):
    lines = key_list("flux")
    modules = [(f"transformer.{module}", shape) for module, _, shape, _ in lines]
    modules += clip("text_encoder", 12, 768)
    expected = make(scratch / "d.safetensors", modules)

    def theirs(path, function):
        state = function(load_file(path))
        # diffusers leaves the component out of some names.
        state = {k if k.startswith(("transformer.", "text_encoder.")) else "transformer." + k: v for k, v in state.items()}
        encoder = {k.removeprefix("text_encoder."): v for k, v in state.items() if k.startswith("text_encoder.")}
        encoder = convert_state_dict_to_peft(convert_state_dict_to_diffusers(encoder)) if encoder else {}
        state = {k: v for k, v in state.items() if k.startswith("transformer.")}
        state |= {f"text_encoder.{k}": v for k, v in encoder.items()}
        names = [k.removesuffix(".lora_A.weight") for k in state if k.endswith(".lora_A.weight")]
        return {name: scaled(state, name) for name in names}

    convert(tool, scratch / "d.safetensors", "kohya", scratch / "k.safetensors")
    found = theirs(scratch / "k.safetensors", _convert_kohya_flux_lora_to_diffusers)
    print(f"flux: to kohya, through diffusers: {len(found)} modules, worst {worst(found, expected):.1e}")

    published = {tensor: shape for _, tensor, _, shape in lines}
    flat = [("lora_unet_" + tensor.replace(".", "_"), shape) for tensor, shape in published.items()]
    flat += [("lora_te1_" + m.split(".", 1)[1].replace(".", "_"), s) for m, s in clip("text_encoder", 12, 768)]
    make_kohya(scratch / "k.safetensors", flat)
    convert(tool, scratch / "k.safetensors", "diffusers", scratch / "d2.safetensors")
    found = deltas(scratch / "d2.safetensors")
    theirs_found = theirs(scratch / "k.safetensors", _convert_kohya_flux_lora_to_diffusers)
    print(f"flux: from kohya, as diffusers does: {len(found)} modules, worst {worst(found, theirs_found):.1e}")

    convert(tool, scratch / "d.safetensors", "comfyui", scratch / "c.safetensors")
    convert(tool, scratch / "c.safetensors", "diffusers", scratch / "b.safetensors")
    found = deltas(scratch / "b.safetensors")
    print(f"flux: to ComfyUI and back: {len(found)} modules, worst {worst(found, expected):.1e}")


def plain(modules, down, up, bias=None):
    """A file without alphas, in another trainer's endings."""
    torch.manual_seed(2)
    tensors = {}
    for name, (outputs, inputs) in modules:
        tensors[f"{name}.{down}"], tensors[f"{name}.{up}"] = torch.randn(RANK, inputs), torch.randn(outputs, RANK)
        if bias:
            tensors[f"{name}.{bias}"] = torch.randn(outputs)
    return tensors


def same(tool, scratch, name, tensors, function, wrong=()):
    """Every tensor that diffusers makes of a file, and no other, bit by bit; but for those it makes wrong."""
    save_file(tensors, scratch / "o.safetensors", {"format": "pt"})
    convert(tool, scratch / "o.safetensors", "diffusers", scratch / "d.safetensors")
    ours, theirs = load_file(scratch / "d.safetensors"), function(dict(tensors))
    assert ours.keys() == theirs.keys(), sorted(ours.keys() ^ theirs.keys())[:20]
    differ = [key for key in theirs if not torch.equal(ours[key], theirs[key])]
    assert differ == list(wrong), differ
    print(f"{name}, as diffusers does: {len(ours) - len(differ)} of {len(ours)} tensors equal")


def others(tool, scratch):
    h = 3072
    xlabs = []
    for block in range(19):
        for number in (1, 2):
            xlabs.append((f"double_blocks.{block}.processor.qkv_lora{number}", (3 * h, h)))
            xlabs.append((f"double_blocks.{block}.processor.proj_lora{number}", (h, h)))
    for block in range(38):
        xlabs.append((f"single_blocks.{block}.processor.qkv_lora", (3 * h, h)))
        xlabs.append((f"single_blocks.{block}.processor.proj_lora", (h, 5 * h)))
    tensors = plain(xlabs, "down.weight", "up.weight")
    same(tool, scratch, "XLabs", tensors, _convert_xlabs_flux_lora_to_diffusers)

    published = {tensor: shape for _, tensor, _, shape in key_list("flux")}
    # The control image's channels come in beside the base's.
    published["img_in"] = (h, 128)
    tensors = plain(published.items(), "lora_A.weight", "lora_B.weight", "lora_B.bias")
    for block in range(19):
        for stream in ("img", "txt"):
            for norm in ("query", "key"):
                tensors[f"double_blocks.{block}.{stream}_attn.norm.{norm}_norm.scale"] = torch.randn(128)
    for block in range(38):
        for norm in ("query", "key"):
            tensors[f"single_blocks.{block}.norm.{norm}_norm.scale"] = torch.randn(128)
    # diffusers swaps the halves of A too, whose rows are directions and no outputs.
    wrong = ["transformer.norm_out.linear.lora_A.weight"]
    same(tool, scratch, "BFL control", tensors, _convert_bfl_flux_control_lora_to_diffusers, wrong)


SD = SimpleNamespace(layers_per_block=2)


def main(tool):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        unet(tool, scratch, "sd15", SD, list(clip("text_encoder", 12, 768)), sgm=False)
        both = [*clip("text_encoder", 12, 768), *clip("text_encoder_2", 32, 1280)]
        unet(tool, scratch, "sdxl", SD, both, sgm=True)
        flux(tool, scratch)
        others(tool, scratch)


if __name__ == "__main__":
    main(sys.argv[1])
