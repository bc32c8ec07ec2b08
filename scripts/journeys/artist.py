"""An artist with kohya's files for SDXL: what they are, blended by block, resized to a size, for other programs, named.

    python artist.py LORA_TOOL FOLDER      (torch, diffusers, safetensors; FOLDER is made)

The files have every module of SDXL's U-Net and of its two text encoders under kohya's names, widths an eighth of the real
ones; diffusers' own functions read them, and what the tool writes for diffusers and ComfyUI, for comparison.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from shown import Tool, arguments, digests, tell

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "interop"))
import diffusers_vs_convert as theirs  # noqa: E402

# kohya's twelve blocks of SDXL, as `--lbw` counts them.
BLOCKS = ["BASE", "IN04", "IN05", "IN07", "IN08", "MID", "OUT00", "OUT01", "OUT02", "OUT03", "OUT04", "OUT05"]


def modules() -> list[tuple[str, tuple[int, int]]]:
    """Attention and feed-forward layers under kohya's names, with widths."""
    found = []
    for _, published, (outputs, inputs), _ in theirs.key_list("sdxl"):
        if "transformer_blocks" in published or "proj_in" in published or "proj_out" in published:
            found.append(("lora_unet_" + published.replace(".", "_"), (outputs // 8, inputs // 8)))
    for number, component, layers, width in ((1, "text_encoder", 12, 96), (2, "text_encoder_2", 32, 160)):
        for name, shape in theirs.clip(component, layers, width):
            found.append((f"lora_te{number}_" + name.split(".", 1)[1].replace(".", "_"), shape))
    return found


def make(path: Path, seed: int, rank: int, alpha: float, *, unet_only: bool = False) -> None:
    """A file as kohya's trainer leaves it, singular values falling off, with the header of its training."""
    torch.manual_seed(seed)
    tensors = {}
    fall = 1 / (1 + torch.arange(rank))
    for name, (outputs, inputs) in modules():
        if unet_only and not name.startswith("lora_unet_"):
            continue
        tensors[f"{name}.lora_down.weight"] = torch.randn(rank, inputs).half()
        tensors[f"{name}.lora_up.weight"] = (0.05 * torch.randn(outputs, rank) * fall).half()
        tensors[f"{name}.alpha"] = torch.tensor(alpha).half()
    name = path.stem
    save_file(tensors, path, {
        "ss_output_name": name, "ss_network_module": "networks.lora", "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha), "ss_base_model_version": "sdxl_base_v1-0", "ss_steps": "2400",
        "ss_tag_frequency": json.dumps({"10_" + name: {f"{name} style": 40, "flower": 12}}),
        "modelspec.title": name, "modelspec.trigger_phrase": f"{name} style",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora"})


def factors(path: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """scale · up and down of every module of a kohya file."""
    state = load_file(path)
    names = [key.removesuffix(".lora_down.weight") for key in state if key.endswith(".lora_down.weight")]
    return {name: (state[f"{name}.lora_up.weight"].double()
                   * (float(state[f"{name}.alpha"]) / state[f"{name}.lora_down.weight"].shape[0]),
                   state[f"{name}.lora_down.weight"].double()) for name in names}


def block(module: str) -> str:
    """The name of a module's block in `--lbw`."""
    parts = module.split("_")
    if module.startswith("lora_te"):
        return "BASE"
    if "middle" in module:
        return "MID"
    return f"{'IN' if 'input' in module else 'OUT'}{int(parts[4]):02}"


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def distance(found: dict, expected: dict) -> float:
    return theirs.worst(found, expected)


def main() -> None:
    binary, folder = arguments()
    tool, loras = Tool(binary, folder), folder / "loras"
    loras.mkdir()
    make(loras / "ink.safetensors", 1, 16, 8.0)
    make(loras / "neon.safetensors", 2, 8, 8.0)
    make(loras / "oil.safetensors", 3, 32, 16.0, unet_only=True)
    (loras / "ink-copy.safetensors").write_bytes((loras / "ink.safetensors").read_bytes())

    print("# What have I got?")
    said = tool("list loras")
    assert "ink style" in said and "SDXL" in said.upper() and "the same factors" in said, said
    assert said.index("\n  ink ") < said.index("\n  ink-copy "), said
    tool("list loras --where 'trigger~neon'")
    tool("inspect loras/ink.safetensors")
    tool("compare loras/ink.safetensors loras/neon.safetensors loras/oil.safetensors")

    print("\n# Blend: by strength, and by block")
    said = tool("merge loras/ink.safetensors loras/neon.safetensors -o wrong.safetensors", code=2)
    assert "lora-tool combine" in said, said
    tool("combine loras/ink.safetensors loras/neon.safetensors -w 0.8 0.5 -o inky-neon.safetensors")
    ink, neon = factors(loras / "ink.safetensors"), factors(loras / "neon.safetensors")
    expected = {name: (torch.cat([0.8 * ink[name][0], 0.5 * neon[name][0]], 1),
                       torch.cat([ink[name][1], neon[name][1]])) for name in ink}
    # Written as the inputs are, in f16.
    tell("blend against the sum", distance(factors(folder / "inky-neon.safetensors"), expected), 2e-3)
    named = header(folder / "inky-neon.safetensors")
    assert named["modelspec.title"] == "inky-neon" and "ss_steps" not in named, named
    assert "ink style" in named["modelspec.trigger_phrase"] and "neon style" in named["modelspec.trigger_phrase"], named

    weights = [1, 0, 0.5, 0.5, 1, 0.7, 1, 1, 0.3, 0.2, 0.1, 0]
    tool(f"combine loras/ink.safetensors --lbw {','.join(map(str, weights))} -o blocks.safetensors")
    of = dict(zip(BLOCKS, weights))
    expected = {name: (of[block(name)] * up, down) for name, (up, down) in ink.items() if of[block(name)]}
    found = {name: pair for name, pair in factors(folder / "blocks.safetensors").items() if pair[0].norm() > 0}
    tell("by block against ink's own factors", distance(found, expected), 2e-3)

    print("\n# Smaller")
    said = tool("resize loras/ink.safetensors --explore")
    assert "vLLM" not in said, said
    tool("resize loras/ink.safetensors --rank size:2MB -o ink-2mb.safetensors")
    size = (folder / "ink-2mb.safetensors").stat().st_size
    print(f"  ==> {size} bytes")
    assert 1_900_000 < size <= 2_000_000, size

    print("\n# For diffusers and ComfyUI, and back")
    state, alphas = theirs._convert_non_diffusers_lora_to_diffusers(theirs._maybe_map_sgm_blocks_to_diffusers(
        load_file(loras / "ink.safetensors"), theirs.SimpleNamespace(layers_per_block=2)))
    read_by_diffusers = theirs.of_unet(state, {name: float(value) for name, value in alphas.items()})
    for convention in ("diffusers", "comfyui"):
        tool(f"convert loras/ink.safetensors --to {convention} -o ink-{convention}.safetensors")
        tool(f"convert ink-{convention}.safetensors --to kohya -o back-{convention}.safetensors")
        tell(f"there and back by {convention}",
             distance(factors(folder / f"back-{convention}.safetensors"), ink), 1e-6)
        tool(f"diff loras/ink.safetensors ink-{convention}.safetensors")
    tell("for diffusers against diffusers' own conversion",
         distance(theirs.deltas(folder / "ink-diffusers.safetensors"), read_by_diffusers), 1e-6)
    tool("check loras/ink.safetensors --for comfyui")
    said = tool("convert loras/ink.safetensors --to mlx -o mlx", code=2)
    assert "--to kohya, diffusers or comfyui keeps all" in said, said

    print("\n# Names and trigger words")
    tool("metadata ink-2mb.safetensors")
    tool("metadata ink-2mb.safetensors --set 'modelspec.title=Ink, small' --strip-training -o clean.safetensors")
    named = header(folder / "clean.safetensors")
    assert named["modelspec.title"] == "Ink, small" and "ss_tag_frequency" not in named, named
    before, after = load_file(folder / "ink-2mb.safetensors"), load_file(folder / "clean.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before) and before.keys() == after.keys()
    assert digests(loras / "ink.safetensors") == digests(loras / "ink-copy.safetensors")
    print("\nthe artist's journey holds")


main()
