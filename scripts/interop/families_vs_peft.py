#!/usr/bin/env python3
"""Merges adapters of every family with lora-tool and with the library that made them, and compares.

    python scripts/interop/families_vs_peft.py [--binary target/release/lora-tool] [--only NAME]

Needs torch, safetensors, peft and, for the second part, lycoris-lora. Models are tiny and adapters
random; nothing is trained and nothing is downloaded. Prints for every case the largest difference, as
a share of the largest change that the adapter makes; exits 1 if one is above 1e-4, or if a case cannot
be merged.
"""

import argparse
import copy
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
        self.norm = nn.LayerNorm(16)

    def forward(self, x):
        return self.q(self.norm(self.square(x)))


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
        # Norms are replaced whole: there is nothing to have factors.
        if name != "LN_TUNING":
            failed = failed or as_lora(binary, model, scratch, base, want)
        if failed:
            return failed
        return compare(base, want, load_file(out))


def written_again(binary, model, scratch, want):
    """What `convert --to peft` makes of the adapter with leaked names has to be the same to PEFT."""
    import peft

    file = scratch / "adapter/adapter_model.safetensors"
    leaked = {}
    for key, tensor in load_file(file).items():
        above, ending = key.rsplit(".", 1)
        named = f"{above}.default.{ending}" if ending in ("weight", "bias") else f"{key}.default"
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
    asked = parser.parse_args()
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
