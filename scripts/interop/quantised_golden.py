"""Cases of fixtures/quant for encodings that have none by others. usage: quantised_golden.py OUTPUT_DIR

As quantised.py's, small and with one seed: base and adapter, of every quantised weight shape and SHA-256 of the f32 bytes
that the package reads, and the stored tensors that it makes of the merged weights."""
import hashlib
import json
import os
import shutil
import sys

import numpy as np
import torch
from safetensors.torch import save_file

from quantised import raw
from quantised_models import make
from quantisers import bitsandbytes_, casts, comfy, compressed, fp8, gptq, mlx_, modelopt_

# Case, scheme, largest size, form of experts that stand beside.
PACKED = dict(num_bits=4, strategy="group", group_size=32, symmetric=False)
CASES = [
    ("bnb_nf4_nested_experts_odd", bitsandbytes_.FourBit("nf4", True, 64), 90, "stack"),
    ("comfy_int8", comfy.Read("int8_tensorwise"), 90, ""),
    ("comfy_mxfp8", comfy.Read("mxfp8"), 90, ""),
    ("comfy_nvfp4", comfy.Read("nvfp4"), 90, ""),
    ("comfy_metadata_e5m2", comfy.Scaled("by the header", torch.float8_e5m2), 90, ""),
    ("fp8_block_ue8m0_experts", fp8.Blocks((128, 128), torch.float32), 270, "stack"),
    ("fp8_plain_e5m2", casts.Cast(torch.float8_e5m2), 90, ""),
    ("gptq_v2_asym_actorder", gptq.Gptq(4, 32, False, True, 2), 100, ""),
    ("int4_asym_gidx_ct", compressed.Compressed("", "pack-quantized", **PACKED, actorder="group"), 100, ""),
    ("int8_asym_channel_ct", compressed.Compressed("", "int-quantized", num_bits=8, strategy="channel", symmetric=False), 90, ""),
    ("int8_pack_channel_ragged_ct", compressed.Compressed("", "pack-quantized", num_bits=8, strategy="channel"), 90, ""),
    ("mlx_q3_g32", mlx_.Affine(3, 32), 100, "switch"),
    ("mlx_q6_g64", mlx_.Affine(6, 64), 140, ""),
    ("nvfp4_modelopt", modelopt_.Nvfp4(), 90, ""),
]


def write(out, name, scheme, largest, form):
    torch.manual_seed(len(name))
    case_dir = os.path.join(out, name)
    shutil.rmtree(case_dir, ignore_errors=True)
    os.makedirs(case_dir)
    scheme.experts = (form,) if form else ()
    # Odd numbers of elements where the scheme takes them.
    case = make(scheme, case_dir, np.random.default_rng(len(name)), largest, touch_experts=False)
    read = {weight: {"shape": list(case.values[weight].shape), "sha256": hashlib.sha256(raw(case.values[weight])).hexdigest()}
            for weight in case.quantised}
    json.dump(read, open(os.path.join(case_dir, "dequantised.json"), "w"), indent=1)
    written = {}
    if not scheme.written:
        return
    for weight, (delta, _) in case.updates.items():
        if weight in case.quantised:
            written |= scheme.store(weight, (case.values[weight].double() + delta).float())
    save_file(written, os.path.join(case_dir, "requantised.safetensors"))


for arguments in CASES:
    write(sys.argv[1], *arguments)
