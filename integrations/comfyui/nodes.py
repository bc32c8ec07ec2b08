"""The nodes. Each calls one function of ``lora_tool`` on files of ComfyUI's model folders, and writes into them.

A node whose inputs and files are as they were is not run again. What cannot be done is an error with the command's own
words, and leaves nothing behind.
"""

from __future__ import annotations

import os
from typing import Any, Callable

import folder_paths  # type: ignore[import-not-found]  # ComfyUI's own
import lora_tool

CATEGORY = "loaders/lora-tool"
LORAS = "loras"
CHECKPOINTS = "checkpoints"
RANK = "lossless"
ENDING = ".safetensors"
CONVENTIONS = ["kohya", "diffusers", "comfyui"]
DTYPES = ["keep", "f16", "bf16", "f32"]


def names(folder: str) -> list[str]:
    """Files of a model folder, as ComfyUI's own loaders list them."""
    return list(folder_paths.get_filename_list(folder))


def full_path(folder: str, name: str) -> str:
    """Where the file of a name is."""
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        raise FileNotFoundError(f"{name} is not in ComfyUI's folder {folder}")
    return str(path)


def target(folder: str, name: str, overwrite: bool) -> str:
    """Where a result of this name goes: below ComfyUI's first folder of its kind, and nowhere else."""
    root = os.path.realpath(folder_paths.get_folder_paths(folder)[0])
    given = name.strip().removesuffix(ENDING)
    path = os.path.realpath(os.path.join(root, given + ENDING))
    if not given or os.path.commonpath([root, path]) != root or path == root:
        raise ValueError(f"`{name}` is no name of a file below {root}")
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{name} exists already in {root}: give another name, or set overwrite")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def relative(folder: str, path: str) -> str:
    """The name under which ComfyUI's loaders list a file."""
    return os.path.relpath(path, os.path.realpath(folder_paths.get_folder_paths(folder)[0]))


def progress() -> Callable[[str, int, int], None]:
    """Shows progress on the node, and stops at ComfyUI's button for that."""
    try:
        from comfy.model_management import (  # type: ignore[import-not-found]
            throw_exception_if_processing_interrupted as check)
        from comfy.utils import ProgressBar  # type: ignore[import-not-found]
    except ImportError:
        return lambda phase, done, all_: None
    bar = ProgressBar(100)

    def step(_phase: str, done: int, all_: int) -> None:
        check()
        bar.update_absolute(round(100 * done / all_) if all_ else 0, 100)

    return step


def stamp(folder: str, *files: str) -> str:
    """Size and date of files, by which ComfyUI sees that a node has to run again."""
    found = []
    for name in files:
        path = folder_paths.get_full_path(folder, name)
        if path is not None:
            state = os.stat(path)
            found.append(f"{name}:{state.st_size}:{state.st_mtime_ns}")
    return "|".join(found)


def strength(default: float = 1.0) -> tuple[str, dict[str, Any]]:
    return ("FLOAT", {"default": default, "min": -10.0, "max": 10.0, "step": 0.05})


def text(default: str, tooltip: str) -> tuple[str, dict[str, Any]]:
    return ("STRING", {"default": default, "tooltip": tooltip})


RANKS = "a number, lossless, energy:0.99, error:0.05, size:32MiB"
OVERWRITE = ("BOOLEAN", {"default": False, "tooltip": "Replace a file of this name"})


class MergeAndSave:
    """Writes a checkpoint with a LoRA in its weights."""

    CATEGORY, FUNCTION, OUTPUT_NODE = CATEGORY, "run", True
    RETURN_TYPES, RETURN_NAMES = ("STRING", "STRING"), ("ckpt_name", "report")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ckpt_name": (names(CHECKPOINTS),), "lora_name": (names(LORAS),),
                             "strength": strength(), "dtype": (DTYPES,),
                             "save_as": text("merged", "Name in the folder of checkpoints"),
                             "overwrite": OVERWRITE}}

    @classmethod
    def IS_CHANGED(cls, ckpt_name: str, lora_name: str, **_: Any) -> str:
        return stamp(CHECKPOINTS, ckpt_name) + "|" + stamp(LORAS, lora_name)

    def run(self, ckpt_name: str, lora_name: str, strength: float, dtype: str, save_as: str,
            overwrite: bool) -> tuple[str, str]:
        path = target(CHECKPOINTS, save_as, overwrite)
        report = lora_tool.merge(full_path(CHECKPOINTS, ckpt_name), full_path(LORAS, lora_name), path,
                                 weights=[strength], dtype=dtype,  # type: ignore[arg-type]
                                 force=overwrite, progress=progress())
        said = f"{report['modules_applied']} of {report['modules']} modules"
        return relative(CHECKPOINTS, path), said


class Combine:
    """Makes one LoRA of two: the weighted sum of their updates."""

    CATEGORY, FUNCTION, OUTPUT_NODE = CATEGORY, "run", True
    RETURN_TYPES, RETURN_NAMES = ("STRING", "STRING"), ("lora_name", "report")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"lora_a": (names(LORAS),), "strength_a": strength(),
                             "lora_b": (names(LORAS),), "strength_b": strength(),
                             "rank": text(RANK, RANKS),
                             "save_as": text("combined", "Name in the folder of LoRAs"),
                             "overwrite": OVERWRITE}}

    @classmethod
    def IS_CHANGED(cls, lora_a: str, lora_b: str, **_: Any) -> str:
        return stamp(LORAS, lora_a, lora_b)

    def run(self, lora_a: str, strength_a: float, lora_b: str, strength_b: float, rank: str,
            save_as: str, overwrite: bool) -> tuple[str, str]:
        path = target(LORAS, save_as, overwrite)
        report = lora_tool.combine([full_path(LORAS, lora_a), full_path(LORAS, lora_b)], path,
                                   weights=[strength_a, strength_b], rank=rank, force=overwrite,
                                   progress=progress())
        return relative(LORAS, path), kept(report["energy_kept"], report["bytes"])


class Resize:
    """Writes a LoRA at a lower rank, or at the one that fits."""

    CATEGORY, FUNCTION, OUTPUT_NODE = CATEGORY, "run", True
    RETURN_TYPES, RETURN_NAMES = ("STRING", "STRING"), ("lora_name", "report")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"lora_name": (names(LORAS),), "rank": text("energy:0.95", RANKS),
                             "save_as": text("resized", "Name in the folder of LoRAs"),
                             "overwrite": OVERWRITE}}

    @classmethod
    def IS_CHANGED(cls, lora_name: str, **_: Any) -> str:
        return stamp(LORAS, lora_name)

    def run(self, lora_name: str, rank: str, save_as: str, overwrite: bool) -> tuple[str, str]:
        path = target(LORAS, save_as, overwrite)
        report = lora_tool.resize(full_path(LORAS, lora_name), path, rank=rank, force=overwrite,
                                  progress=progress())
        return relative(LORAS, path), kept(report["energy_kept"], report["bytes"])


class Extract:
    """Makes a LoRA of the difference of two checkpoints."""

    CATEGORY, FUNCTION, OUTPUT_NODE = CATEGORY, "run", True
    RETURN_TYPES, RETURN_NAMES = ("STRING", "STRING"), ("lora_name", "report")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"base": (names(CHECKPOINTS),), "tuned": (names(CHECKPOINTS),),
                             "rank": text("auto", f"auto, or {RANKS}"),
                             "save_as": text("extracted", "Name in the folder of LoRAs"),
                             "overwrite": OVERWRITE}}

    @classmethod
    def IS_CHANGED(cls, base: str, tuned: str, **_: Any) -> str:
        return stamp(CHECKPOINTS, base, tuned)

    def run(self, base: str, tuned: str, rank: str, save_as: str, overwrite: bool) -> tuple[str, str]:
        path = target(LORAS, save_as, overwrite)
        report = lora_tool.extract(full_path(CHECKPOINTS, base), full_path(CHECKPOINTS, tuned), path,
                                   rank=rank, force=overwrite, progress=progress())
        return relative(LORAS, path), f"{len(report['modules'])} modules, {report['bytes']} bytes"


class Convert:
    """Writes the same update in another convention's file."""

    CATEGORY, FUNCTION, OUTPUT_NODE = CATEGORY, "run", True
    RETURN_TYPES, RETURN_NAMES = ("STRING", "STRING"), ("lora_name", "report")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"lora_name": (names(LORAS),), "convention": (CONVENTIONS,),
                             "save_as": text("converted", "Name in the folder of LoRAs"),
                             "overwrite": OVERWRITE}}

    @classmethod
    def IS_CHANGED(cls, lora_name: str, **_: Any) -> str:
        return stamp(LORAS, lora_name)

    def run(self, lora_name: str, convention: str, save_as: str, overwrite: bool) -> tuple[str, str]:
        path = target(LORAS, save_as, overwrite)
        report = lora_tool.convert(full_path(LORAS, lora_name), path, to=convention, force=overwrite,
                                   progress=progress())
        return relative(LORAS, path), f"{len(report['modules'])} modules, {report['from']} to {report['to']}"


class Check:
    """Says what ComfyUI would refuse, ignore or scale wrongly in a LoRA."""

    CATEGORY, FUNCTION, OUTPUT_NODE = CATEGORY, "run", True
    RETURN_TYPES, RETURN_NAMES = ("STRING", "BOOLEAN"), ("report", "loads")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"lora_name": (names(LORAS),)}}

    @classmethod
    def IS_CHANGED(cls, lora_name: str) -> str:
        return stamp(LORAS, lora_name)

    def run(self, lora_name: str) -> dict[str, Any]:
        report = lora_tool.check(full_path(LORAS, lora_name), "comfyui")
        lines = [f"{lora_name}: {report['answer']}"]
        lines += [finding["says"] for finding in report["findings"]]
        said = "\n".join(lines)
        return {"ui": {"text": [said]}, "result": (said, report["answer"] == "yes")}


def kept(energy: float, size: int) -> str:
    return f"kept {energy:.1%} of the update, {size} bytes"


NODE_CLASS_MAPPINGS = {
    "LoraToolMergeAndSave": MergeAndSave,
    "LoraToolCombine": Combine,
    "LoraToolResize": Resize,
    "LoraToolExtract": Extract,
    "LoraToolConvert": Convert,
    "LoraToolCheck": Check,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "LoraToolMergeAndSave": "LoRA Merge And Save",
    "LoraToolCombine": "LoRA Combine",
    "LoraToolResize": "LoRA Resize",
    "LoraToolExtract": "LoRA Extract",
    "LoraToolConvert": "LoRA Convert",
    "LoraToolCheck": "LoRA Check",
}
