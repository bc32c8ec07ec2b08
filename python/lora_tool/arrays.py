"""Adapters as numpy arrays over the mapped file: nothing is copied where numpy has the type (all but bfloat16 and fp8)."""

from __future__ import annotations

import io
import json
import math
import mmap
import os
import tempfile
from typing import TYPE_CHECKING, Any, Iterator, Tuple

from ._call import LoraToolError, Path, call

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, numpy.dtype[Any]]

# How conventions end the names of the factor of the input, and of the output.
_PAIRS = (
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_down.weight", ".lora_up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_a", ".lora_b"),
)
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "I8": "i1"}


def tensors(file: Path) -> dict[str, Array]:
    """The tensors of a ``.safetensors`` file, by name: read-only views of the mapped file; bfloat16 as float32, copied."""
    import numpy

    with io.open(file, "rb") as stream:
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        begin, count = start + entry["data_offsets"][0], math.prod(entry["shape"])
        if entry["dtype"] == "BF16":
            halves = numpy.frombuffer(data, "<u2", count, begin)
            flat = (halves.astype("<u4") << 16).view("<f4")
        elif entry["dtype"] in _TYPES:
            flat = numpy.frombuffer(data, _TYPES[entry["dtype"]], count, begin)
        else:
            raise TypeError(f"{os.fspath(file)}: {name} is {entry['dtype']}, which numpy has not")
        found[name] = flat.reshape(entry["shape"])
    return found


class Module:
    """One module of an adapter: W' = W + ``scale`` · B · A."""

    def __init__(self, report: dict[str, Any], factors: tuple[Array, Array] | None) -> None:
        self.name: str = report["name"]
        self.family: str = report["family"]
        self.rank: int = report["rank"]
        self.scale: float = report["scale"]
        self._factors = factors

    def factors(self) -> Tuple[Array, Array]:
        """A (rank × inputs) and B (outputs × rank), as stored; what is not a plain LoRA has none."""
        if self._factors is None:
            raise ValueError(f"{self.name}: a {self.family} module is not two factors; "
                             "lora_tool.convert(adapter, out, as_='lora', rank=...) makes it so")
        return self._factors

    def delta(self) -> Array:
        """scale · B · A (outputs × inputs, or the shape of a convolution's weight), in float32."""
        down, up = self.factors()
        product = up.reshape(len(up), -1).astype("f4") @ down.reshape(len(down), -1).astype("f4")
        return self.scale * product.reshape((len(up), *down.shape[1:]))


class Adapter:
    """An open adapter: its modules in natural order, and by name."""

    def __init__(self, path: Path) -> None:
        item = call("inspect", path, modules=True)["items"][0]
        if item["kind"] != "adapter":
            raise ValueError(f"{os.fspath(path)} is no adapter")
        self.path, self.convention = os.fspath(path), item["convention"]
        inside = os.path.join(self.path, "adapter_model.safetensors")
        stored = tensors(inside if os.path.isdir(self.path) else self.path)
        pairs = _pairs(stored)
        self.modules = {report["name"]: Module(report, _of(report, pairs)) for report in item["modules"]}

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules.values())

    def __len__(self) -> int:
        return len(self.modules)

    def __getitem__(self, name: str) -> Module:
        return self.modules[name]

    def state_dict(self, to: str = "peft") -> dict[str, Array]:
        """The same update as tensors of another convention (``"peft"``, ``"kohya"``, ``"diffusers"``, ``"comfyui"``)."""
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "converted" if to == "peft" else "converted.safetensors")
            call("convert", self.path, to=to, output=out)
            # Copied: the folder goes with this function.
            file = os.path.join(out, "adapter_model.safetensors") if to == "peft" else out
            return {name: array.copy() for name, array in tensors(file).items()}


def _pairs(stored: dict[str, Array]) -> dict[str, tuple[Array, Array]]:
    """Factors by what their names begin with."""
    found = {}
    for name, array in stored.items():
        for down, up in _PAIRS:
            partner = name[:-len(down)] + up
            if name.endswith(down) and partner in stored:
                found[name[:-len(down)]] = (array, stored[partner])
    return found


def _of(report: dict[str, Any], pairs: dict[str, tuple[Array, Array]]) -> tuple[Array, Array] | None:
    """A module's factors, if it is a plain LoRA: its name, or all but what stands before it."""
    if report["family"] != "lora":
        return None
    name = report["name"]
    if name in pairs:
        return pairs[name]
    found = [pair for stem, pair in pairs.items() if stem.endswith("." + name)]
    if len(found) != 1:
        raise LoraToolError(f"{name}: its factors are not stored as two tensors of its name; "
                            "convert the adapter to PEFT's convention first", 2)
    return found[0]



def open(path: Path) -> Adapter:  # noqa: A001 (called as `lora_tool.open`)
    """Opens an adapter: its modules, with factors as numpy arrays over the mapped file."""
    return Adapter(path)
