#!/usr/bin/env python3
"""Merges adapters of every family with lora-tool and with the library that made them, and compares.

    python scripts/interop/families_vs_peft.py [--binary target/release/lora-tool] [--only NAME]

    python scripts/interop/families_vs_peft.py --golden fixtures/golden

The second call records merges by PEFT of the types whose formulas are not held to plain loops in the tests, a case of
one small block each, and merges nothing itself.

Needs torch, safetensors, peft and, for the second part, lycoris-lora. Models are tiny and adapters
random; nothing is trained and nothing is downloaded. Prints for every case the largest difference, as
a share of the largest change that the adapter makes; exits 1 if one is above 1e-4, or if a case cannot
be merged.
"""

import argparse
import copy
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from torch import nn

LIMIT = 1e-4


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(16, 24)
        self.square = nn.Linear(16, 16)
        self.conv = nn.Conv2d(8, 12, 3)
        self.conv1 = nn.Conv2d(8, 16, 1)
        self.odd = nn.Linear(16, 13)
        self.table = nn.Embedding(6, 4)
        self.norm = nn.LayerNorm(16)

    def forward(self, x):
        return self.q(self.norm(self.square(x)))


class Linears(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(16, 24)
        self.square = nn.Linear(16, 16)
        self.odd = nn.Linear(16, 13)
        self.table = nn.Embedding(6, 4)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Linears()])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x):
        for block in self.blocks:
            x = block.square(x)
        return x


def randomise(parameters, spread):
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn_like(parameter) * spread)


def merge(binary, base, adapter, out, *options):
    line = [binary, "-q", "merge", str(base), str(adapter), "-o", str(out), "--force", "--verify"]
    done = subprocess.run(line + list(options), capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip() or done.stdout.strip()


def compare(base, want, got):
    """(largest difference / largest change, how many tensors changed)."""
    worst, changed = 0.0, 0
    for name, tensor in want.items():
        change = (tensor.double() - base[name].double()).abs().max().item()
        off = (tensor.double() - got[name].double()).abs().max().item()
        if change == 0.0:
            if off != 0.0:
                return math.inf, changed
            continue
        changed += 1
        worst = max(worst, off / change)
    return worst, changed


def peft_cases():
    import peft

    both = ["q", "square"]
    convs = ["q", "conv", "conv1"]
    yield "LOHA", peft.LoHaConfig(r=3, alpha=5, target_modules=convs), 0.3
    effective = dict(target_modules=convs, use_effective_conv2d=True)
    yield "LOHA, effective conv", peft.LoHaConfig(r=2, alpha=5, **effective), 0.3
    yield "LOHA, large rank", peft.LoHaConfig(r=12, alpha=5, target_modules=convs), 0.3
    yield "LOKR", peft.LoKrConfig(r=2, alpha=3, target_modules=convs), 0.3
    yield "LOKR, both", peft.LoKrConfig(r=1, alpha=3, decompose_both=True, target_modules=convs), 0.3
    yield "LOKR, whole", peft.LoKrConfig(r=32, alpha=3, target_modules=convs), 0.3
    yield "LOKR, effective conv", peft.LoKrConfig(r=1, alpha=3, **effective), 0.3
    patterns = dict(rank_pattern={"square": 4}, alpha_pattern={"q": 9})
    yield "LOKR, patterns", peft.LoKrConfig(r=2, alpha=3, target_modules=both, **patterns), 0.3
    ada = dict(total_step=10, init_r=6, target_r=3, lora_alpha=5)
    yield "ADALORA", peft.AdaLoraConfig(target_modules=both, **ada), 0.5
    yield "VERA", peft.VeraConfig(r=5, target_modules=both), 0.5
    yield "IA3", peft.IA3Config(target_modules=convs, feedforward_modules=["q", "conv"]), 1.0
    forward = dict(feedforward_modules=["square"])
    yield "IA3, feed forward", peft.IA3Config(target_modules=both, **forward), 1.0
    yield "OFT, series", peft.OFTConfig(oft_block_size=4, target_modules=convs), 0.2
    for terms in range(2, 8):
        many = dict(num_cayley_neumann_terms=terms, target_modules=both)
        yield f"OFT, {terms} terms", peft.OFTConfig(oft_block_size=4, **many), 0.2
    exact = dict(use_cayley_neumann=False, target_modules=convs)
    yield "OFT", peft.OFTConfig(oft_block_size=8, **exact), 0.3
    yield "OFT, blocks", peft.OFTConfig(r=2, oft_block_size=0, **exact), 0.3
    yield "OFT, shared", peft.OFTConfig(oft_block_size=8, block_share=True, **exact), 0.3
    yield "OFT, constrained", peft.OFTConfig(oft_block_size=8, coft=True, eps=0.05, **exact), 0.3
    yield "BOFT", peft.BOFTConfig(boft_block_size=4, target_modules=convs), 0.4
    yield "HRA", peft.HRAConfig(r=3, target_modules=convs[:2]), 0.5
    yield "HRA, orthogonal", peft.HRAConfig(r=4, apply_GS=True, target_modules=both), 0.5
    yield "MISS", peft.MissConfig(r=5, target_modules=both), 0.5
    mini = dict(mini_r=4, init_weights="mini")
    yield "MISS, mini", peft.MissConfig(r=4, target_modules=both, **mini), 0.5
    yield "DELORA", peft.DeloraConfig(r=3, target_modules=both, init_weights=False), 0.5
    yield "GRALORA", peft.GraloraConfig(r=4, gralora_k=2, target_modules=both), 0.5
    yield "GRALORA, hybrid", peft.GraloraConfig(r=4, gralora_k=2, hybrid_r=2, target_modules=both), 0.5
    bank = dict(num_vectors=12, vector_length=4, topk=2, save_only_topk_weights=False)
    yield "VBLORA", peft.VBLoRAConfig(r=3, target_modules=both, **bank), 0.5
    yield "RANDLORA", peft.RandLoraConfig(r=5, target_modules=both), 0.5
    yield "RANDLORA, sparse", peft.RandLoraConfig(r=4, sparse=True, target_modules=both), 0.5
    if hasattr(peft, "HiraConfig"):
        yield "HIRA", peft.HiraConfig(r=3, target_modules=both), 0.5
    yield "FOURIERFT", peft.FourierFTConfig(n_frequency=40, target_modules=both), 30.0
    several = dict(n_frequency_pattern={"q": 24}, random_loc_seed=5, scaling=80.0)
    yield "FOURIERFT, patterns", peft.FourierFTConfig(n_frequency=9, target_modules=both, **several), 30.0
    for wavelet in ["db1", "db4", "db10", "sym5", "sym10", "coif1", "coif4"]:
        waves = dict(n_frequency=40, wavelet_family=wavelet, target_modules=both + ["odd"])
        yield f"WAVEFT, {wavelet}", peft.WaveFTConfig(**waves), 0.5
    plain = dict(n_frequency=40, use_idwt=False, random_loc_seed=3, target_modules=both)
    yield "WAVEFT, elements", peft.WaveFTConfig(**plain), 0.5
    shared = dict(n_frequency=40, proportional_parameters=True, target_modules=both)
    yield "WAVEFT, shared out", peft.WaveFTConfig(**shared), 0.5
    yield "C3A", peft.C3AConfig(block_size=8, target_modules=both), 3.0
    yield "C3A, patterns", peft.C3AConfig(block_size=8, block_size_pattern={"q": 4}, target_modules=both), 3.0
    yield "SHIRA", peft.ShiraConfig(r=2, target_modules=both), 0.5
    for variant in ["road_1", "road_2", "road_4"]:
        yield f"ROAD, {variant}", peft.RoadConfig(variant=variant, group_size=4, target_modules=both), 0.7
    yield "PVERA", peft.PveraConfig(r=3, target_modules=both), 0.5
    yield "UNILORA", peft.UniLoraConfig(r=3, theta_d_length=50, save_indices=True, target_modules=both), 0.5
    yield "SUPERTUNING", peft.SupertuningConfig(sparsity=0.8, target_modules=both), 0.5
    supra = dict(sparsity=0.8, r=2, lora_alpha=5, target_modules=both)
    yield "SUPERTUNING, Supra", peft.SupertuningConfig(**supra), 0.5
    yield "BEFT", peft.BeftConfig(target_modules=both), 0.5
    yield "DEFT", peft.DeftConfig(r=3, target_modules=both), 0.5
    qr = dict(decomposition_method="qr", alpha=6, target_modules=both)
    yield "DEFT, QR", peft.DeftConfig(r=3, **qr), 0.5
    yield "DEFT, PaRa", peft.DeftConfig(r=3, para=True, target_modules=both), 0.5
    yield "GLORA", peft.GloraConfig(r=3, config_C="none", target_modules=both), 0.5
    vectors = dict(config_A_B="vector", config_C="none", config_D_E="vector")
    yield "GLORA, vectors", peft.GloraConfig(target_modules=both, **vectors), 0.5
    constants = dict(config_A_B="constant", config_C="none", config_D_E="constant")
    yield "GLORA, constants", peft.GloraConfig(target_modules=both, **constants), 0.5
    yield "TINYLORA", peft.TinyLoraConfig(u=6, weight_tying=1.0, target_modules=both), 0.5
    halves = peft.BdLoraConfig(target_modules_bd_a=[".q"], target_modules_bd_b=[".s"], nblocks=2)
    yield "LORA, block-diagonal", peft.LoraConfig(r=4, use_bdlora=halves, target_modules=both), 0.5
    rows = dict(token_indices=[4, 1], target_modules=["table"])
    yield "TRAINABLE_TOKENS", peft.TrainableTokensConfig(**rows), 0.5
    yield "LN_TUNING", peft.LNTuningConfig(target_modules=["norm"]), 1.0


def run_peft(binary, name, config, spread):
    import peft

    torch.manual_seed(7)
    model = Model()
    base = {key: value.clone() for key, value in model.state_dict().items()}
    wrapped = peft.get_peft_model(copy.deepcopy(model), config)
    own = [p for p in wrapped.parameters() if p.requires_grad]
    randomise(own, spread)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        save_file(base, scratch / "base.safetensors")
        wrapped.save_pretrained(scratch / "adapter")
        wrapped.eval()
        want = wrapped.merge_and_unload().state_dict()
        out = scratch / "out.safetensors"
        failed = merge(binary, scratch / "base.safetensors", scratch / "adapter", out)
        failed = failed or written_again(binary, model, scratch, want)
        # Norms are replaced whole, and biases are no matrices: there is nothing to have factors.
        if name not in ("LN_TUNING", "BEFT", "TRAINABLE_TOKENS"):
            failed = failed or as_lora(binary, model, scratch, base, want)
        if failed:
            return failed
        return compare(base, want, load_file(out))


GOLDEN = {
    "FOURIERFT": "merge_fourierft",
    "FOURIERFT, patterns": "merge_fourierft_patterns",
    "WAVEFT, db1": "merge_waveft",
    "WAVEFT, db4": "merge_waveft_db4",
    "WAVEFT, coif1": "merge_waveft_coif1",
    "WAVEFT, elements": "merge_waveft_elements",
    "C3A": "merge_c3a",
    "SHIRA": "merge_shira",
    "ROAD, road_1": "merge_road_1",
    "ROAD, road_2": "merge_road_2",
    "ROAD, road_4": "merge_road_4",
    "PVERA": "merge_pvera",
    "UNILORA": "merge_unilora",
    "SUPERTUNING": "merge_supertuning",
    "SUPERTUNING, Supra": "merge_supertuning_supra",
    "BEFT": "merge_beft",
    "DEFT": "merge_deft",
    "DEFT, QR": "merge_deft_qr",
    "DEFT, PaRa": "merge_deft_para",
    "GLORA": "merge_glora",
    "GLORA, vectors": "merge_glora_vectors",
    "GLORA, constants": "merge_glora_constants",
    "TINYLORA": "merge_tinylora",
    "LORA, block-diagonal": "merge_bdlora",
    "TRAINABLE_TOKENS": "merge_trainable_tokens",
    "ADALORA": "merge_adalora",
    "VERA": "merge_vera",
    "IA3": "merge_ia3",
    "OFT": "merge_oft",
    "BOFT": "merge_boft",
    "HRA": "merge_hra",
    "MISS": "merge_miss",
    "DELORA": "merge_delora",
    "GRALORA": "merge_gralora",
    "VBLORA": "merge_vblora",
    "RANDLORA": "merge_randlora",
}


def record(name, config, spread, directory):
    """Writes a case of `fixtures/golden`: a base, an adapter, and what PEFT merges of them."""
    import peft
    import transformers

    torch.manual_seed(7)
    model = Small()
    base = {key: value.clone() for key, value in model.state_dict().items()}
    wrapped = peft.get_peft_model(copy.deepcopy(model), config)
    randomise([p for p in wrapped.parameters() if p.requires_grad], spread)
    (directory / "input/base").mkdir(parents=True, exist_ok=True)
    (directory / "expected").mkdir(exist_ok=True)
    save_file(base, directory / "input/base/model.safetensors")
    wrapped.save_pretrained(directory / "input/adapter")
    (directory / "input/adapter/README.md").unlink(missing_ok=True)
    again = peft.PeftModel.from_pretrained(copy.deepcopy(model), directory / "input/adapter").eval()
    want = again.merge_and_unload(safe_merge=False).state_dict()
    changed = {key: value for key, value in want.items() if not torch.equal(value, base[key])}
    save_file(changed, directory / "expected/model.safetensors")
    change = max((value - base[key]).abs().max().item() for key, value in changed.items())
    case = {
        "case": directory.name,
        "operation": "merge",
        "params": {"base_dtype": "float32", "safe_merge": False, "adapters": ["adapter"]},
        "peer": {
            "name": "peft",
            "version": peft.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        },
        "call": "PeftModel.from_pretrained(m, a).merge_and_unload(safe_merge=False)",
        "inputs": {"base": "input/base", "adapters": ["input/adapter"]},
        "expected": {
            "model": "expected/model.safetensors",
            "holds": "only the tensors that differ from the base; all other base tensors must come out bit-identical",
        },
        "changed_tensors": len(changed),
        "total_tensors": len(base),
        "only_in_expected": [],
        "only_in_base": [],
        "tolerance": {
            "rtol": 1e-6,
            "atol": 1e-5 * change,
            "note": "1e-5 of the largest change, and PEFT's own f32",
        },
        "notes": [f"{name}, by scripts/interop/families_vs_peft.py --golden"],
    }
    (directory / "case.json").write_text(json.dumps(case, indent=1))


# Endings that stand behind an adapter's name, rather than before it.
BELOW = ("weight", "bias", "X", "Xd", "Xu", "zeros")


def written_again(binary, model, scratch, want):
    """What `convert --to peft` makes of the adapter with leaked names has to be the same to PEFT."""
    import peft

    file = scratch / "adapter/adapter_model.safetensors"
    leaked = {}
    for key, tensor in load_file(file).items():
        above, ending = key.rsplit(".", 1)
        named = f"{above}.default.{ending}" if ending in BELOW else f"{key}.default"
        key = named if ".blocks." in key else key
        leaked[key.replace(".blocks.", "._orig_mod.blocks.")] = tensor
    save_file(leaked, file)
    line = [binary, "-q", "convert", str(scratch / "adapter"), "--to", "peft", "-o"]
    done = subprocess.run(line + [str(scratch / "again")], capture_output=True, text=True)
    if done.returncode != 0:
        return done.stderr.strip() or done.stdout.strip()
    again = peft.PeftModel.from_pretrained(copy.deepcopy(model), scratch / "again").eval()
    found = again.merge_and_unload().state_dict()
    other = [name for name, tensor in want.items() if not torch.equal(tensor, found[name])]
    return f"written again, PEFT reads other weights: {other}" if other else None


def as_lora(binary, model, scratch, base, want):
    """What `convert --as lora` makes of the adapter at full rank has to be the same to PEFT."""
    import peft

    line = [binary, "-q", "convert", str(scratch / "adapter"), "--as", "lora", "--rank", "1000"]
    line += ["--reference", str(scratch / "base.safetensors"), "-o", str(scratch / "lora")]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode != 0:
        return done.stderr.strip() or done.stdout.strip()
    lora = peft.PeftModel.from_pretrained(copy.deepcopy(model), scratch / "lora").eval()
    worst, _ = compare(base, want, lora.merge_and_unload().state_dict())
    return f"as a LoRA it is {worst:.1e} off" if worst > LIMIT else None


def run_butterfly(binary):
    """PEFT's BOFT of several stages merges only with its CUDA extension: the same from its parts."""
    import peft
    from peft.tuners.boft.layer import Linear

    torch.manual_seed(7)
    model = Model()
    base = {key: value.clone() for key, value in model.state_dict().items()}
    config = peft.BOFTConfig(boft_block_size=4, target_modules=["q", "square"])
    wrapped = peft.get_peft_model(copy.deepcopy(model), config)
    stages = 3
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        save_file(base, scratch / "base.safetensors")
        wrapped.save_pretrained(scratch / "adapter")
        want, stored = dict(base), {}
        for name, layer in wrapped.named_modules():
            if not isinstance(layer, Linear):
                continue
            name = name.removeprefix("base_model.model.")
            inputs, size = layer.in_features, 4
            blocks = inputs // size
            r = torch.randn(stages, blocks, size, size) * 0.4
            s = 1 + torch.randn(layer.out_features, 1) * 0.1
            stored[f"base_model.model.{name}.boft_R"] = r
            stored[f"base_model.model.{name}.boft_s"] = s
            matrix = torch.eye(inputs)
            for stage in range(stages):
                perm = layer.block_butterfly_perm(
                    inputs, blocks // 2**stage, size // 2, stages - 1
                )
                p = layer.perm2mat(perm)
                matrix = p @ torch.block_diag(*layer.cayley_batch(r[stage])) @ p.T @ matrix
            weight = base[f"{name}.weight"]
            want[f"{name}.weight"] = (matrix @ weight.T).T * s
        save_file(stored, scratch / "adapter/adapter_model.safetensors")
        out = scratch / "out.safetensors"
        failed = merge(binary, scratch / "base.safetensors", scratch / "adapter", out)
        return failed or compare(base, want, load_file(out))


def lycoris_cases():
    from lycoris.modules import boft, diag_oft, full, glora, ia3, locon, loha, lokr, norms

    for layer in ["q", "conv", "square", "conv1"]:
        conv = dict(use_tucker=True) if layer == "conv" else {}
        yield f"LoCon {layer}", layer, locon.LoConModule, dict(lora_dim=4, alpha=2, **conv)
        yield f"LoHa {layer}", layer, loha.LohaModule, dict(lora_dim=3, alpha=3, **conv)
        yield f"LoKr {layer}", layer, lokr.LokrModule, dict(lora_dim=1, alpha=1, **conv)
        both = dict(lora_dim=1, alpha=1, decompose_both=True)
        yield f"LoKr both {layer}", layer, lokr.LokrModule, both
        whole = dict(lora_dim=1000, alpha=3, full_matrix=True)
        yield f"LoKr whole {layer}", layer, lokr.LokrModule, whole
        for out in [True, False]:
            side = "out" if out else "in"
            wd = dict(weight_decompose=True, wd_on_out=out)
            dim = dict(lora_dim=2, alpha=2)
            yield f"DoRA {side} {layer}", layer, locon.LoConModule, dict(**dim, **wd)
            yield f"LoHa DoRA {side} {layer}", layer, loha.LohaModule, dict(**dim, **wd)
            yield f"LoKr DoRA {side} {layer}", layer, lokr.LokrModule, dict(**dim, **wd)
        yield f"GLoRA {layer}", layer, glora.GLoRAModule, dict(lora_dim=3, alpha=2)
        yield f"IA3 in {layer}", layer, ia3.IA3Module, dict(train_on_input=True)
        yield f"IA3 out {layer}", layer, ia3.IA3Module, dict(train_on_input=False)
        oft = dict(lora_dim=4)
        yield f"Diag-OFT {layer}", layer, diag_oft.DiagOFTModule, oft
        yield f"Diag-OFT rescaled {layer}", layer, diag_oft.DiagOFTModule, dict(rescaled=True, **oft)
        held = dict(lora_dim=4, constraint=0.02)
        yield f"Diag-OFT held {layer}", layer, diag_oft.DiagOFTModule, held
        wide = dict(lora_dim=8)
        yield f"BOFT {layer}", layer, boft.ButterflyOFTModule, wide
        yield f"BOFT rescaled {layer}", layer, boft.ButterflyOFTModule, dict(rescaled=True, **wide)
    yield "Norm", "norm", norms.NormModule, {}


def run_lycoris(binary, layer, kind, options, weight):
    torch.manual_seed(11)
    model = Model()
    base = {key: value.clone() for key, value in model.state_dict().items()}
    own = dict(model.blocks[1].named_children())[layer]
    name = f"blocks.1.{layer}"
    flat = f"lycoris_{name.replace('.', '_')}"
    module = kind(flat, own, 1.0, **options)
    module.eval()
    kept = module.dora_scale.clone() if hasattr(module, "dora_scale") else None
    learnt = [p for p in module.parameters() if p.requires_grad]
    # The wrapped layer's own parameters are reachable from the module.
    theirs = {id(p) for p in model.parameters()}
    randomise([p for p in learnt if id(p) not in theirs], 0.3)
    if kept is not None:
        with torch.no_grad():
            module.dora_scale.copy_(kept * (1 + 0.2 * torch.randn_like(kept)))
    with torch.no_grad():
        merged, bias = module.get_merged_weight(weight, own.weight.shape)
        stored = module.custom_state_dict() if hasattr(module, "custom_state_dict") else {}
        stored = stored or {
            key: value for key, value in module.state_dict().items() if "org_module" not in key
        }
    stored = {f"{flat}.{key}": value.clone().contiguous() for key, value in stored.items()}
    want = dict(base)
    want[f"{name}.weight"] = merged.reshape(base[f"{name}.weight"].shape)
    if bias is not None:
        want[f"{name}.bias"] = bias
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        save_file(base, scratch / "base.safetensors")
        save_file(stored, scratch / "adapter.safetensors")
        out = scratch / "out.safetensors"
        failed = merge(
            binary,
            scratch / "base.safetensors",
            scratch / "adapter.safetensors",
            out,
            f"-w={weight}",
        )
        return failed or compare(base, want, load_file(out))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", default="target/release/lora-tool")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--golden", type=pathlib.Path, help="record PEFT's merges in this folder")
    asked = parser.parse_args()
    if asked.golden:
        for name, config, spread in peft_cases():
            if name in GOLDEN and asked.only in name:
                record(name, config, spread, asked.golden / GOLDEN[name])
        return
    cases = [
        (f"peft {name}", lambda c=config, s=spread, n=name: run_peft(asked.binary, n, c, s))
        for name, config, spread in peft_cases()
    ]
    cases.append(("peft BOFT, butterfly", lambda: run_butterfly(asked.binary)))
    try:
        for name, layer, kind, options in lycoris_cases():
            # In LyCORIS a weight goes into each stage of BOFT, past the rescaling, and between V and its
            # decomposition instead of the weight and that: only 1 is alike.
            alone = any(word in name for word in ["BOFT", "rescaled", "DoRA"])
            for weight in [1.0] if alone else [1.0, 0.6]:
                run = lambda l=layer, k=kind, o=options, w=weight: run_lycoris(
                    asked.binary, l, k, o, w
                )
                cases.append((f"lycoris {name}, weight {weight}", run))
    except ImportError as error:
        print(f"without LyCORIS: {error}", file=sys.stderr)
    bad = 0
    for name, run in cases:
        if asked.only not in name:
            continue
        found = run()
        if isinstance(found, str):
            bad += 1
            print(f"{name:42} FAILED  {found}")
            continue
        worst, changed = found
        fits = worst <= LIMIT and changed > 0
        bad += not fits
        print(f"{name:42} {worst:9.1e}  {changed} tensors{'' if fits else '  TOO FAR'}")
    print(f"{bad} of {len(cases)} cases off" if bad else f"all {len(cases)} cases agree")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
