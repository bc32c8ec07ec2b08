"""Fresh models for quantised.py: random matrices of ragged sizes and a layer of experts, quantised by a package, and an
adapter of some of them.

Layer 0 has single matrices; one is not quantised. Layer 1 has experts in one of the forms that the scheme has:

  single   mlp.experts.N.{gate,up,down}_proj.weight
  stack    mlp.experts.{gate_up,down}_proj [experts, outputs, inputs]
  turned   the same [experts, inputs, outputs], gate and up in turns (gpt-oss)
  switch   mlp.switch_mlp.{gate,up,down}_proj.weight [experts, outputs, inputs] (MLX)

The adapter is PEFT's, of modules (of single experts too, whatever the base's form) or of whole parameters; for MLX mlx-lm's."""
import dataclasses
import json
import math
import os

import numpy as np
import torch
from safetensors.torch import save_file

LANGUAGE = {
    "q": "model.layers.0.self_attn.q_proj", "k": "model.layers.0.self_attn.k_proj",
    "plain": "model.layers.0.self_attn.v_proj", "o": "model.layers.0.self_attn.o_proj",
    "down": "model.layers.0.mlp.down_proj",
}
DIFFUSION = {
    "q": "double_blocks.0.img_attn.proj", "k": "double_blocks.0.txt_attn.proj",
    "plain": "double_blocks.0.img_mod.lin", "o": "double_blocks.0.txt_mlp.0", "down": "double_blocks.0.img_mlp.0",
}
TOUCHED = ("q", "plain", "down")
EXPERTS = "model.layers.1.mlp.experts"
# B · A is multiplied by this.
SCALE = 2.0


@dataclasses.dataclass
class Case:
    """A base, an adapter, and what is known of both."""

    base: str = ""
    adapter: str = ""
    # All stored tensors.
    tensors: dict = dataclasses.field(default_factory=dict)
    # Every weight as the package reads it, in f32.
    values: dict = dataclasses.field(default_factory=dict)
    # Of weights that the adapter touches, what it adds and the magnitudes of all its terms, both in f64.
    updates: dict = dataclasses.field(default_factory=dict)
    # Names of those that are quantised, and of one that is not; those that are loaded with one that is touched.
    quantised: list = dataclasses.field(default_factory=list)
    plain: str = ""
    together: set = dataclasses.field(default_factory=set)
    # Tensors of the adapter, by module and letter; parameters that it adapts whole.
    factors: dict = dataclasses.field(default_factory=dict)
    parameters: list = dataclasses.field(default_factory=list)
    form: str = ""

    def add(self, name, up, down, place=...):
        """Factors of a weight, or of some places of it."""
        if name not in self.updates:
            self.updates[name] = [torch.zeros_like(self.values[name], dtype=torch.float64) for _ in range(2)]
        delta, terms = self.updates[name]
        delta[place] += SCALE * (up.double() @ down.double())
        terms[place] += SCALE * (up.double().abs() @ down.double().abs())


def size(rng, multiple, most=400):
    """A random size about 40 to `most`, a multiple of this."""
    least = -(-40 // multiple)
    return multiple * int(rng.integers(least, max(least + 2, most // multiple)))


def matrix(scheme, rng, shape):
    """Random numbers about 0.02 or 0.3, with a row of zeros where the scheme takes one."""
    weight = torch.from_numpy(rng.standard_normal(shape).astype(np.float32) * float(rng.choice([0.02, 0.3])))
    if scheme.zero_rows:
        weight[..., 3, :] = 0
    return weight


def pair(rng, shape, rank, like):
    """A and B of a weight of outputs × inputs, whose product is some tenths of it."""
    scale = 0.1 * float(like.abs().mean())
    down = torch.from_numpy((rng.standard_normal((rank, shape[1])) * scale).astype(np.float32))
    return down, torch.from_numpy(rng.standard_normal((shape[0], rank)).astype(np.float32))


def make(scheme, root, rng, largest=400, touch_experts=True):
    """Writes the base and the adapter."""
    case, names = Case(), DIFFUSION if scheme.single_file else LANGUAGE
    mlx, fixed = "switch" in scheme.experts and touch_experts, int(rng.integers(1, 9))
    rank = lambda: fixed if mlx else int(rng.integers(1, 9))
    for key, module in names.items():
        shape = [size(rng, scheme.rows, largest), size(rng, scheme.columns, largest)]
        name = f"{module}.weight"
        weight = matrix(scheme, rng, shape)
        if key == "plain" or scheme.experts == ("turned",):
            case.tensors[name] = weight.to(scheme.plain_dtype or getattr(torch, scheme.dtype))
            case.values[name] = case.tensors[name].float()
        else:
            store(scheme, case, name, weight)
        if key in TOUCHED:
            down, up = pair(rng, shape, rank(), weight)
            case.factors[module] = (down, up)
            case.add(name, up, down)
    case.plain = f"{names['plain']}.weight"
    if not scheme.single_file and f"{names['k']}.weight" in case.quantised:
        case.together.add(f"{names['k']}.weight")
    if scheme.experts:
        case.form = str(rng.choice(scheme.experts))
        add_experts(scheme, case, rng, rank, largest, touch_experts)
    case.tensors |= scheme.model()
    skipped = [names["plain"]] + ([] if scheme.single_file else ["lm_head", "model.layers.1.mlp.gate"])
    case.base = write_base(scheme, root, case, skipped, rng)
    case.adapter = (write_mlx if mlx else write_peft)(root, case, fixed)
    return case


def store(scheme, case, name, weight):
    stored = scheme.store(name, weight)
    case.quantised.append(name)
    case.tensors |= stored
    case.values[name] = scheme.read(name, stored, weight.shape)


def add_experts(scheme, case, rng, rank, largest, touch):
    """A layer of experts, and an adapter of some of them or of whole stacks."""
    both = math.lcm(scheme.rows, scheme.columns)
    count, hidden, inner = int(rng.integers(2, 5)), 0, 0
    # Sizes that tell inputs from outputs.
    while hidden in (inner, 2 * inner):
        hidden, inner = size(rng, both, largest // 2), size(rng, both, largest // 2)
    shapes = {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}
    parts = {"gate_up_proj": (2 * inner, hidden), "down_proj": (hidden, inner)}
    dtype = getattr(torch, scheme.dtype)
    router = "router" if case.form == "turned" else "gate"
    case.tensors[f"model.layers.1.mlp.{router}.weight"] = torch.randn(count, hidden).to(dtype)
    if case.form == "single":
        for expert in range(count):
            for part, shape in shapes.items():
                store(scheme, case, f"{EXPERTS}.{expert}.{part}.weight", matrix(scheme, rng, shape))
    elif case.form == "switch":
        for part, shape in shapes.items():
            name = f"model.layers.1.mlp.switch_mlp.{part}.weight"
            store(scheme, case, name, matrix(scheme, rng, (count, *shape)))
    else:
        for part, shape in parts.items():
            weight = matrix(scheme, rng, (count, *shape))
            if case.form == "turned":
                weight = weight.transpose(1, 2).contiguous()
                case.tensors[f"{EXPERTS}.{part}_bias"] = torch.randn(count, shape[0]).to(dtype)
            store(scheme, case, f"{EXPERTS}.{part}", weight)
    before = set(case.updates)
    if not touch:
        return
    if case.form != "switch" and rng.integers(2):
        whole_parameters(case, rng, rank(), count, parts)
    else:
        single_experts(case, rng, rank, count, shapes)
    touched = set(case.updates) - before
    # A layer's experts are loaded as one; of MLX gate and up are taken along.
    alike = {name for name in case.values if name.startswith(f"{EXPERTS}.")}
    if case.form == "switch":
        alike = {f"model.layers.1.mlp.switch_mlp.{part}.weight" for part in ("gate_proj", "up_proj")}
    case.together |= alike - touched if alike & touched else set()


def place_of(case, part, expert, shape):
    """Where an expert's matrix is in the weights: name, and place, of which those of `turned` are inputs × outputs."""
    if case.form == "single":
        return f"{EXPERTS}.{expert}.{part}.weight", ...
    if case.form == "switch":
        return f"model.layers.1.mlp.switch_mlp.{part}.weight", expert
    if part == "down_proj":
        return f"{EXPERTS}.{part}", expert
    rows = {"gate_proj": slice(0, shape[0]), "up_proj": slice(shape[0], None), "gate_up_proj": slice(None)}
    turns = {"gate_proj": slice(0, None, 2), "up_proj": slice(1, None, 2), "gate_up_proj": slice(None)}
    which = turns if case.form == "turned" else rows
    return f"{EXPERTS}.gate_up_proj", (expert, slice(None), which[part]) if case.form == "turned" else (expert, which[part])


def single_experts(case, rng, rank, count, shapes):
    """Factors of some matrices of some experts; mlx-lm has those of all experts of a matrix, some of them zero."""
    for part, shape in shapes.items():
        if part == "up_proj" and rng.integers(2):
            continue
        chosen = rng.permutation(count)[: int(rng.integers(1, count + 1))]
        for expert in range(count):
            if expert not in chosen and case.form != "switch":
                continue
            name, place = place_of(case, part, expert, shape)
            down, up = pair(rng, shape, rank(), case.values[name])
            if expert not in chosen:
                up.zero_()
            case.factors[f"{EXPERTS}.{expert}.{part}"] = (down, up)
            turned = case.form == "turned"
            case.add(name, *((down.T, up.T) if turned else (up, down)), place)


def whole_parameters(case, rng, rank, count, parts):
    """Factors of all experts in one pair, as PEFT's ParamWrapper has them: E · r × inputs, outputs × r · E."""
    for part, shape in parts.items():
        pairs = [pair(rng, shape, rank, case.values[case.quantised[-1]]) for _ in range(count)]
        for expert, (down, up) in enumerate(pairs):
            half = shape[0] // 2
            apart = case.form == "single" and part == "gate_up_proj"
            rows = {"gate_proj": up[:half], "up_proj": up[half:]} if apart else {part: up}
            for own, up in rows.items():
                name, place = place_of(case, own, expert, shape)
                case.add(name, *((down.T, up.T) if case.form == "turned" else (up, down)), place)
        down = torch.cat([down for down, _ in pairs])
        up = torch.stack([up for _, up in pairs], 2).reshape(shape[0], -1)
        # Each parameter wraps the module anew; the first is the innermost.
        module = f"{EXPERTS}.base_layer" if part == "gate_up_proj" else EXPERTS
        case.factors[module] = (down, up)
        case.parameters.append((f"mlp.experts.{part}", rank))


def write_base(scheme, root, case, skipped, rng):
    tensors = case.tensors
    if scheme.single_file:
        os.makedirs(f"{root}/base")
        save_file(tensors, f"{root}/base/base.safetensors", scheme.metadata(case.quantised))
        return f"{root}/base/base.safetensors"
    base = f"{root}/base"
    os.makedirs(base)
    count = int(rng.integers(1, 4))
    shards = [f"model-{at + 1:05}-of-{count:05}.safetensors" for at in range(count)]
    place = {name: shards[at % count] if at < count else shards[rng.integers(count)] for at, name in enumerate(tensors)}
    for shard in shards:
        save_file({name: tensors[name] for name in tensors if place[name] == shard}, f"{base}/{shard}", {"format": "pt"})
    bytes_ = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": scheme.dtype}
    files = {"model.safetensors.index.json": {"metadata": {"total_size": bytes_}, "weight_map": place},
             "config.json": config | scheme.config(skipped)} | scheme.files(skipped)
    for name, value in files.items():
        json.dump(value, open(f"{base}/{name}", "w"))
    return base


def write_peft(root, case, _):
    os.makedirs(f"{root}/adapter")
    parts = {f"base_model.model.{module}.lora_{letter}.weight": part.contiguous()
             for module, factors in case.factors.items() for letter, part in zip("AB", factors)}
    save_file(parts, f"{root}/adapter/adapter_model.safetensors")
    whole = {EXPERTS, f"{EXPERTS}.base_layer"}
    ranks = {module: factors[0].shape[0] for module, factors in case.factors.items() if module not in whole}
    ranks |= dict(case.parameters)
    config = {"peft_type": "LORA", "peft_version": "0.19.1", "r": 4, "lora_alpha": 8, "rank_pattern": ranks,
              "alpha_pattern": {module: SCALE * rank for module, rank in ranks.items()},
              "target_modules": sorted({module.rsplit(".", 1)[1] for module in case.factors if module not in whole})}
    if case.parameters:
        config["target_parameters"] = [name for name, _ in case.parameters]
    json.dump(config, open(f"{root}/adapter/adapter_config.json", "w"))
    return f"{root}/adapter"


def write_mlx(root, case, rank):
    """mlx-lm's: inputs × rank and rank × outputs; of experts stacks, which are not turned."""
    os.makedirs(f"{root}/adapter")
    parts, stacks = {}, {}
    for module, (down, up) in case.factors.items():
        if module.startswith(f"{EXPERTS}."):
            stacks.setdefault(module.rsplit(".", 1)[1], []).append((down, up))
        else:
            parts |= {f"{module}.lora_a": down.T.contiguous(), f"{module}.lora_b": up.T.contiguous()}
    for part, pairs in stacks.items():
        for letter, at in (("a", 0), ("b", 1)):
            parts[f"model.layers.1.mlp.switch_mlp.{part}.lora_{letter}"] = torch.stack([pair[at] for pair in pairs])
    save_file(parts, f"{root}/adapter/adapters.safetensors")
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": rank, "scale": SCALE, "dropout": 0.0}}
    json.dump(config, open(f"{root}/adapter/adapter_config.json", "w"))
    return f"{root}/adapter"
