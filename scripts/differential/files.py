"""safetensors files, written and read by plain code of its own; values are f64 arrays."""

import json
import os
import struct

import numpy as np

NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
# Bits of the significand, exponent of the least normal number.
PRECISION = {"F64": (53, -1022), "F32": (24, -126), "F16": (11, -14), "BF16": (8, -126)}


def encode(values, dtype):
    """The bytes of values rounded to nearest even."""
    values = np.ascontiguousarray(values)
    if dtype != "BF16":
        return values.astype(NUMPY[dtype]).tobytes()
    # From f64 in one rounding: to f32 rounded to odd, then to the upper half.
    narrow = values.astype(np.float32)
    bits = narrow.view(np.uint32).astype(np.int64)
    inexact = narrow.astype(np.float64) != values
    away = np.abs(narrow.astype(np.float64)) > np.abs(values)
    bits = np.where(inexact, np.where(away, bits - 1, bits) | 1, bits)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype(np.uint16).tobytes()


def decode(data, dtype, shape):
    if dtype == "BF16":
        bits = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape).astype(np.float64)
    return np.frombuffer(data, NUMPY[dtype]).reshape(shape).astype(np.float64)


def rounded(values, dtype):
    values = np.asarray(values, dtype=np.float64)
    return decode(encode(values, dtype), dtype, values.shape)


def ulp(values, dtype):
    """The distance of the dtype's numbers around each value."""
    digits, least = PRECISION[dtype]
    exponent = np.floor(np.log2(np.maximum(np.abs(values), 2.0**least)))
    return 2.0 ** (exponent - digits + 1)


def write(path, tensors, metadata=None):
    """`tensors` is {name: (dtype, values)}."""
    header, parts, at = {}, [], 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, values) in tensors.items():
        data = encode(values, dtype)
        span = [at, at + len(data)]
        header[name] = {"dtype": dtype, "shape": list(np.shape(values)), "data_offsets": span}
        at += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))


def read(path):
    """({name: (dtype, shape, bytes)}, metadata) of a file, or of all files of a directory."""
    if os.path.isdir(path):
        found = {}
        for name in sorted(os.listdir(path)):
            if name.endswith(".safetensors"):
                tensors, _ = read(os.path.join(path, name))
                assert not set(tensors) & set(found), "a tensor in two files"
                found.update(tensors)
        return found, None
    with open(path, "rb") as file:
        data = file.read()
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    metadata = header.pop("__metadata__", None)
    cut = lambda entry: body[entry["data_offsets"][0] : entry["data_offsets"][1]]
    return {n: (e["dtype"], e["shape"], cut(e)) for n, e in header.items()}, metadata


def save_base(path, tensors, config, shards, rng):
    """A directory of one or several weight files with an index and a config."""
    os.makedirs(path)
    with open(os.path.join(path, "config.json"), "w") as file:
        json.dump(config, file)
    names = list(tensors)
    if shards == 1:
        write(os.path.join(path, "model.safetensors"), tensors)
        return
    rng.shuffle(names)
    files, where = {}, {}
    for at, name in enumerate(names):
        shard = f"model-{at % shards + 1:05}-of-{shards:05}.safetensors"
        files.setdefault(shard, {})[name] = tensors[name]
        where[name] = shard
    for shard, part in files.items():
        write(os.path.join(path, shard), part)
    with open(os.path.join(path, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {}, "weight_map": where}, file)
