"""What of an update survives in a quantised base, by the way it is merged.

usage: survival.py --lora-tool BINARY --base BASE --task DIRECTORY [--task DIRECTORY ...] [--only WORD]

The base is an encoder in 16 or 32 bit (all-MiniLM-L6-v2), a task a PEFT adapter with texts and a head (README.md).
All matrices of the encoder's layers are quantised by the packages themselves (scripts/interop/quantisers), then
lora-tool merges every adapter in every way, the packages read its output, and the texts are scored. Two tables are
printed: shares of the update in the weights, as the tool reports them, and right answers."""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from benches import Encoder
from quantisers import Scheme, bitsandbytes_, compressed, fp8
from quantisers.ggml import Blocks


class Stacks(Scheme):
    """gpt-oss' MXFP4: ggml's codes with nibbles of neighbours in a byte. The parameter is [inputs, outputs]."""

    name = "MXFP4 g32"

    def store(self, name, weight):
        from gguf import GGMLQuantizationType, quants

        raw = quants.quantize(weight.numpy(), GGMLQuantizationType.MXFP4)
        raw = torch.from_numpy(raw).reshape(weight.shape[0], -1, 17)
        nibbles = torch.cat([raw[..., 1:] & 15, raw[..., 1:] >> 4], -1)
        blocks = nibbles[..., 0::2] | nibbles[..., 1::2] << 4
        return {f"{name}_blocks": blocks.contiguous(), f"{name}_scales": raw[..., 0].contiguous()}

    def read(self, name, tensors, shape):
        from transformers.integrations.mxfp4 import convert_moe_packed_tensors

        blocks, scales = tensors[f"{name}_blocks"], tensors[f"{name}_scales"]
        return convert_moe_packed_tensors(blocks[None], scales[None], dtype=torch.float32)[0].T

    def config(self, skipped):
        return {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": skipped}}


def formats():
    float8 = lambda name, **how: compressed.Compressed(name, "float-quantized", num_bits=8, type="float", **how)
    packed = lambda group: compressed.Compressed(
        f"int4 g{group}", "pack-quantized", num_bits=4, strategy="group", group_size=group)
    return [
        float8("fp8 tensor", strategy="tensor"), float8("fp8 channel", strategy="channel"),
        fp8.Blocks((128, 128), False), bitsandbytes_.EightBit(), Blocks("Q8_0"), packed(32), packed(128),
        bitsandbytes_.FourBit("nf4", False, 64), bitsandbytes_.FourBit("nf4", True, 64), Stacks(), Blocks("Q4_0"),
    ]


class Format:
    """A base in one format, and merges into it."""

    def __init__(self, scheme, tool, base, root):
        self.scheme, self.tool, self.root = scheme, tool, root
        self.weights = load_file(base / "model.safetensors")
        self.names = [name for name in self.weights if ".layer." in name and self.weights[name].ndim == 2]
        self.is_gguf = isinstance(scheme, Blocks)
        if self.is_gguf:
            self.base = root / "base.gguf"
            scheme.save(self.base, self.weights, set(self.names))
            return
        self.base = root / "base"
        self.base.mkdir()
        tensors = {name: weight for name, weight in self.weights.items() if name not in self.names}
        for name in self.names:
            tensors |= scheme.store(name, self.weights[name].float())
        save_file(tensors, self.base / "model.safetensors")
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
        skipped = ["pooler.dense", "embeddings"]
        (self.base / "config.json").write_text(json.dumps(config | scheme.config(skipped)), encoding="utf-8")

    def merge(self, adapter, *options):
        """The merged weights in f32, and the tool's report."""
        plain = "--dtype" in options
        out = self.root / ("out.gguf" if self.is_gguf and not plain else "out.safetensors" if self.is_gguf else "out")
        command = [self.tool, "merge", self.base, adapter, "-o", out, "-f", "--json", *options]
        if isinstance(self.scheme, Stacks):
            command += ["--orientation", ".layer.=in-out"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{self.scheme.name}: {' '.join(map(str, command))}: {done.stderr}")
        return self.read(out, plain), json.loads(done.stdout)

    def read(self, out, plain):
        if out.suffix == ".gguf":
            return self.scheme.load(out)
        files = [out] if out.is_file() else sorted(out.glob("*.safetensors"))
        tensors = {name: value for file in files for name, value in load_file(file).items()}
        turned = isinstance(self.scheme, Stacks) and plain
        for name in self.names:
            if not plain:
                tensors[name] = self.scheme.read(name, tensors, self.weights[name].shape)
            elif turned:
                tensors[name] = tensors[name].T
        return tensors

    def ways(self):
        """Options of the merges: next to the base, plain, and quantised again in three ways."""
        again = ["--types", "keep"] if self.is_gguf else ["--quantized", "requantize"]
        again += ["--min-survival", "0"]
        yield "beside", ["--dtype", "f32"]
        yield "bf16", ["--dtype", "bf16"]
        yield "fresh", again
        yield "reuse", [*again, "--scales", "reuse"]
        yield "stochastic", [*again, "--rounding", "stochastic"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lora-tool", required=True, type=Path)
    parser.add_argument("--base", required=True, type=Path)
    parser.add_argument("--task", required=True, type=Path, action="append")
    parser.add_argument("--only", default="", help="formats whose names hold this")
    parser.add_argument("--ways", nargs="+", default=["beside", "bf16", "fresh", "reuse", "stochastic"])
    parser.add_argument("--no-scores", action="store_true", help="shares of the update alone, without the texts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = None if options.no_scores else Encoder(options.base, options.task)
    print(f"tasks: {', '.join(task.name for task in options.task)}", flush=True)
    for scheme in (scheme for scheme in formats() if options.only in scheme.name):
        with tempfile.TemporaryDirectory() as root:
            form = Format(scheme, options.lora_tool, options.base, Path(root))
            gains, right = {}, {}
            for way, how in form.ways():
                if way not in options.ways:
                    continue
                for at, task in enumerate(options.task):
                    weights, report = form.merge(task, *how)
                    survival = [module["gain"] for module in report.get("survival") or []]
                    if survival:
                        gains.setdefault(way, []).append((sum(survival) / len(survival), min(survival)))
                    if bench is not None:
                        for name, weight in bench.weights.items():
                            weight.data = weights[name].float().contiguous()
                        right.setdefault(way, []).append(100 * float(bench.score(at)[at].mean()))
            for way, found in gains.items():
                shares = ", ".join(f"{100 * mean:.0f} ({100 * least:.0f})" for mean, least in found)
                print(f"| {scheme.name} | gain | {way} | {shares} |", flush=True)
            for way, found in right.items():
                shares = ", ".join(f"{one:.1f}" for one in found)
                print(f"| {scheme.name} | right | {way} | {shares} | {sum(found) / len(found):.1f} |", flush=True)


main()
