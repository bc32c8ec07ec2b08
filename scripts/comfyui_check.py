"""Runs every node of `integrations/comfyui` on the fixture, with folders such as ComfyUI has, and without ComfyUI.

    python scripts/comfyui_check.py LORA_TOOL     (the binary; numpy and safetensors are not needed)

ComfyUI's executor takes a node's class by its name, asks `INPUT_TYPES` what it takes, compares `IS_CHANGED`, and calls
`FUNCTION` with these inputs by name; so does this. `folder_paths` is a stand-in with the three functions that the nodes
call. Exit 0: all nodes did what they should.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def stand_in(models: Path) -> ModuleType:
    """ComfyUI's `folder_paths`, of two folders."""
    module = ModuleType("folder_paths")

    def get_folder_paths(folder: str) -> list[str]:
        return [str(models / folder)]

    def get_filename_list(folder: str) -> list[str]:
        return sorted(str(path.relative_to(models / folder))
                      for path in (models / folder).rglob("*.safetensors"))

    def get_full_path(folder: str, name: str) -> str | None:
        path = models / folder / name
        return str(path) if path.is_file() else None

    for function in (get_folder_paths, get_filename_list, get_full_path):
        setattr(module, function.__name__, function)
    return module


def load() -> ModuleType:
    """The pack, as ComfyUI imports a folder of `custom_nodes`."""
    place = ROOT / "integrations" / "comfyui"
    spec = importlib.util.spec_from_file_location("pack", place / "__init__.py",
                                                  submodule_search_locations=[str(place)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pack"] = module
    spec.loader.exec_module(module)
    return module


def execute(pack: ModuleType, name: str, **inputs: Any) -> Any:
    """Runs a node as the executor does, and holds its answer to its own declaration."""
    node = pack.NODE_CLASS_MAPPINGS[name]
    assert name in pack.NODE_DISPLAY_NAME_MAPPINGS, name
    declared = node.INPUT_TYPES()["required"]
    assert set(inputs) == set(declared), (name, sorted(inputs), sorted(declared))
    for key, (kind, *_) in declared.items():
        if isinstance(kind, list):
            assert inputs[key] in kind, (name, key, inputs[key], kind)
    before = node.IS_CHANGED(**inputs)
    assert before == node.IS_CHANGED(**inputs), name
    answer = getattr(node(), node.FUNCTION)(**inputs)
    result = answer["result"] if isinstance(answer, dict) else answer
    assert len(result) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES), name
    return result


def main() -> int:
    binary = Path(sys.argv[1]).resolve()
    os.environ["PATH"] = f"{binary.parent}{os.pathsep}{os.environ['PATH']}"
    sys.path.insert(0, str(ROOT / "python"))
    with tempfile.TemporaryDirectory() as directory:
        models = Path(directory)
        for folder in ("loras", "checkpoints"):
            (models / folder).mkdir()
        sys.modules["folder_paths"] = stand_in(models)
        import lora_tool

        llama = ROOT / "fixtures" / "llama"
        shutil.copy(llama / "kohya.safetensors", models / "loras" / "style.safetensors")
        lora_tool.convert(llama / "task", models / "loras" / "task.safetensors", to="kohya")
        lora_tool.convert(llama / "style", models / "loras" / "style.safetensors", to="kohya", force=True)
        lora_tool.merge(llama / "base", llama / "style", models / "checkpoints" / "plain.safetensors", weights=[1e-9])
        pack = load()

        merged, said = execute(pack, "LoraToolMergeAndSave", ckpt_name="plain.safetensors",
                               lora_name="style.safetensors", strength=1.0, dtype="f32", save_as="merged",
                               overwrite=False)
        assert merged == "merged.safetensors" and said == "14 of 14 modules", (merged, said)
        both, said = execute(pack, "LoraToolCombine", lora_a="style.safetensors", strength_a=0.7,
                             lora_b="task.safetensors", strength_b=0.3, rank="lossless", save_as="sub/both",
                             overwrite=False)
        assert both == os.path.join("sub", "both.safetensors") and said.startswith("kept 100.0%"), (both, said)
        small, said = execute(pack, "LoraToolResize", lora_name=both, rank="4", save_as="small", overwrite=False)
        assert small == "small.safetensors" and (models / "loras" / small).is_file()
        found, said = execute(pack, "LoraToolExtract", base="plain.safetensors", tuned=merged, rank="8",
                              save_as="found", overwrite=False)
        assert lora_tool.compare([models / "loras" / found, llama / "style"])["pairs"][0]["cosine"] > 0.99
        shutil.copy(ROOT / "fixtures" / "diffusers" / "sdxl" / "adapter.safetensors", models / "loras" / "sdxl.safetensors")
        other, said = execute(pack, "LoraToolConvert", lora_name="sdxl.safetensors", convention="diffusers",
                              save_as="sdxl-diffusers", overwrite=False)
        assert said.endswith("kohya to diffusers"), said
        assert lora_tool.diff(models / "loras" / "sdxl.safetensors", models / "loras" / other)["same"]
        report, loads = execute(pack, "LoraToolCheck", lora_name="style.safetensors")
        assert report.startswith("style.safetensors: ") and isinstance(loads, bool), report

        # Nothing is replaced unasked, and nothing is written outside of the folder.
        for save_as, overwrite, words in (("small", False, "set overwrite"), ("../out", True, "is no name"), (" ", True, "is no name")):
            try:
                execute(pack, "LoraToolResize", lora_name=both, rank="2", save_as=save_as, overwrite=overwrite)
            except (FileExistsError, ValueError) as error:
                assert words in str(error), error
            else:
                raise AssertionError(f"{save_as} was written")
        execute(pack, "LoraToolResize", lora_name=both, rank="2", save_as="small", overwrite=True)
    print("6 nodes ran")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
