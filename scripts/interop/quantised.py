"""Merges into quantised bases against the packages that make them, on fresh random cases.

usage: quantised.py --lora-tool BINARY [--seed N] [--rounds N] [--only WORD]

Every case is a model of one layer: random matrices of random, ragged sizes (and stacks of experts), quantised by the
package, its tensors spread over several shards at random, and a random adapter. Compared are

  read     weights that no adapter touches, `merge --dtype f32`, with the package's own values: bit for bit
  merged   weights that one touches with those values + s B A in f64: within 5e-7 of the sum of the terms' magnitudes
  again    `--quantized requantize` with what the package makes of the merged weights: the share of codes that differ,
           and scales within a step of their dtype; all other tensors byte for byte
  hybrid   `--quantized hybrid`: what is touched is plain, what is not (and not loaded with it) keeps its bytes

Exit status: 0 if all agree, 1 if not. Packages: requirements.txt; one that is missing is said, and skipped."""
import argparse, json, os, shutil, subprocess, sys, tempfile
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
import quantisers

LANGUAGE = {
    "q": "model.layers.0.self_attn.q_proj", "k": "model.layers.0.self_attn.k_proj",
    "plain": "model.layers.0.self_attn.v_proj", "o": "model.layers.0.self_attn.o_proj",
    "down": "model.layers.0.mlp.down_proj", "stack": "model.layers.0.mlp.experts.down_proj",
}
DIFFUSION = {
    "q": "double_blocks.0.img_attn.proj", "k": "double_blocks.0.txt_attn.proj",
    "plain": "double_blocks.0.img_mod.lin", "o": "double_blocks.0.txt_mlp.0", "down": "double_blocks.0.img_mlp.0",
}


def size(rng, multiple):
    """A random size about 40 to 400, a multiple of this."""
    return multiple * int(rng.integers(-(-40 // multiple), max(-(-40 // multiple) + 2, 400 // multiple)))


def make(scheme, root, rng):
    """Writes the base and the adapter; returns weights as the package reads them, factors, and all tensors."""
    names = DIFFUSION if scheme.single_file else LANGUAGE
    tensors, values, factors = dict(scheme.model()), {}, {}
    for key, module in names.items():
        shape = [size(rng, scheme.rows), size(rng, scheme.columns)]
        name = f"{module}.weight"
        if key == "stack":
            if not scheme.stacks:
                continue
            shape, name = [int(rng.integers(2, 5)), *shape], module
        weight = torch.from_numpy(rng.standard_normal(shape).astype(np.float32) * float(rng.choice([0.02, 0.3])))
        if scheme.zero_rows and key != "plain":
            weight[..., 3, :] = 0
        if key == "plain":
            tensors[name] = weight.to(getattr(torch, scheme.dtype))
            values[name] = tensors[name].float()
        else:
            stored = scheme.store(name, weight)
            tensors |= stored
            values[name] = scheme.read(name, stored, torch.Size(shape))
        if key in ("q", "plain", "down"):
            rank, scale = int(rng.integers(1, 9)), float(weight.abs().mean())
            down = rng.standard_normal((rank, shape[1])) * scale
            factors[module] = [torch.from_numpy(part.astype(np.float32)) for part in (down, rng.standard_normal((shape[0], rank)))]
    skipped = [names["plain"]] + ([] if scheme.single_file else ["lm_head"])
    base = write_base(scheme, root, tensors, skipped, rng)
    adapter = write_adapter(root, factors)
    return base, adapter, values, factors, tensors


def write_base(scheme, root, tensors, skipped, rng):
    if scheme.single_file:
        save_file(tensors, f"{root}/base.safetensors")
        return f"{root}/base.safetensors"
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


def write_adapter(root, factors):
    os.makedirs(f"{root}/adapter")
    parts = {f"base_model.model.{module}.lora_{letter}.weight": part.contiguous()
             for module, pair in factors.items() for letter, part in zip("AB", pair)}
    save_file(parts, f"{root}/adapter/adapter_model.safetensors")
    ranks = {module: pair[0].shape[0] for module, pair in factors.items()}
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "rank_pattern": ranks,
              "alpha_pattern": {module: 2 * rank for module, rank in ranks.items()},
              "target_modules": sorted({module.rsplit(".", 1)[1] for module in factors})}
    json.dump(config, open(f"{root}/adapter/adapter_config.json", "w"))
    return f"{root}/adapter"


def load(path):
    files = [path] if path.endswith(".safetensors") else [
        f"{path}/{name}" for name in sorted(os.listdir(path)) if name.endswith(".safetensors")]
    found = {}
    for file in files:
        with safe_open(file, "pt") as handle:
            found |= {name: handle.get_tensor(name) for name in handle.keys()}
    return found


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


class Difference(Exception):
    pass


def need(condition, text):
    if not condition:
        raise Difference(text)


def merge(tool, base, adapter, out, *options):
    out += ".safetensors" if base.endswith(".safetensors") else ""
    done = subprocess.run([tool, "merge", base, adapter, "-o", out, *options], capture_output=True, text=True)
    need(done.returncode == 0, f"{' '.join(options)}: {(done.stderr.strip() or 'no message').splitlines()[0]}")
    return load(out)


def same(before, after, names, what):
    for name in names:
        need(name in after, f"{what}: {name} is missing")
        need(raw(before[name]) == raw(after[name]), f"{what}: {name} changed")


def codes_that_differ(name, found, expected):
    """The share of bytes that differ; scales have to be a step apart at most."""
    if "quant_state" in name:
        old, new = (json.loads(raw(tensor)) for tensor in (expected, found))
        offset = lambda state: state.pop("nested_offset", 0.0)
        need(abs(offset(old) - offset(new)) < 1e-6 and old == new, f"{name}: {old}, {new}")
        return 0.0
    need(found.dtype == expected.dtype and found.shape == expected.shape, f"{name}: {found.dtype} {list(found.shape)}")
    if expected.dtype == torch.float32 and not name.endswith("quant_map"):
        need(torch.allclose(found, expected, rtol=1e-6, atol=0), f"{name}: scales differ")
        return 0.0
    if expected.dtype in (torch.bfloat16, torch.float16):
        steps = (found.view(torch.int16).int() - expected.view(torch.int16).int()).abs()
        need(int(steps.max()) <= 1, f"{name}: scales are {int(steps.max())} steps apart")
        need(float((steps > 0).float().mean()) < 0.01, f"{name}: too many scales differ")
        return 0.0
    a, b = np.frombuffer(raw(found), np.uint8), np.frombuffer(raw(expected), np.uint8)
    return float((a != b).mean()) if len(a) else 0.0


def compare(scheme, tool, root, rng):
    base, adapter, values, factors, tensors = make(scheme, root, rng)
    # Dense, in f32.
    dense, worst = merge(tool, base, adapter, f"{root}/dense", "--dtype", "f32"), 0.0
    merged = {}
    for name, value in values.items():
        need(name in dense, f"dense: {name} is missing")
        module = name.removesuffix(".weight")
        if module not in factors:
            need(raw(dense[name]) == raw(value), f"read: {name} is off by {(dense[name] - value).abs().max():.3g}")
            continue
        down, up = (part.double() for part in factors[module])
        merged[name] = (value.double() + 2 * (up @ down)).float()
        terms = value.double().abs() + 2 * (up.abs() @ down.abs())
        off = ((dense[name].double() - merged[name]).abs() / (5e-7 * terms)).nan_to_num(0).max()
        worst = max(worst, float(off))
    need(worst <= 1, f"merged: {worst:.3g} times the tolerance")
    # Quantised again.
    names = DIFFUSION if scheme.single_file else LANGUAGE
    plain = f"{names['plain']}.weight"
    of = lambda name: {part for part in tensors if part.startswith(name.removesuffix("weight"))}
    touched = {name: of(name) for name in merged if name != plain}
    untouched = set(tensors) - {plain} - set().union(*touched.values())
    share = None
    if scheme.written:
        again = merge(tool, base, adapter, f"{root}/again", "--quantized", "requantize", "--min-survival", "0")
        need(set(again) == set(tensors), f"again: {sorted(set(again) ^ set(tensors))[:3]}")
        same(tensors, again, untouched, "again")
        share = 0.0
        for name in touched:
            for part, expected in scheme.store(name, merged[name]).items():
                share = max(share, codes_that_differ(part, again[part], expected))
        need(share <= scheme.most_codes, f"again: {share:.2%} of the codes differ")
    # What changes, and q's and k's group with it, in plain numbers.
    hybrid = merge(tool, base, adapter, f"{root}/hybrid", "--quantized", "hybrid")
    together = {f"{names['k']}.weight"} if not scheme.single_file else set()
    same(tensors, hybrid, untouched - set().union(*map(of, together), set()), "hybrid")
    for name in [*touched, *together]:
        wanted = merged.get(name, values[name])
        need(name in hybrid and hybrid[name].dtype == getattr(torch, scheme.dtype), f"hybrid: {name} is not plain")
        need(not (of(name) - {name}) & set(hybrid), f"hybrid: {name} has companions")
        need(torch.allclose(hybrid[name].float(), wanted, rtol=2 ** -8, atol=1e-7), f"hybrid: {name} is another")
    return worst, share


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lora-tool", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    good = total = 0
    print("| scheme | read | merged, of the tolerance | codes that differ, again | hybrid |\n|---|---|---|---|---|")
    for _ in range(options.rounds):
        found, missing = quantisers.schemes(rng)
        for scheme in (scheme for scheme in found if options.only in scheme.name):
            root = tempfile.mkdtemp()
            total += 1
            try:
                worst, share = compare(scheme, options.lora_tool, root, rng)
                good += 1
                written = "not written" if share is None else f"{share:.3%}"
                print(f"| {scheme.name} | equal | {worst:.2f} | {written} | equal |", flush=True)
            except Difference as difference:
                print(f"| {scheme.name} | **{difference}** | | | |", flush=True)
            shutil.rmtree(root)
    for package, reason in missing.items():
        print(f"skipped: {package} ({reason})")
    print(f"{good} of {total} cases agree")
    sys.exit(good != total)


main()
