#!/usr/bin/env python3
"""Combine and resize, side by side with the peers' dense SVDs.

`make` writes adapters of real models' shapes; `run` times lora-tool on them and, with --peft and
--dense, PEFT's `svd` on one layer and the dense SVD that kohya's resize makes of every module, and
scales those up to the whole adapter. CPU seconds are user + system of the whole process.
"""

import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

LLAMA = {
    "self_attn.q_proj": (4096, 4096), "self_attn.k_proj": (4096, 4096),
    "self_attn.v_proj": (4096, 4096), "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (11008, 4096), "mlp.up_proj": (11008, 4096), "mlp.down_proj": (4096, 11008),
}
LLAMA_LAYERS = 32
# Linear modules of an SDXL U-Net's attention blocks: (width, how many transformer blocks).
SDXL = [(640, 10), (1280, 60)]


def write(path, tensors):
    """Writes f32 arrays as a safetensors file."""
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, array in tensors.items():
        end = start + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(array.tobytes())


def factors(rng, rows, columns, rank):
    """A and B with a falling spectrum."""
    falloff = (0.9 ** np.arange(rank)).astype(np.float32)
    down = rng.standard_normal((rank, columns), dtype=np.float32) / np.sqrt(columns)
    up = rng.standard_normal((rows, rank), dtype=np.float32) * falloff / np.sqrt(rows)
    return np.float32(down), np.float32(up)


def make_llama(directory, seed, rank):
    """A PEFT adapter of Llama-7B's shape on all seven linear layers."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in range(LLAMA_LAYERS):
        for name, (rows, columns) in LLAMA.items():
            down, up = factors(rng, rows, columns, rank)
            key = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{key}.lora_A.weight"], tensors[f"{key}.lora_B.weight"] = down, up
    os.makedirs(directory, exist_ok=True)
    write(os.path.join(directory, "adapter_model.safetensors"), tensors)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "llama-7b",
              "r": rank, "lora_alpha": 2 * rank, "bias": "none",
              "target_modules": sorted(name.split(".")[1] for name in LLAMA)}
    with open(os.path.join(directory, "adapter_config.json"), "w") as file:
        json.dump(config, file, indent=2)


def sdxl_shapes():
    """(name, rows, columns) of the modules of a kohya LoRA for SDXL's U-Net."""
    for width, blocks in SDXL:
        for block in range(blocks):
            at = f"lora_unet_w{width}_transformer_blocks_{block}"
            for attention, context in (("attn1", width), ("attn2", 2048)):
                for part, columns in (("to_q", width), ("to_k", context), ("to_v", context), ("to_out_0", width)):
                    yield f"{at}_{attention}_{part}", width, columns
            yield f"{at}_ff_net_0_proj", 8 * width, width
            yield f"{at}_ff_net_2", width, 4 * width


def make_sdxl(path, seed, rank):
    """A kohya-style file of SDXL's shape."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, rows, columns in sdxl_shapes():
        down, up = factors(rng, rows, columns, rank)
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = down, up
        tensors[f"{name}.alpha"] = np.array(rank / 2, dtype=np.float32)
    write(path, tensors)


def timed(command):
    """(wall, CPU seconds, peak anonymous MiB) of a command."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        try:
            with open(f"/proc/{process.pid}/status") as file:
                found = [line for line in file if line.startswith("RssAnon")]
            peak = max(peak, int(found[0].split()[1]) if found else 0)
        except (FileNotFoundError, ProcessLookupError):
            pass
        time.sleep(0.005)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, peak / 1024


def dense_seconds(shapes, torch):
    """CPU seconds of one dense SVD of each shape, as kohya's scripts call it."""
    seconds = {}
    for rows, columns in shapes:
        matrix = torch.randn(rows, columns)
        start = time.process_time()
        torch.linalg.svd(matrix)
        seconds[rows, columns] = time.process_time() - start
    return seconds


def peft_layer_seconds(rank):
    """CPU seconds of PEFT's add_weighted_adapter(combination_type="svd") on one Llama-7B layer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=1,
                         num_attention_heads=32, vocab_size=32)
    targets = [name.split(".")[1] for name in LLAMA]
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, init_lora_weights=False)
    model = get_peft_model(LlamaForCausalLM(config), lora, adapter_name="a")
    model.add_adapter("b", lora)
    start = time.process_time()
    with torch.no_grad():
        model.add_weighted_adapter(["a", "b"], [0.7, 0.3], "ab", combination_type="svd", svd_rank=rank)
    return time.process_time() - start


def report(label, runs):
    """Prints medians of (wall, CPU, MiB) runs; gives the median CPU seconds."""
    columns = list(zip(*runs))
    wall, cpu, peak = (statistics.median(column) for column in columns)
    spread = f"{min(columns[1]):.2f}–{max(columns[1]):.2f}"
    print(f"{label:44} wall {wall:7.2f} s   CPU {cpu:7.2f} s ({spread})   peak anonymous {peak:6.0f} MiB")
    return cpu


def run(arguments):
    """Times everything and prints the ratios."""
    tool, directory = arguments.lora_tool, arguments.dir
    scratch = tempfile.mkdtemp(dir=directory)
    try:
        out = os.path.join(scratch, "out")
        combine, resize = [], []
        for _ in range(arguments.runs):
            shutil.rmtree(out, ignore_errors=True)
            combine.append(timed([tool, "-q", "combine", f"{directory}/llama-a", f"{directory}/llama-b",
                                  "-w", "0.7", "0.3", "-o", out, "--rank", "16"]))
            resize.append(timed([tool, "-q", "resize", f"{directory}/sdxl.safetensors", "--force",
                                 "-o", f"{scratch}/sdxl.safetensors", "--rank", "32"]))
        ours = report("combine, two r = 16 Llama-7B adapters to 16", combine)
        ours_resize = report("resize, SDXL rank 64 to 32", resize)
    finally:
        shutil.rmtree(scratch)
    if arguments.peft:
        layer = peft_layer_seconds(16)
        print(f"PEFT svd: one layer {layer:.0f} CPU s, {LLAMA_LAYERS} layers {layer * LLAMA_LAYERS:.0f} CPU s"
              f" (scaled): {layer * LLAMA_LAYERS / ours:.0f} times as much")
    if arguments.dense:
        import torch
        shapes = [(rows, columns) for _, rows, columns in sdxl_shapes()]
        seconds = dense_seconds(sorted(set(shapes)), torch)
        whole = sum(seconds[shape] for shape in shapes)
        print(f"dense SVDs of {len(shapes)} SDXL modules: {whole:.0f} CPU s (one of each shape, scaled): "
              f"{whole / ours_resize:.0f} times as much")


def main():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="write the adapters")
    make.add_argument("--dir", required=True)
    timing = commands.add_parser("run", help="time lora-tool, and the peers if asked")
    timing.add_argument("--dir", required=True)
    timing.add_argument("--lora-tool", required=True)
    timing.add_argument("--runs", type=int, default=5)
    timing.add_argument("--peft", action="store_true", help="PEFT's svd on one layer (minutes)")
    timing.add_argument("--dense", action="store_true", help="the dense SVDs of kohya's resize")
    arguments = parser.parse_args()
    if arguments.command == "make":
        os.makedirs(arguments.dir, exist_ok=True)
        for seed, name in enumerate(("llama-a", "llama-b")):
            make_llama(os.path.join(arguments.dir, name), seed, 16)
        make_sdxl(os.path.join(arguments.dir, "sdxl.safetensors"), 3, 64)
    else:
        run(arguments)


if __name__ == "__main__":
    main()
