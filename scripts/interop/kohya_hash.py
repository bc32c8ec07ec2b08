"""The hashes that kohya's scripts would give a file, and whether it carries them.

    python kohya_hash.py FILE...            prints both hashes, and what the header says
    python kohya_hash.py --made             the hashes of the file that tests/metadata.rs makes anew

The algorithm is `precalculate_safetensors_hashes` of kohya-ss/sd-scripts (library/train_util.py),
done anew on the real safetensors package.
"""

import hashlib
import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save


def hashes(tensors, metadata):
    data = save(tensors, {k: v for k, v in metadata.items() if k.startswith("ss_")})
    start = int.from_bytes(data[:8], "little") + 8
    model = hashlib.sha256(data[start:]).hexdigest()
    legacy = hashlib.sha256(data[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8]
    return model, legacy


def check(path):
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    expected = hashes(load_file(path), metadata)
    found = metadata.get("sshs_model_hash"), metadata.get("sshs_legacy_hash")
    print(path, *expected, "the header agrees" if expected == found else f"the header says {found}")
    return expected == found


def made():
    tensors = {}
    for name in ("lora_unet_b", "lora_unet_a"):
        tensors[f"{name}.lora_down.weight"] = (torch.arange(64 * 4200) % 1021).view(64, 4200).half()
        tensors[f"{name}.lora_up.weight"] = (torch.arange(64 * 64) % 7).view(64, 64).half()
        tensors[f"{name}.alpha"] = torch.tensor(64.0)
    metadata = {"ss_network_dim": "64", "ss_note": 'Umlaut ä, "quoted"\n', "modelspec.title": "x"}
    print(*hashes(tensors, metadata))


if __name__ == "__main__":
    if sys.argv[1] == "--made":
        made()
    else:
        sys.exit(0 if all([check(path) for path in sys.argv[1:]]) else 1)
