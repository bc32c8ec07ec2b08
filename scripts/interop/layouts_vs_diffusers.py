#!/usr/bin/env python3
"""Compare `convert --to diffusers` with what diffusers' own pipelines make of published names.

For each list of `fixtures/layouts` that diffusers converts itself, a random adapter of all its modules under
their published names goes through the pipeline's `lora_state_dict` and through lora-tool. Of every module
that diffusers finds, both updates are compared on random inputs. What diffusers loses it says in one warning;
where it is known to be wrong, lora-tool has to differ.

    python scripts/interop/layouts_vs_diffusers.py LORA_TOOL [LIST …]

Exit status 1 if an update differs that should not, or the reverse.
"""

import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from diffusers.loaders import lora_pipeline
from safetensors.torch import load_file, save_file

LISTS = Path(__file__).resolve().parents[2] / "fixtures" / "layouts"
RANK = 3
FLUX2 = ("Flux2", "diffusion_model.", "", {"norm_out.linear"})  # halves of its last modulation as published
# A patch embedding is refused together with all the rest.
WAN = ("Wan", "diffusion_model.", ("blocks.", "condition_embedder.", "proj_out"), set())
# Pipeline, prefix, what the modules' paths begin with that it takes, and the modules that it gets wrong.
MODELS = {
    "flux2_dev": FLUX2,
    "flux2_klein_4b": FLUX2,
    "flux2_klein_9b": FLUX2,
    "flux3": ("Flux3", "diffusion_model.", "", set()),
    "ltx_video": ("LTXVideo", "diffusion_model.", "", set()),
    "ltx2": ("LTX2", "diffusion_model.", "", set()),
    "krea2": ("Krea2", "diffusion_model.", "", set()),
    "ideogram4": ("Ideogram4", "diffusion_model.", "layers.", set()),
    "anima": ("Anima", "diffusion_model.", "", set()),
    "ace_step_1_5": ("AceStep", "base_model.model.", "", set()),
    "minimax_h3": ("MiniMaxH3", "diffusion_model.", "", set()),
    "hunyuan_video_official": ("HunyuanVideo", "diffusion_model.", ("transformer_blocks.", "single_"), set()),
    "wan2_t2v_14b": WAN,
    "wan2_i2v_14b": WAN,
    "wan2_2_ti2v_5b": WAN,
    "skyreels_v2": ("SkyReelsV2", *WAN[1:]),
    "z_image": ("ZImage", "diffusion_model.", "", set()),
}


def published(name, prefix, below):
    """A random adapter of the list's published tensors, and their modules in diffusers."""
    torch.manual_seed(5)
    tensors, modules = {}, []
    for line in (LISTS / f"{name}.txt").read_text().splitlines():
        module, tensor, rows, columns, _ = line.split()[:5]
        if not module.startswith(below):
            continue
        modules.append(module)
        # ACE-Step's checkpoints have its transformer below `decoder`, its adapters do not.
        stem = prefix + tensor.removesuffix(".weight").removeprefix("decoder.")
        if f"{stem}.lora_A.weight" not in tensors:
            tensors[f"{stem}.lora_A.weight"] = torch.randn(RANK, int(columns))
            tensors[f"{stem}.lora_B.weight"] = torch.randn(int(rows), RANK)
    return tensors, modules


def applied(tensors):
    """Each module's update of the same random inputs."""
    found = {}
    for key, down in tensors.items():
        if key.endswith(".lora_A.weight"):
            stem = key.removesuffix(".lora_A.weight")
            torch.manual_seed(down.shape[1])
            inputs = torch.randn(down.shape[1], 4)
            found[stem] = tensors[f"{stem}.lora_B.weight"] @ (down @ inputs)
    return found


def main():
    tool, *wanted = sys.argv[1:]
    logging.disable(logging.WARNING)
    wrong = 0
    for name in wanted or MODELS:
        pipeline, prefix, below, known = MODELS[name]
        tensors, modules = published(name, prefix, below)
        mixin = getattr(lora_pipeline, f"{pipeline}LoraLoaderMixin")
        with tempfile.TemporaryDirectory() as scratch:
            own, out = Path(scratch, "a"), Path(scratch, "d.safetensors")
            own.mkdir()
            file = own / "adapter_model.safetensors"
            save_file(tensors, file)
            if prefix == "base_model.model.":
                config = dict(peft_type="LORA", r=RANK, lora_alpha=RANK, target_modules=[])
                (own / "adapter_config.json").write_text(json.dumps(config))
            else:
                own = file
            command = [tool, "convert", own, "--to", "diffusers", "-o", out]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            if done.returncode != 0:
                print(f"{name:24} WRONG {done.stderr.strip()}")
                wrong += 1
                continue
            ours = applied(load_file(out))
        theirs = mixin.lora_state_dict({key: value.clone() for key, value in tensors.items()})
        theirs = applied(theirs[0] if isinstance(theirs, tuple) else theirs)
        missing = [module for module in modules if f"transformer.{module}" not in ours]
        found = [module for module in modules if f"transformer.{module}" in theirs]

        def differs(module):
            a, b = ours[f"transformer.{module}"], theirs[f"transformer.{module}"]
            return a.shape != b.shape or (a - b).abs().max() > 1e-5 * a.abs().max()

        different = set() if missing else {module for module in found if differs(module)}
        agrees = not missing and different == known
        wrong += not agrees
        said = f"{len(found) - len(different)} of {len(modules)} equal, {len(modules) - len(found)} lost by diffusers"
        said += f", {len(different)} different" if different else ""
        print(f"{name:24} {said}{'' if agrees else f'  WRONG {sorted(different)[:4]} {missing[:4]}'}", flush=True)
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
