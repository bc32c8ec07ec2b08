"""Random adapters in several spellings, and adapter files read back as dense updates."""

import json
import os
import re
from dataclasses import dataclass, field

import numpy as np

import files

PEFT = "base_model.model."
# How files name modules, and with it the part of a model; a base of one part holds whichever is asked for.
PREFIXES = {
    "peft": [""],
    "kohya": ["lora_unet_", "lora_te_", "lora_te1_", "lora_transformer_", "lycoris_"],
    "comfyui": ["diffusion_model."],
    "diffusers": ["transformer.", "unet."],
}
# (down, up), in any of which the factors of a file with any prefix are read.
SUFFIXES = [
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
]


def flat(name):
    return name.replace(".", "_")


@dataclass
class Update:
    """One module: what it adds to its layer, outputs × inputs, and how large the terms of it are."""

    layer: object
    name: str
    delta: np.ndarray
    size: np.ndarray
    rank: int
    magnitude: np.ndarray = None


@dataclass
class Adapter:
    path: str
    convention: str
    updates: list = field(default_factory=list)


def low_rank(up, down, scale):
    return scale * (up @ down), abs(scale) * (np.abs(up) @ np.abs(down))


class Maker:
    """Writes one adapter for some layers of a base."""

    def __init__(self, rng, path, convention, layers, dora=False, prefix=None):
        self.rng, self.path, self.convention = rng, path, convention
        # Other families than LoRA have no factors that every verb takes.
        self.layers, self.dora, self.families = layers, dora, prefix is None
        self.dtype = str(rng.choice(["F32", "F16", "BF16", "F64"], p=[0.5, 0.2, 0.25, 0.05]))
        self.prefix = str(rng.choice(PREFIXES[convention])) if prefix is None else prefix
        self.tensors = {}
        self.rank, self.alpha = int(rng.integers(1, 9)), float(rng.choice([1, 2, 4, 8, 0.5, 3]))
        # How many of the spellings a file mixes.
        self.suffixes = int(rng.integers(1, len(SUFFIXES) + 1))
        self.rslora = convention == "peft" and rng.random() < 0.3
        self.ranks, self.alphas = {}, {}

    def spell(self, name):
        """The module's name in the file, without PEFT's prefix."""
        return self.prefix + (flat(name) if self.convention == "kohya" else name)

    def factor(self, key, *shape, shift=0.0):
        values = files.rounded(self.rng.normal(0, 0.5, shape) + shift, self.dtype)
        self.tensors[key] = (self.dtype, values)
        return values

    def numbers(self, layer):
        """Rank and scale of a module."""
        rng = self.rng
        rank, alpha = self.rank, self.alpha
        if self.convention == "peft":
            # Patterns end with the module's name, as PEFT matches them.
            if rng.random() < 0.2:
                rank = self.ranks.setdefault(layer.name, int(rng.integers(1, 7)))
            if rng.random() < 0.2:
                alpha = self.alphas.setdefault(layer.name, float(rng.choice([0.5, 3, 5])))
            return rank, alpha / (rank**0.5 if self.rslora else rank)
        rank = int(rng.integers(1, 9))
        if self.convention == "diffusers" or rng.random() < 0.2:
            return rank, 1.0
        alpha = files.rounded(rng.choice([1.0, 4.0, 0.3, 7.0]), self.dtype)
        self.tensors[f"{self.spell(layer.name)}.alpha"] = (self.dtype, alpha)
        return rank, float(alpha) / rank

    def make(self):
        made = Adapter(self.path, self.convention)
        for layer in self.layers:
            family = self.family(layer)
            rank, scale = self.numbers(layer)
            delta, size = getattr(self, family)(layer, rank, scale)
            # As factors, the products of other families are deeper.
            depth = rank * {"lora": 1, "loha": rank, "lokr": 3}[family]
            update = Update(layer, self.spell(layer.name), delta, size, depth)
            if self.dora:
                update.magnitude = self.magnitude(layer)
            made.updates.append(update)
        self.save()
        return made

    def family(self, layer):
        chance = self.rng.random()
        if self.convention == "kohya" and self.families and not layer.place:
            if chance < 0.15:
                return "loha"
            if chance < 0.3 and layer.kind == "linear":
                return "lokr"
        return "lora"

    def lora(self, layer, rank, scale):
        name = self.spell(layer.name)
        name = PEFT + name if self.convention == "peft" else name
        down_shape, up_shape = (rank, layer.inputs), (layer.outputs, rank)
        if layer.kernel:
            down_shape = (rank, layer.inputs, *layer.kernel)
            up_shape = (layer.outputs, rank, *(1 for _ in layer.kernel))
        if layer.kind == "embedding" and self.convention == "peft":
            down, up = f"{name}.lora_embedding_A", f"{name}.lora_embedding_B"
        elif self.convention == "peft":
            down, up = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        else:
            down, up = (name + suffix for suffix in SUFFIXES[self.rng.integers(self.suffixes)])
        down = self.factor(down, *down_shape).reshape(rank, -1)
        up = self.factor(up, *up_shape).reshape(layer.outputs, rank)
        return low_rank(up, down, scale)

    def loha(self, layer, rank, scale):
        """(w1_a·w1_b) ∘ (w2_a·w2_b), LyCORIS's Hadamard product."""
        name = self.spell(layer.name)
        inputs = layer.inputs * int(np.prod(layer.kernel or 1))
        parts = [self.factor(f"{name}.hada_w{n}_a", layer.outputs, rank)
                 @ self.factor(f"{name}.hada_w{n}_b", rank, inputs) for n in (1, 2)]
        bound = [np.abs(self.tensors[f"{name}.hada_w{n}_a"][1])
                 @ np.abs(self.tensors[f"{name}.hada_w{n}_b"][1]) for n in (1, 2)]
        return scale * parts[0] * parts[1], abs(scale) * bound[0] * bound[1]

    def lokr(self, layer, rank, scale):
        """w1 ⊗ (w2_a·w2_b), LyCORIS's Kronecker product."""
        name = self.spell(layer.name)
        first = [max(d for d in (1, 2, 3) if size % d == 0) for size in (layer.outputs, layer.inputs)]
        w1 = self.factor(f"{name}.lokr_w1", *first)
        a = self.factor(f"{name}.lokr_w2_a", layer.outputs // first[0], rank)
        b = self.factor(f"{name}.lokr_w2_b", rank, layer.inputs // first[1])
        return scale * np.kron(w1, a @ b), abs(scale) * np.kron(np.abs(w1), np.abs(a) @ np.abs(b))

    def magnitude(self, layer):
        name = PEFT + layer.name
        shape = (1, layer.outputs, *(1 for _ in layer.kernel)) if layer.kernel else (layer.outputs,)
        ending = "" if self.rng.random() < 0.5 else ".weight"
        values = self.factor(f"{name}.lora_magnitude_vector{ending}", *shape, shift=3.0)
        return values.reshape(-1)

    def conv1d_last(self):
        wrapped = [layer for layer in self.layers if layer.kind == "linear" and not layer.place]
        return bool(wrapped and wrapped[-1].turned)

    def save(self):
        if self.convention != "peft":
            files.write(self.path, self.tensors, {"format": "pt"})
            return
        config = {
            "peft_type": "LORA", "base_model_name_or_path": "base", "r": self.rank,
            "lora_alpha": self.alpha, "bias": "none", "use_rslora": self.rslora,
            "use_dora": self.dora, "target_modules": ["x"], "rank_pattern": self.ranks,
            "alpha_pattern": self.alphas,
            # PEFT writes what the last layer that it wrapped needed.
            "fan_in_fan_out": self.conv1d_last(),
        }
        os.makedirs(self.path)
        with open(os.path.join(self.path, "adapter_config.json"), "w") as file:
            json.dump(config, file)
        path = os.path.join(self.path, "adapter_model.safetensors")
        files.write(path, self.tensors, {"format": "pt"})


ENDINGS = {".lora_down.weight": "down", ".lora_up.weight": "up", ".lora_A.weight": "down",
           ".lora_B.weight": "up", ".lora_embedding_A": "down", ".lora_embedding_B": "up",
           ".alpha": "alpha"}


def updates(path):
    """{flattened module name: dense update} of a LoRA file, or of a PEFT directory."""
    config, file = None, path
    if os.path.isdir(path):
        with open(os.path.join(path, "adapter_config.json")) as text:
            config = json.load(text)
        file = os.path.join(path, "adapter_model.safetensors")
    tensors, metadata = files.read(file)
    stated = json.loads((metadata or {}).get("lora_adapter_metadata", "{}"))
    modules = {}
    for key, (dtype, shape, data) in tensors.items():
        ending = next((ending for ending in ENDINGS if key.endswith(ending)), None)
        assert ending, f"{key}: a tensor of no known part"
        modules.setdefault(key[: -len(ending)], {})[ENDINGS[ending]] = files.decode(data, dtype, shape)
    found = {}
    for module, parts in modules.items():
        up, down = parts["up"], parts["down"]
        rank = down.shape[0]
        scale = scale_of(module, parts, rank, config, stated)
        found[bare(module)] = scale * (up.reshape(up.shape[0], rank) @ down.reshape(rank, -1))
    return found


def bare(module):
    for prefix in [PEFT, *(prefix for prefixes in PREFIXES.values() for prefix in prefixes)]:
        module = module.removeprefix(prefix)
    return flat(module)


def scale_of(module, parts, rank, config, stated):
    if "alpha" in parts:
        return float(parts["alpha"]) / rank
    name = module.removeprefix(PEFT)
    if config is None:
        component, _, name = module.partition(".")
        config = {key.removeprefix(f"{component}."): value for key, value in stated.items()}
        if "r" not in config:
            return 1.0
    alpha = config["lora_alpha"]
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            alpha = value
            break
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)
