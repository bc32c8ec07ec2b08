#!/usr/bin/env python3
"""What llama.cpp itself makes of adapters that lora-tool converted, on tiny random models.

Each model of transformers is converted to GGUF by llama.cpp's own converter, each of its adapters by
lora-tool and by llama.cpp's `convert_lora_to_gguf.py`. Then

- factors: both files hold the same tensors, bit by bit; where llama.cpp's script does not take the adapter (stacks of
  experts), every tensor has one of the base's, of its shape;
- export: `llama-export-lora` with lora-tool's file, against `lora-tool merge` and llama.cpp's converter;
- run: logits of llama.cpp with lora-tool's file, against transformers with PEFT (llama-cpp-python);
- back: llama.cpp's file through `lora-tool convert --to peft`, against the adapter, bit by bit;
- again: `lora-tool merge` of lora-tool's own GGUF file, against that of the adapter.

Needs a source tree of llama.cpp with its `gguf-py` in PYTHONPATH, and `llama-export-lora` built from it.
Exit 0: all agree. 1: some do not.
"""

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from moe_vs_peft import QWEN, SMALL, Comparison, randomise, run, single_experts
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

try:
    import llama_cpp
except ImportError:
    llama_cpp = None

# Some architectures of llama.cpp have no head size of their own.
SIZES = SMALL | dict(num_attention_heads=6, num_key_value_heads=2, head_dim=4)
TIED = dict(tie_word_embeddings=True)
MODELS = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", TIED),
    "gemma2": ("gemma2", TIED | dict(query_pre_attn_scalar=4)),
    "phi3": ("phi3", dict(pad_token_id=0)),
    "gpt2": ("gpt2", dict(n_embd=24, n_layer=2, n_head=4, n_positions=64, n_ctx=64, **TIED)),
    "mixtral": ("mixtral", dict(num_local_experts=4, num_experts_per_tok=2)),
    "qwen2_moe": ("qwen2_moe", QWEN | dict(shared_expert_intermediate_size=16)),
    "qwen3_moe": ("qwen3_moe", QWEN | dict(norm_topk_prob=True)),  # as llama.cpp takes for granted
}
EXPERTS = ["mixtral", "qwen2_moe", "qwen3_moe"]
ROUTED = dict(
    n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=12, n_group=1, topk_group=1
)
LINEAR = dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8)
LINEAR |= dict(layer_types=["linear_attention", "full_attention"], mtp_num_hidden_layers=1, pad_token_id=0)
SHARED = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, num_shared_experts=1)
# Names and orders of rows alone are compared with llama.cpp's converter, in adapters of all linear layers.
NAMED = {
    "granite": {},
    "smollm3": dict(pad_token_id=0),
    "ernie4_5": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "exaone4": {},
    "exaone_moe": SHARED | dict(first_k_dense_replace=1),
    "hunyuan_v1_dense": {},
    "hunyuan_v1_moe": SHARED | dict(moe_intermediate_size=[12, 12], moe_topk=[2, 2], num_shared_expert=[1, 1]),
    "ernie4_5_moe": dict(
        moe_num_experts=4, moe_k=2, moe_intermediate_size=12, moe_num_shared_experts=1, moe_layer_start_index=1
    ),
    "glm": dict(pad_token_id=0),
    "glm4": dict(pad_token_id=0),
    "glm4_moe": ROUTED | dict(first_k_dense_replace=1),
    "solar_open": ROUTED | dict(pad_token_id=0),
    "dots1": ROUTED | dict(first_k_dense_replace=1),
    "seed_oss": {},
    "stablelm": {},
    "cohere": TIED | dict(pad_token_id=0),
    "cohere2": TIED | dict(pad_token_id=0, rotary_pct=1.0),
    "nemotron": {},
    "arcee": {},
    "apertus": dict(pad_token_id=0),
    "jais2": {},
    "afmoe": SHARED | dict(num_dense_layers=1),
    "minimax_m2": dict(rotary_dim=4, num_local_experts=4, num_experts_per_tok=2, pad_token_id=0),
    "lfm2": dict(layer_types=["conv", "full_attention"]),
    "starcoder2": {},
    "phi": {},
    "llama4_text": dict(num_local_experts=4, num_experts_per_tok=1, intermediate_size_mlp=24, interleave_moe_layer_step=2),
    "qwen3_next": LINEAR | QWEN | dict(shared_expert_intermediate_size=16),
    "qwen3_5_text": LINEAR,
    "qwen3_5_moe_text": LINEAR | QWEN | dict(shared_expert_intermediate_size=16),
}
# What llama.cpp divides or puts in another order has no name in our tables.
NAMELESS = ("lm_head", "in_proj_qkvz", "in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b")
PLAIN = dict(r=3, lora_alpha=5)
PATTERNS = PLAIN | dict(use_rslora=True, rank_pattern={r"1\..*_proj": 2}, alpha_pattern={"o_proj": 7})
KINDS = {
    "linear": PLAIN | dict(target_modules="all-linear"),
    "embeddings": PLAIN | dict(target_modules=["embed_tokens", "lm_head", "o_proj"]),
    "patterns": PATTERNS | dict(target_modules=r".*self_attn\.\w+_proj"),
    "experts": PLAIN | dict(target_modules=["q_proj"], target_parameters=["experts.gate_up_proj", "experts.down_proj"]),
}
TOKENS = [1, 17, 4, 33, 60, 2, 8, 21, 45, 9]


def kinds(name):
    """The kinds of adapters that a model has, and whether llama.cpp's converter takes them right."""
    if name in NAMED:
        yield "all layers", True
        yield "attention", True
        return
    # Of Conv1D's it transposes the product, whose factors PEFT has as Linear's; and all of a mixture's
    # linear layers are its experts' parameters too, which it does not know.
    yield "linear", name not in ("gpt2", *EXPERTS)
    if not MODELS[name][1].get("tie_word_embeddings"):
        yield "embeddings", True
    if name != "gpt2":
        yield "patterns", False  # it reads one alpha, and no use_rslora
    if name in EXPERTS:
        yield "experts", False
    if name in ("mixtral", "qwen3_moe"):  # PEFT still loads these
        yield "single experts", True


class LlamaCpp:
    def __init__(self, tree, binaries):
        sys.path.insert(0, str(tree))
        import convert_hf_to_gguf
        import gguf

        self.tree, self.binaries, self.gguf, self.converter = tree, binaries, gguf, convert_hf_to_gguf

    def model(self, directory, out, kind="ALL_F32"):
        """A checkpoint as GGUF, without a vocabulary."""
        hparams = self.converter.ModelBase.load_hparams(directory, False)
        name = self.converter.get_model_architecture(hparams, self.converter.ModelType.TEXT)
        own = self.converter.get_model_class(name)

        class Bare(own):
            model_arch = own.model_arch

            def set_vocab(self):
                self._set_vocab_none()

            def set_gguf_parameters(self):
                super().set_gguf_parameters()
                if not any(key.endswith(".vocab_size") for key in self.gguf_writer.kv_data[0]):
                    self.gguf_writer.add_vocab_size(self.hparams["vocab_size"])

        with torch.inference_mode():
            Bare(directory, self.gguf.LlamaFileType[kind], out, eager=True).write()

    def adapter(self, directory, base, out):
        script = self.tree / "convert_lora_to_gguf.py"
        run(sys.executable, script, "--base", base, "--outfile", out, "--outtype", "f32", directory)

    def export(self, base, adapter, out):
        """Merges, and returns how many tensors were merged."""
        command = [self.binaries / "llama-export-lora", "-m", base, "--lora", adapter, "-o", out]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout.split("run_merge : merged ")[1].split()[0])

    def tensors(self, path):
        tensors = {}
        for tensor in self.gguf.GGUFReader(path).tensors:
            shape = [int(n) for n in reversed(tensor.shape)]
            # ggml forgets ones in front, but for factors.
            shape = shape[1:] if shape[0] == 1 and not tensor.name.endswith(("_a", "_b")) else shape
            tensors[tensor.name] = torch.tensor(tensor.data.copy()).reshape(shape)
        return tensors

    def logits(self, base, adapter):
        api = llama_cpp
        model = api.llama_model_load_from_file(str(base).encode(), api.llama_model_default_params())
        if not model:
            raise RuntimeError("llama.cpp does not load its own model")
        lora = api.llama_adapter_lora_init(model, str(adapter).encode())
        if not lora:
            raise RuntimeError("llama.cpp does not load the adapter")
        params = api.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 64
        params.type_k = params.type_v = 0  # f32
        params.flash_attn_type = 0
        context = api.llama_init_from_model(model, params)
        pointer = ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p))
        adapters = ctypes.cast((ctypes.c_void_p * 1)(ctypes.cast(lora, ctypes.c_void_p)), pointer)
        if api.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)):
            raise RuntimeError("llama.cpp does not take the adapter")
        batch = api.llama_batch_init(len(TOKENS), 0, 1)
        batch.n_tokens = len(TOKENS)
        for at, token in enumerate(TOKENS):
            batch.token[at], batch.pos[at], batch.logits[at] = token, at, 1
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
        if api.llama_decode(context, batch):
            raise RuntimeError("llama.cpp does not decode")
        values = api.llama_get_logits(context)[: len(TOKENS) * SIZES["vocab_size"]]
        found = torch.tensor(values).reshape(len(TOKENS), -1)
        api.llama_free(context)
        api.llama_model_free(model)
        return found


def model_of(name):
    model_type, own = MODELS.get(name) or (name, NAMED[name])
    torch.manual_seed(7)
    config = AutoConfig.for_model(model_type, **(SIZES | own))
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():  # so that an attention's rotation and a router's choice matter
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def save_model(name, directory):
    """The model, and in its config what transformers' class took in another form than checkpoints have."""
    model_of(name).save_pretrained(directory)
    path = directory / "config.json"
    lists = {key: value for key, value in NAMED.get(name, {}).items() if isinstance(value, list)}
    path.write_text(json.dumps(json.loads(path.read_text()) | lists))


def make_adapter(name, kind, directory):
    if kind == "single experts":
        return single_experts(name, directory)
    model = model_of(name)
    config = dict(KINDS.get(kind, PLAIN))
    if kind == "attention":
        config["target_modules"] = r".*self_attn\.(q|k|v|o|out)_proj"
    if kind == "all layers":
        nameless = (*NAMELESS, "linear_attn.out_proj") if name.startswith("qwen3_5") else NAMELESS
        linear = [path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
        config["target_modules"] = [path for path in linear if not path.endswith(nameless)]
    peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    randomise(peft)
    # The embeddings of the base would go along otherwise.
    peft.save_pretrained(directory, save_embedding_layers=False)


def same(found, expected):
    """The largest difference and value; or the names that one of them lacks, or has in another shape."""
    shapes = [{(name, value.shape) for name, value in one.items()} for one in (found, expected)]
    if shapes[0] != shapes[1]:
        return float("inf"), sorted({name for name, _ in shapes[0] ^ shapes[1]})
    off = max((found[name].double() - expected[name].double()).abs().max().item() for name in found)
    return off, max(value.abs().max().item() for value in expected.values())


class Case:
    def __init__(self, comparison, llama, name, kind, hub, base, scratch):
        self.comparison, self.llama, self.name, self.label = comparison, llama, name, f"{name}, {kind}"
        self.hub, self.base, self.scratch, self.adapter = hub, base, scratch, scratch / "adapter"
        self.ours, self.theirs = scratch / "ours.gguf", scratch / "theirs.gguf"
        make_adapter(name, kind, self.adapter)

    def judge(self, what, judgement, tolerance=None):
        try:
            off, moved = judgement()
            if isinstance(moved, list):
                self.comparison.fail(f"{self.label}: {what}", moved[:6])
            else:
                self.comparison.add(f"{self.label}: {what}", off, moved, tolerance)
        except Exception as error:  # whatever llama.cpp and PEFT raise
            self.comparison.fail(f"{self.label}: {what}", repr(error)[-300:])

    def tool(self, *arguments):
        run(self.comparison.lora_tool, "-q", *arguments)

    def factors(self):
        self.llama.adapter(self.adapter, self.hub, self.theirs)
        off, largest = same(self.llama.tensors(self.ours), self.llama.tensors(self.theirs))
        fields = [self.llama.gguf.GGUFReader(path).fields for path in (self.ours, self.theirs)]
        said = ["general.type", "general.architecture", "adapter.type", "adapter.lora.alpha"]
        if any(fields[0][key].contents() != fields[1][key].contents() for key in said):
            return float("inf"), said
        return float("inf") if off else 0.0, largest

    def has_stacks(self):
        return any(".experts." in name for name in load_file(self.adapter / "adapter_model.safetensors"))

    def placed(self):
        ours, base = self.llama.tensors(self.ours), self.llama.tensors(self.base)
        pairs = {}
        for name, value in ours.items():
            pairs.setdefault(name[: -len(".lora_a")], {})[name[-1]] = value
        shapes = {name: (*pair["b"].shape[:-1], pair["a"].shape[-1]) for name, pair in pairs.items()}
        if (pair := pairs.get("token_embd.weight")) is not None:  # turned, as it looks rows up
            shapes["token_embd.weight"] = (pair["a"].shape[0], pair["b"].shape[0])
        # llama.cpp stores a matrix of one row as a vector.
        forms = {name: {tuple(value.shape), (1, *value.shape)} for name, value in base.items()}
        strays = [name for name, shape in shapes.items() if shape not in forms.get(name, ())]
        return (float("inf"), strays) if strays else (0.0, float(len(shapes)))

    def merged(self):
        out = self.scratch / "merged"
        if not out.exists():
            self.tool("merge", self.hub, self.adapter, "-o", out)
        return out

    def export(self):
        count = self.llama.export(self.base, self.ours, self.scratch / "exported.gguf")
        exported = self.llama.tensors(self.scratch / "exported.gguf")
        self.llama.model(self.merged(), self.scratch / "expected.gguf")
        expected, before = self.llama.tensors(self.scratch / "expected.gguf"), self.llama.tensors(self.base)
        off, largest = same(exported, expected)
        named = {name.rsplit(".", 1)[0] for name in self.llama.tensors(self.ours)}
        changed = {name for name in before if not torch.equal(before[name], exported[name])}
        if isinstance(largest, list) or count != len(named) or changed != named:
            return float("inf"), largest if isinstance(largest, list) else sorted(changed ^ named)
        moved = max((expected[name] - before[name]).abs().max().item() for name in before)
        return off / moved, moved

    def logits(self):
        tokens = torch.tensor([TOKENS])
        model = model_of(self.name)
        with torch.no_grad():
            before = model(tokens).logits[0]
            after = PeftModel.from_pretrained(model, self.adapter).eval()(tokens).logits[0]
        moved = (after - before).abs().max().item()
        off = (self.llama.logits(self.base, self.ours) - after).abs().max().item()
        return off / moved, moved

    def back(self):
        out = self.scratch / "back"
        self.tool("convert", self.theirs, "--to", "peft", "--reference", self.hub, "-o", out)
        configs = [json.loads((path / "adapter_config.json").read_text()) for path in (out, self.adapter)]
        if any(configs[0][key] != configs[1][key] for key in ("r", "lora_alpha")):
            return float("inf"), ["r", "lora_alpha"]
        found, expected = (load_file(path / "adapter_model.safetensors") for path in (out, self.adapter))
        off, largest = same(found, expected)
        return float("inf") if off else 0.0, largest

    def again(self):
        out = self.scratch / "again"
        self.tool("merge", self.hub, self.ours, "-o", out)
        paths = [path / "model.safetensors" for path in (out, self.merged(), self.hub)]
        found, expected, before = map(load_file, paths)
        moved = max((expected[name] - before[name]).abs().max().item() for name in before)
        off, largest = same(found, expected)
        return (off, largest) if isinstance(largest, list) else (off / moved, moved)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--llama-cpp", type=Path, required=True, help="its source tree")
    parser.add_argument("--binaries", type=Path, help="where llama-export-lora is; without it nothing is exported")
    parser.add_argument("--lora-tool", default="target/release/lora-tool")
    parser.add_argument("--tolerance", type=float, default=3e-6)
    parser.add_argument("--model", choices=MODELS | NAMED, action="append")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    comparison = Comparison(arguments.lora_tool, arguments.tolerance)
    llama = LlamaCpp(arguments.llama_cpp, arguments.binaries)
    for name in arguments.model or MODELS | NAMED:
        with tempfile.TemporaryDirectory() as directory:
            hub, base = Path(directory) / "hub", Path(directory) / "base.gguf"
            save_model(name, hub)
            llama.model(hub, base)
            for kind, theirs in kinds(name):
                with tempfile.TemporaryDirectory() as scratch:
                    case = Case(comparison, llama, name, kind, hub, base, Path(scratch))
                    case.tool("convert", case.adapter, "--to", "gguf", "--reference", hub, "-o", case.ours)
                    case.judge("placed", case.placed)
                    if theirs and not (name in NAMED and case.has_stacks()):
                        case.judge("factors", case.factors)
                        case.judge("back", case.back)
                    if llama.binaries and name in MODELS:
                        case.judge("export", case.export)
                    case.judge("again", case.again)
                    if llama_cpp and name in MODELS:
                        case.judge("run", case.logits, 1e-3)  # its GELU is a table of halves
    print("" if llama_cpp else "llama-cpp-python is not installed: nothing was run\n", end="")
    print(f"{comparison.count} cases, {comparison.bad} bad, worst {comparison.worst:.1e}")
    return 1 if comparison.bad else 0


if __name__ == "__main__":
    sys.exit(main())
