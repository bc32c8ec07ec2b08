"""What of an update survives in a quantised base, by the way it is merged.

usage: survival.py --lora-tool BINARY --base BASE --task DIRECTORY [--task DIRECTORY ...] [--results FILE]

The base is an encoder in 16 or 32 bit (all-MiniLM-L6-v2), a task a PEFT adapter with texts and a head (README.md).
All matrices of the encoder's layers are quantised by the packages themselves (scripts/interop/quantisers), then
lora-tool merges every adapter in every way, the packages read its output, and the texts are scored. Shares of the
update in the weights, as the tool reports them, and right answers are printed as tables.

Each merge is one line of --results as soon as it is scored; what is in that file is not made again. --every N counts
every N-th text of a task alone, from the first on; the file has all of them."""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from benches import Encoder, adapter_deltas
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
    """A base in one format, and the ways to merge into it."""

    def __init__(self, scheme, tool, base, root):
        self.scheme, self.tool, self.original, self.root = scheme, tool, base, root
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

    def merge(self, base, adapter, options, plain):
        """The merged weights in f32, and the tool's report; `plain` is a result without codes."""
        out = self.root / ("out.gguf" if self.is_gguf and not plain else "out.safetensors" if self.is_gguf else "out")
        command = [self.tool, "merge", base, adapter, "-o", out, "-f", "--json", *options]
        if isinstance(self.scheme, Stacks) and base == self.base:
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

    def way(self, way, adapter):
        """What a way makes of an adapter: weights in f32, and the tool's report."""
        again = ["--types", "keep"] if self.is_gguf else ["--quantized", "requantize"]
        again += ["--min-survival", "0"]
        merge = lambda *options, plain=False: self.merge(self.base, adapter, options, plain)
        match way:
            case "beside":
                return merge("--dtype", "f32", plain=True)
            case "bf16":
                return merge("--dtype", "bf16", plain=True)
            case "fresh":
                return merge(*again)
            case "reuse":
                return merge(*again, "--scales", "reuse")
            case "stochastic":
                return merge(*again, "--rounding", "stochastic")
            case "residual":
                beside = self.root / "residual"
                weights, report = merge(*again, "--residual", beside)
                for module, delta in adapter_deltas(beside).items():
                    weights[f"{module}.weight"] = weights[f"{module}.weight"] + delta
                return weights, report
            case "original":
                options = ["--quantize-like", self.base, "--min-survival", "0"]
                return self.merge(self.original, adapter, options, False)
        raise ValueError(way)

    def ways(self):
        """The ways that the format has."""
        found = ["beside", "bf16", "fresh", "reuse", "half", "stochastic"]
        return found if self.is_gguf else [*found, "residual", "original"]

    def half(self, adapter, bf16, fresh):
        """16-bit weights where the update is largest against the weight, quantised again in the other half."""
        size = lambda module, delta: float(delta.norm() / self.weights[f"{module}.weight"].norm())
        deltas = adapter_deltas(adapter)
        largest = sorted(deltas, key=lambda module: size(module, deltas[module]), reverse=True)[: len(deltas) // 2]
        return fresh | {name: bf16[name] for name in (f"{module}.weight" for module in largest)}


class Results:
    """Lines of a file: format, way, task, mean and least gain of its modules, and 1 or 0 for each text."""

    def __init__(self, file):
        self.file, self.found = file, {}
        if file is not None and file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                self.found[record["format"], record["way"], record["task"]] = record

    def add(self, record):
        self.found[record["format"], record["way"], record["task"]] = record
        if self.file is not None:
            with open(self.file, "a", encoding="utf-8") as out:
                out.write(json.dumps(record) + "\n")

    def table(self, name, ways, tasks, cell):
        """Rows of one format: a cell for each task that has all of it."""
        for way in ways:
            cells = [cell(self.found.get((name, way, task), {})) for task in tasks]
            if all(text is not None for text, _ in cells):
                mean = sum(number for _, number in cells) / len(cells)
                print(f"| {name} | {way} | {' | '.join(text for text, _ in cells)} | {mean:.1f} |", flush=True)


def gain_cell(record):
    if "gain" not in record:
        return None, None
    return f"{100 * record['gain']:.0f} ({100 * record['least']:.0f})", 100 * record["gain"]


def right_cell(record, every):
    if "right" not in record:
        return None, None
    texts = record["right"][::every]
    share = 100 * texts.count("1") / len(texts)
    return f"{share:.1f}", share


class Judge:
    """Merges and scores what the results do not have."""

    def __init__(self, options, results):
        self.options, self.results = options, results
        self.bench = None if options.no_scores else Encoder(options.base, options.task)

    def record(self, name, way, at, weights, report):
        record = {"format": name, "way": way, "task": self.options.task[at].name}
        survival = [module["gain"] for module in report.get("survival") or []]
        if survival:
            record |= {"gain": sum(survival) / len(survival), "least": min(survival)}
        if self.bench is not None:
            for parameter, weight in self.bench.weights.items():
                weight.data = weights[parameter].float().contiguous()
            right = self.bench.score(at)[at].right
            record["right"] = "".join(str(int(each)) for each in right.tolist())
        self.results.add(record)

    def plain(self):
        """The base as it is: alone, and with each adapter."""
        weights = load_file(self.options.base / "model.safetensors")
        for at, task in enumerate(self.options.task):
            added = dict(weights)
            for module, delta in adapter_deltas(task).items():
                added[f"{module}.weight"] = weights[f"{module}.weight"].float() + delta
            for way, used in (("alone", weights), ("beside", added)):
                if ("base", way, task.name) not in self.results.found:
                    self.record("base", way, at, used, {})

    def format(self, scheme, root):
        """All ways of one format; the base is quantised where one is still to be made."""
        form = None
        for at, task in enumerate(self.options.task):
            made = {}

            def weights_of(way):
                if way not in made:
                    made[way] = form.way(way, task)
                return made[way]

            for way in self.options.ways or WAYS:
                if (scheme.name, way, task.name) in self.results.found:
                    continue
                form = form or Format(scheme, self.options.lora_tool, self.options.base, root)
                if way not in form.ways():
                    continue
                if way == "half":
                    parts = weights_of("bf16")[0], weights_of("fresh")[0]
                    self.record(scheme.name, way, at, form.half(task, *parts), {})
                else:
                    self.record(scheme.name, way, at, *weights_of(way))


WAYS = ["beside", "bf16", "fresh", "reuse", "half", "stochastic", "residual", "original"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lora-tool", required=True, type=Path)
    parser.add_argument("--base", required=True, type=Path)
    parser.add_argument("--task", required=True, type=Path, action="append")
    parser.add_argument("--only", default="", help="formats whose names hold this")
    parser.add_argument("--ways", nargs="+", choices=WAYS)
    parser.add_argument("--no-scores", action="store_true", help="shares of the update alone, without the texts")
    parser.add_argument("--results", type=Path, help="a file that keeps what is scored")
    parser.add_argument("--every", type=int, default=1, help="count every N-th text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(options.results)
    judge = Judge(options, results)
    tasks = [task.name for task in options.task]
    print(f"| format | way | {' | '.join(tasks)} | mean |", flush=True)
    if not options.no_scores:
        judge.plain()
    right = lambda record: right_cell(record, options.every)
    results.table("base", ["alone", "beside"], tasks, right)
    for scheme in (scheme for scheme in formats() if options.only in scheme.name):
        with tempfile.TemporaryDirectory() as root:
            judge.format(scheme, Path(root))
        ways = options.ways or WAYS
        print(f"{scheme.name}: share of the update, mean (least module)")
        results.table(scheme.name, ways, tasks, gain_cell)
        print(f"{scheme.name}: right answers")
        results.table(scheme.name, ways, tasks, right)


main()
