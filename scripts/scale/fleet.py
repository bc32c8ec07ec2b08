"""What the scripts of this folder share: a base of many shards, an adapter for it, and the command."""

import hashlib
import json
import random
import struct
import subprocess
import sys
from pathlib import Path

HIDDEN, RANK = 2048, 16
MODULES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj")
# The high byte of a bf16 keeps its sign and gets an exponent between 2^-7 and 2^-5: finite, of a weight's size.
EXPONENTS = bytes((byte & 0x80) | 0x3C | (byte & 0x01) for byte in range(256))


def bf16(count, seed):
    """Bytes of `count` random finite bf16 numbers."""
    data = bytearray(random.Random(seed).randbytes(2 * count))
    data[1::2] = data[1::2].translate(EXPONENTS)
    return bytes(data)


def write_safetensors(file, tensors, metadata=None):
    """Writes tensors, name -> (dtype, shape, bytes), in order."""
    header, at = {"__metadata__": metadata or {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(file, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            out.write(data)


def make_base(folder, total_bytes, shards):
    """A base of `shards` files and about `total_bytes`: decoder layers of square linears."""
    folder.mkdir(parents=True)
    linear = 2 * HIDDEN * HIDDEN
    count = max(shards, total_bytes // linear)
    names = [f"model.layers.{at // len(MODULES)}.{MODULES[at % len(MODULES)]}.weight" for at in range(count)]
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        mine = names[shard * count // shards:(shard + 1) * count // shards]
        weight_map |= dict.fromkeys(mine, file)
        tensors = {name: ("BF16", [HIDDEN, HIDDEN], bf16(HIDDEN * HIDDEN, name)) for name in mine}
        write_safetensors(folder / file, tensors)
    index = {"metadata": {"total_size": count * linear}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    config = {"model_type": "llama", "hidden_size": HIDDEN, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    return names


def make_adapter(folder, base_names, base=None):
    """A PEFT adapter of rank 16 on two of three linears of the base."""
    folder.mkdir(parents=True)
    tensors = {}
    for name in (name for at, name in enumerate(base_names) if at % 3 != 2):
        key = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{key}.lora_A.weight"] = ("BF16", [RANK, HIDDEN], bf16(RANK * HIDDEN, key + "A"))
        tensors[f"{key}.lora_B.weight"] = ("BF16", [HIDDEN, RANK], bf16(RANK * HIDDEN, key + "B"))
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj"],
              "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def hashes(folder):
    """The SHA-256 of every file below a directory."""
    def sha256(file):
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    return {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def command(binary, *arguments, expect=0, env=None):
    """Runs lora-tool and returns what it printed; ends the script if its exit code is another one."""
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, check=False, env=env)
    if done.returncode != expect:
        sys.exit(f"lora-tool {' '.join(map(str, arguments))}: exit {done.returncode}, not {expect}\n{done.stderr}")
    return done.stdout + done.stderr


def expect(holds, what):
    """Prints what holds; ends the script if it does not."""
    if not holds:
        sys.exit(f"WRONG: {what}")
    print(f"ok: {what}", flush=True)
