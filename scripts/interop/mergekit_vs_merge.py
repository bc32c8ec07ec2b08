#!/usr/bin/env python3
"""Compare `lora-tool merge --compat mergekit`, and recipes, with mergekit itself.

Makes a tiny Llama and three models tuned from it, lets mergekit merge them by each of its methods
that need no data, does the same with lora-tool from the command line and from a recipe, and prints
the largest difference of each method as a share of the largest change of the base.
Exit 0: all agree. 1: some do not. 2: a merge could not be made.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

VOCABULARY, HIDDEN, INNER, LAYERS = 12, 8, 12, 3
MODELS = ("model0", "model1", "model2")
DTYPES = {"float32": "f32", "bfloat16": "bf16", "float64": "f32"}

# Parameters of mergekit that are called otherwise here; `normalize` is a word.
NAMES = {"select_topk": "density", "r": "overlap_gain", "alpha": "overlap_cap"}


def case(name, method, models, dtype="float32", base="base", **parameters):
    """A merge: `models` gives each tuned model's own parameters."""
    return {"case": name, "method": method, "models": models, "dtype": dtype, "base": base,
            "parameters": parameters}


def weighted(*weights, **each):
    """Parameters of one model each; a list in `each` has one value a model."""
    return [{"weight": weight, **{name: values[at] for name, values in each.items()}}
            for at, weight in enumerate(weights)]


QUERIES = [{"filter": "q_proj", "value": 0.9}, {"value": 0.3}]
BY_LAYER = [{"filter": "layers", "value": [0.2, 0.9, 0.4, 1.0]}, {"value": 0.5}]

CASES = [
    case("task_arithmetic", "task_arithmetic", weighted(0.7, -0.4, 1.2)),
    case("task_arithmetic_lambda", "task_arithmetic", weighted(0.7, 0.5), **{"lambda": 0.6}),
    case("task_arithmetic_bf16", "task_arithmetic", weighted(0.7, 0.5), dtype="bfloat16"),
    case("linear", "linear", weighted(0.7, 0.5, 0.2), base=None),
    case("linear_negative", "linear", weighted(1.5, -0.4), base=None),
    case("linear_bf16", "linear", weighted(0.7, 0.5), dtype="bfloat16", base=None),
    case("ties", "ties", weighted(0.7, 0.5, 0.9, density=[0.5, 0.4, 1.0])),
    case("ties_negative", "ties", weighted(0.7, -0.5, 0.9, density=[0.5] * 3), **{"lambda": 1.3}),
    case("ties_sum", "ties", weighted(0.7, 0.5, density=[0.5, 0.4]), normalize=False),
    case("dare_linear", "dare_linear", weighted(0.7, 0.5, density=[1.0, 1.0]), **{"lambda": 0.8}),
    case("dare_ties", "dare_ties", weighted(0.7, 0.5, 0.4, density=[1.0] * 3)),
    case("dare_ties_mean", "dare_ties", weighted(0.7, 0.5, 0.4, density=[1.0] * 3),
         normalize=True, **{"lambda": 0.8}),
    case("breadcrumbs", "breadcrumbs",
         weighted(0.7, 0.5, density=[0.6, 0.8], gamma=[0.05, 0.05])),
    case("breadcrumbs_crowded", "breadcrumbs",
         weighted(0.7, 0.5, density=[0.9, 0.9], gamma=[0.2, 0.2])),
    case("breadcrumbs_ties", "breadcrumbs_ties",
         weighted(0.7, 0.5, -0.3, density=[0.6, 0.8, 0.7], gamma=[0.05] * 3)),
    case("breadcrumbs_ties_mean", "breadcrumbs_ties",
         weighted(0.7, 0.5, density=[0.6, 0.8], gamma=[0.05] * 2), normalize=True),
    case("della", "della", weighted(0.7, 0.5, 0.4, density=[1.0] * 3, epsilon=[0.1] * 3)),
    case("della_sum", "della", weighted(0.7, 0.5, density=[1.0] * 2, epsilon=[0.1] * 2),
         normalize=False),
    case("della_linear", "della_linear", weighted(0.7, 0.5, density=[1.0] * 2, epsilon=[0.1] * 2)),
    case("sce", "sce", [{}, {}, {}]),
    case("sce_half", "sce", [{}, {}, {}], select_topk=0.5),
    case("sce_two", "sce", [{}, {}], select_topk=0.3),
    case("ram", "ram", [{}, {}, {}], epsilon=1e-3),
    case("ram_of_all", "ram", [{}, {}]),
    case("ramplus", "ramplus_tl", [{}, {}, {}], epsilon=0.05),
    case("ramplus_raised", "ramplus_tl", [{}, {}, {}], epsilon=0.1, r=0.4, alpha=0.7),
    case("slerp", "slerp", [{}, {}], base="model0", t=0.3),
    case("slerp_bf16", "slerp", [{}, {}], base="model0", t=0.6, dtype="bfloat16"),
    # In f32 mergekit's angles below 3e-4 are 0, and its result is off by as much.
    case("karcher", "karcher", [{}, {}, {}], base=None, dtype="float64"),
    case("model_stock", "model_stock", [{}, {}]),
    case("model_stock_three", "model_stock", [{}, {}, {}]),
    case("ties_by_module", "ties",
         [{"weight": 0.7, "density": QUERIES}, {"weight": QUERIES, "density": 0.4}]),
    case("ties_gradient", "ties",
         [{"weight": 0.7, "density": BY_LAYER}, {"weight": BY_LAYER, "density": 0.4}]),
    case("lambda_by_module", "ties", weighted(0.7, 0.5, density=[0.5, 0.4]),
         **{"lambda": [{"filter": "mlp", "value": [0.5, 1.5]}, {"value": 0.8}]}),
    case("density_of_all", "ties", [{"weight": 0.7}, {"weight": 0.5, "density": 0.9}],
         density=[{"filter": "mlp", "value": 0.3}, {"filter": "attn", "value": [0.4, 0.6]},
                  {"value": 0.5}]),
    case("slerp_by_module", "slerp", [{}, {}], base="model0",
         t=[{"filter": "self_attn", "value": [0, 0.5, 0.3, 1]},
            {"filter": "mlp", "value": [1, 0.5, 0.7, 0]}, {"value": 0.5}]),
]


def shapes():
    """Every tensor's shape."""
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for name in "qkvo":
            yield f"{at}.self_attn.{name}_proj.weight", (HIDDEN, HIDDEN)
        yield f"{at}.mlp.gate_proj.weight", (INNER, HIDDEN)
        yield f"{at}.mlp.up_proj.weight", (INNER, HIDDEN)
        yield f"{at}.mlp.down_proj.weight", (HIDDEN, INNER)
        yield f"{at}.input_layernorm.weight", (HIDDEN,)
        yield f"{at}.post_attention_layernorm.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)


def make_models(directory):
    """The base and the models tuned from it: some tensors in all of them, some in one, one in none."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=INNER,
        num_hidden_layers=LAYERS, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=64, tie_word_embeddings=False, architectures=["LlamaForCausalLM"],
        dtype="float32")
    random = torch.Generator().manual_seed(7)
    base = {name: torch.randn(shape, generator=random) for name, shape in shapes()}
    for number, model in enumerate(("base",) + MODELS):
        tensors = {name: tensor.clone() for name, tensor in base.items()}
        for at, name in enumerate(tensors):
            moved = torch.randn(tensors[name].shape, generator=random)
            # Model by model another tensor stays; one stays in all; some move hardly at all.
            if number and at % 7 != number and name != "lm_head.weight":
                size = 2e-4 if at % 5 == 0 else 0.1 * number
                tensors[name] += size * moved
        (directory / model).mkdir(parents=True)
        save_file(tensors, directory / model / "model.safetensors", metadata={"format": "pt"})
        (directory / model / "config.json").write_text(
            json.dumps({**config.to_dict(), "transformers_version": "5"}, indent=1, sort_keys=True))


def doubled(models, directory):
    """The same models in f64, which mergekit has no name for."""
    for name in ("base",) + MODELS:
        shutil.copytree(models / name, directory / name)
        tensors = load_file(models / name / "model.safetensors")
        save_file({name: tensor.double() for name, tensor in tensors.items()},
                  directory / name / "model.safetensors", metadata={"format": "pt"})
    return directory


def merge_with_mergekit(asked, models, scratch):
    """What mergekit makes of it."""
    if asked["dtype"] == "float64":
        models = doubled(models, scratch / "doubled")
    inputs = [{"model": str(models / name), "parameters": own} if own
              else {"model": str(models / name)} for name, own in zip(MODELS, asked["models"])]
    config = {"merge_method": asked["method"], "models": inputs,
              "parameters": asked["parameters"]}
    if asked["dtype"] != "float64":
        config["dtype"] = asked["dtype"]
    if asked["base"]:
        config["base_model"] = str(models / asked["base"])
    out, single = scratch / "theirs", torch.Tensor.float
    try:
        if asked["dtype"] == "float64":
            torch.Tensor.float = torch.Tensor.double
        run_merge(MergeConfiguration.model_validate(config), str(out),
                  MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False))
    finally:
        torch.Tensor.float = single
    return load_file(out / "model.safetensors")


def ours(name, value):
    """A parameter of mergekit as lora-tool has it."""
    if name == "normalize":
        return "reduce", "mean" if value else "sum"
    return NAMES.get(name, name), value


def folded(asked):
    """A sum has no factor of its own here: it goes into the weights."""
    factor = asked["parameters"].get("lambda")
    if asked["method"] != "task_arithmetic" or factor is None:
        return asked
    models = [{**own, "weight": own["weight"] * factor} for own in asked["models"]]
    return {**asked, "models": models, "parameters": {}}


class Plain(yaml.SafeDumper):
    """YAML without references."""

    def ignore_aliases(self, data):
        return True


def recipe(asked, models, scratch):
    """The same merge as a recipe of lora-tool."""
    asked, adapters = folded(asked), []
    for name, own in zip(MODELS, asked["models"]):
        own = dict(own)
        adapter = {"path": str(models / name)}
        if "weight" in own:
            adapter["weight"] = own.pop("weight")
        if own:
            adapter["parameters"] = own
        adapters.append(adapter)
    written = {"base": str(models / "base"), "output": str(scratch / "ours"), "compat": "mergekit",
               "method": asked["method"], "dtype": DTYPES[asked["dtype"]], "adapters": adapters}
    if asked["parameters"]:
        written["parameters"] = dict(ours(*item) for item in asked["parameters"].items())
    return yaml.dump(written, Dumper=Plain, sort_keys=False)


def command(asked, models, out):
    """The same as a command line, or nothing where only a recipe can say it."""
    asked = folded(asked)
    own = [dict(own) for own in asked["models"]]
    given = [own_value for values in own for own_value in values.values()]
    if any(isinstance(value, list) for value in given + list(asked["parameters"].values())):
        return None
    line = ["merge", str(models / "base")]
    line += [str(models / name) for name, _ in zip(MODELS, own)]
    line += ["-o", str(out), "--method", asked["method"], "--compat", "mergekit",
             "--dtype", DTYPES[asked["dtype"]]]
    names = list(own[0])
    for name in names:
        values = [str(values[name]) for values in own]
        line += ["-w", *values] if name == "weight" else [f"--{name}", ",".join(values)]
    for item in asked["parameters"].items():
        name, value = ours(*item)
        line += [f"--{name.replace('_', '-')}", str(value)]
    return line


def compare(asked, models, lora_tool):
    """The largest difference, and the largest change, of command line and recipe."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        theirs = merge_with_mergekit(asked, models, scratch)
        base = load_file(models / "base" / "model.safetensors")
        (scratch / "recipe.yaml").write_text(recipe(asked, models, scratch))
        lines = [["run", str(scratch / "recipe.yaml")], command(asked, models, scratch / "ours")]
        found = []
        for line in lines:
            if line is None:
                continue
            shutil.rmtree(scratch / "ours", ignore_errors=True)
            done = subprocess.run([lora_tool, "-q", *line], capture_output=True, text=True)
            if done.returncode:
                raise ValueError(f"{' '.join(line)}: {done.stderr.strip()}")
            merged = load_file(scratch / "ours" / "model.safetensors")
            if merged.keys() != theirs.keys():
                raise ValueError(f"other tensors: {sorted(merged.keys() ^ theirs.keys())}")
            off = {name: (merged[name].double() - theirs[name].double()).abs().max().item()
                   for name in theirs}
            found.append(max(off.items(), key=lambda item: item[1]))
        moved = max((theirs[name].double() - base[name].double()).abs().max().item()
                    for name in theirs)
        return max(found, key=lambda item: item[1]), moved, theirs, len(found)


def main():
    """Every case; the exit status is the answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lora-tool", required=True, help="the binary to test")
    parser.add_argument("--golden", type=Path, help="write the models and mergekit's results here")
    parser.add_argument("--only", help="cases whose name has this in it")
    options = parser.parse_args()
    failed = broken = 0
    with tempfile.TemporaryDirectory() as scratch:
        models = options.golden / "models" if options.golden else Path(scratch)
        if options.golden:
            shutil.rmtree(models, ignore_errors=True)
        make_models(models)
        print(f"{'case':<24} {'difference':>10} {'change':>9}  tensor")
        for asked in CASES:
            if options.only and options.only not in asked["case"]:
                continue
            try:
                (name, off), moved, theirs, ways = compare(asked, models, options.lora_tool)
            except ValueError as error:
                print(f"{asked['case']:<24} {error}")
                broken += 1
                continue
            # In bf16 mergekit rounds every step of its arithmetic, we round once.
            size = max(tensor.double().abs().max().item() for tensor in theirs.values())
            allowed = 2e-6 * moved + 2**-22 * size
            if asked["dtype"] == "bfloat16":
                allowed = 2**-7 * size
            verdict = "ok" if off <= allowed else "FAIL"
            failed += verdict != "ok"
            print(f"{asked['case']:<24} {off / moved:>10.1e} {moved:>9.3f}  {verdict} {ways} {name}")
            if options.golden and asked["dtype"] != "bfloat16":
                theirs = {name: tensor.float() for name, tensor in theirs.items()}
                (options.golden / f"{asked['case']}.yaml").write_text(
                    recipe(asked, Path("models"), Path("out")))
                save_file(theirs, options.golden / f"{asked['case']}.safetensors")
    return 2 if broken else 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
