#!/usr/bin/env python3
"""Runs every node of `integrations/comfyui` in ComfyUI itself: its loader of custom nodes, its validation, its executor.

    comfyui_run.py LORA_TOOL COMFYUI    (COMFYUI: a checkout; with what its requirements.txt names, on the CPU)

A folder of models and custom nodes of its own is made (`--base-directory`), the pack is copied into it as a user does, and
prompts go the way of those that come from a browser. Only the server is a stand-in: it keeps the messages that a browser
would get. Exit 0: all nodes ran, the second time from ComfyUI's cache, and refusals are errors of the node that refused.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class Server:
    """What the executor asks of ComfyUI's server."""

    def __init__(self) -> None:
        self.client_id: str | None = "check"
        self.last_node_id: str | None = None
        self.last_prompt_id: str | None = None
        self.messages: list[tuple[str, Any]] = []

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        self.messages.append((event, data))

    def send_progress_text(self, *_: Any) -> None:
        pass


def models(base: Path) -> None:
    """Small files in the folders that ComfyUI lists, made by the module itself."""
    import lora_tool

    llama, loras, checkpoints = ROOT / "fixtures/llama", base / "models/loras", base / "models/checkpoints"
    for folder in (loras, checkpoints):
        folder.mkdir(parents=True)
    for name in ("style", "task"):
        lora_tool.convert(llama / name, loras / f"{name}.safetensors", to="kohya")
    shutil.copy(ROOT / "fixtures/diffusers/sdxl/adapter.safetensors", loras / "sdxl.safetensors")
    lora_tool.merge(llama / "base", llama / "style", checkpoints / "plain.safetensors", weights=[1e-9])


PROMPTS: list[tuple[str, dict[str, Any], str]] = [
    ("LoraToolMergeAndSave", {"ckpt_name": "plain.safetensors", "lora_name": "style.safetensors", "strength": 1.0,
                              "dtype": "f32", "save_as": "merged"}, "checkpoints/merged.safetensors"),
    ("LoraToolCombine", {"lora_a": "style.safetensors", "strength_a": 0.7, "lora_b": "task.safetensors",
                         "strength_b": 0.3, "rank": "lossless", "save_as": "sub/both"}, "loras/sub/both.safetensors"),
    ("LoraToolResize", {"lora_name": "style.safetensors", "rank": "4", "save_as": "small"}, "loras/small.safetensors"),
    ("LoraToolExtract", {"base": "plain.safetensors", "tuned": "merged.safetensors", "rank": "auto",
                         "save_as": "found"}, "loras/found.safetensors"),
    ("LoraToolConvert", {"lora_name": "sdxl.safetensors", "convention": "diffusers", "save_as": "other"},
     "loras/other.safetensors"),
    ("LoraToolCheck", {"lora_name": "sdxl.safetensors"}, ""),
]


def main() -> int:
    binary, comfyui = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    os.environ["PATH"] = f"{binary.parent}{os.pathsep}{os.environ['PATH']}"
    sys.path[:0] = [str(comfyui), str(ROOT / "python")]
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        models(base)
        shutil.copytree(ROOT / "integrations/comfyui", base / "custom_nodes/lora_tool_nodes")
        sys.argv[1:] = ["--cpu", "--base-directory", str(base)]
        import comfy.options

        comfy.options.enable_args_parsing()
        import utils.extra_config  # noqa: F401 (as `main.py` does: `nodes` puts another `utils` before it)
        import execution
        import nodes
        import server

        asyncio.run(nodes.init_external_custom_nodes())
        missing = [name for name, _, _ in PROMPTS if name not in nodes.NODE_CLASS_MAPPINGS]
        assert not missing, missing
        messages = Server()
        server.PromptServer.instance = messages
        executor = execution.PromptExecutor(messages, cache_args={"lru": 0, "ram": 0})

        def run(name: str, inputs: dict[str, Any]) -> list[tuple[str, Any]]:
            messages.messages.clear()
            prompt = {"1": {"class_type": name, "inputs": inputs}}
            valid, error, outputs, faults = asyncio.run(execution.validate_prompt("check", prompt, None))
            assert valid, (name, error, faults)
            executor.execute(prompt, "check", {"client_id": "check"}, outputs)
            return list(messages.messages)

        for name, inputs, file in PROMPTS:
            if "save_as" in inputs:
                inputs = {**inputs, "overwrite": False}
            said = run(name, inputs)
            assert executor.success, [message for message in said if message[0] == "execution_error"]
            assert not file or (base / "models" / file).is_file(), file
            again = run(name, inputs)
            cached = [data["nodes"] for event, data in again if event == "execution_cached"]
            assert executor.success and cached and "1" in cached[0], (name, again)
            steps = sum(event in ("progress", "progress_state") for event, _ in said)
            print(f"{name}: ran, {steps} messages of progress; the second time from the cache")
        said = run("LoraToolResize", {"lora_name": "style.safetensors", "rank": "2", "save_as": "small",
                                      "overwrite": False})
        errors = [data for event, data in said if event == "execution_error"]
        assert not executor.success and errors and "set overwrite" in errors[0]["exception_message"], said
        print(f"refused: {errors[0]['node_type']}: {errors[0]['exception_message'].strip()}")
    print(f"{len(PROMPTS)} nodes ran in ComfyUI")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
