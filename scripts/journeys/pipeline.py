"""Someone who runs it in a pipeline: exit codes, JSON, the same bytes twice, kills, full and read-only disks.

    python pipeline.py LORA_TOOL FOLDER      (torch, transformers, peft; FOLDER is made; mounts need root)

The model and its adapters are the engineer's, wider; `scripts/faults.py` does the kills and disks at length.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from shown import Tool, arguments, digests
from transformers import LlamaConfig, LlamaForCausalLM

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make(folder: Path) -> None:
    """A base of 200 MB in bf16, and two adapters."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=2048, hidden_size=1024, intermediate_size=2816, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=8)).bfloat16()
    model.save_pretrained(folder / "base", max_shard_size="60MB")
    for seed, name in enumerate(("chat", "code"), 1):
        torch.manual_seed(seed)
        tuned = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=LINEAR))
        for key, parameter in tuned.named_parameters():
            if "lora_B" in key:
                parameter.data = 0.02 * torch.randn_like(parameter)
        tuned.peft_config["default"].base_model_name_or_path = "base"
        tuned.save_pretrained(folder / name)
        model = tuned.unload()


def refusals(tool: Tool) -> None:
    """What cannot be done is exit code 2, one JSON object, and the words on standard error."""
    for line, field in (
        ("merge base nowhere -o x", "file"),
        ("merge base chat -o x --wieghts 1", None),
        ("merge base chat -o x --include nosuch", None),
        ("combine chat code -o chat", "file"),
        ("resize chat --rank many -o x", None),
        ("inspect base/config.json", "file"),
    ):
        tool(line, code=2)
        found = tool.report(line, code=2)
        assert found["tool"] == "lora-tool" and found["exit_code"] == 2 and found["error"], found
        assert found["command"] == line.split()[0] and (field is None or found[field]), found
        print(f"  ==> as JSON: {json.dumps(found, ensure_ascii=False)}")
    assert not (tool.folder / "x").exists()


def answers(tool: Tool) -> None:
    """0 is yes, 1 is no."""
    tool("check chat --for vllm --max-rank 8")
    tool("check chat --for vllm --max-rank 4", code=1)
    tool("diff chat chat")
    tool("diff chat code", code=1)
    tool("merge base chat code -w 0.7 0.3 -o merged --progress none")
    tool("verify merged")
    tool("verify merged --base base --adapter chat", code=1)
    plan = tool.report("merge base chat code -w 0.7 0.3 -o again -n")
    assert plan["dry_run"] and not (tool.folder / "again").exists(), plan


def same_bytes(tool: Tool) -> None:
    """Two runs, one thread and two, one result."""
    for method in ("linear", "dare-ties --density 0.5 --seed 7"):
        results = []
        for threads in (1, 2):
            tool(f"--threads {threads} merge base chat code --method {method} -o same --force -q")
            results.append(digests(tool.folder / "same"))
        assert results[0] == results[1], method
        print(f"  ==> {method}: {len(results[0])} files, the same bytes with 1 thread and 2")


def killed(tool: Tool) -> None:
    """SIGTERM and SIGINT leave nothing; SIGKILL leaves what `clean` names and removes."""
    line = [tool.binary, "merge", "base", "chat", "code", "--method", "ties", "-o", "stopped", "--threads", "1"]
    before = set(os.listdir(tool.folder))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        child = subprocess.Popen(line, cwd=tool.folder, stderr=subprocess.PIPE, text=True)
        while not set(os.listdir(tool.folder)) - before and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(number)
        said, code = child.communicate()[1], child.returncode
        left = sorted(set(os.listdir(tool.folder)) - before)
        print(f"\n$ lora-tool {' '.join(line[1:])}      ({number.name}: {code}, left: {left})\n{said}", end="")
        if number == signal.SIGKILL:
            assert code == -number and left and not (tool.folder / "stopped").exists(), (code, left)
        else:
            assert code == 128 + number and not left, (code, left)
    said = tool("clean . -n")
    assert left[0] in said, said
    tool("merge base chat -o after")
    tool("clean .")
    assert set(os.listdir(tool.folder)) - before == {"after"}, os.listdir(tool.folder)


def disks(tool: Tool) -> None:
    """A full disk is told before a byte is written, a limit as it comes, a read-only one at once."""
    limit = 20_000_000
    said = tool("merge base chat -o limited", code=2,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert "hint: " in said and not (tool.folder / "limited").exists(), said
    for name, options, words in (("small", "size=50m", "space"), ("read-only", "ro", "Read-only")):
        place = tool.folder / name
        place.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True)
        if mounted.returncode:
            print(f"skipped: {name}: {mounted.stderr.decode().strip()}")
            continue
        try:
            for dry in ("", " -n"):
                said = tool(f"merge base chat -o {name}/out{dry}", code=2)
                assert words in said and "hint: " in said and not list(place.iterdir()), said
        finally:
            subprocess.run(["umount", place], check=True)


def main() -> None:
    binary, folder = arguments()
    tool = Tool(binary, folder)
    make(folder)
    inputs = {name: digests(folder / name) for name in ("base", "chat", "code")}
    for part in (refusals, answers, same_bytes, killed, disks):
        print(f"\n# {(part.__doc__ or '').strip()}")
        part(tool)
    assert inputs == {name: digests(folder / name) for name in inputs}
    shutil.rmtree(folder)
    print("\nthe pipeline's journey holds")


main()
