"""What ComfyUI's own loader makes of files that lora-tool reads, writes and judges, without its models.

    python comfyui_loads.py COMFYUI [LORA_TOOL]     (a source tree of ComfyUI, and what it imports)

Models are made of the key lists in fixtures/keys, small. For every architecture:

- every convention: an adapter of all modules, in diffusers' names, converted to the others;
- every family: modules in kohya's names, as LyCORIS stores them.

Each file goes through `comfy.lora_convert`, `model_lora_keys_unet` and `load_lora`, and every patch through
`calculate_weight`. That must agree with `lora-tool check --for comfyui`: where it finds nothing, every key
is taken and the patched weights are those of `lora-tool merge`; where it finds something, not.
Exit 0: all agree. 1: some do not.
"""

import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file

KEYS = Path(__file__).resolve().parents[2] / "fixtures" / "keys"
RANK = 2
SD15 = dict(
    num_res_blocks=[2, 2, 2, 2], channel_mult=[1, 2, 4, 4], transformer_depth_middle=1,
    transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
)
SDXL = dict(
    num_res_blocks=[2, 2, 2], channel_mult=[1, 2, 4], transformer_depth_middle=10,
    transformer_depth=[0, 0, 2, 2, 10, 10], transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
)
# Its class in ComfyUI, the config, the prefix in a checkpoint, by what sizes are divided, and which
# blocks are kept. Those whose width ComfyUI does not take from the config keep their size.
MODELS = {
    "sd15": ("BaseModel", SD15, "model.diffusion_model.", 16, None),
    "sdxl": ("SDXL", SDXL, "model.diffusion_model.", 16, None),
    "sd3": ("SD3", dict(depth=24), "model.diffusion_model.", 1, (0, 23)),
    "flux": ("Flux", dict(depth=19, depth_single_blocks=38, hidden_size=48), "", 64, None),
    "pixart": ("PixArt", dict(depth=28, hidden_size=72), "", 16, None),
    "hunyuan_video": ("HunyuanVideo", {}, "", 64, None),
    "wan_t2v": ("WAN21", {}, "", 64, None),
    "qwen_image": ("QwenImage", {}, "", 64, None),
    "lumina2": ("Lumina2", {}, "", 64, None),
}
UNETS = ("sd15", "sdxl")


class Model:
    """The modules of a key list: diffusers' name, published tensor, share of its rows; and random weights."""

    def __init__(self, name):
        own, self.config, self.prefix, scale, blocks = MODELS[name]
        self.name, self.own = name, own
        torch.manual_seed(3)
        self.modules, self.base = [], {}
        for line in (KEYS / f"{name}.txt").read_text().splitlines():
            module, tensor, rows, columns, where = line.split(" ")[:5]
            number = next((int(part) for part in tensor.split(".") if part.isdigit()), 0)
            # Of SD3's last block, which is told by counting them all, it is another one.
            other = name == "sd3" and "norm1_context" in module
            if other or not tensor.endswith(".weight") or (blocks and "blocks." in tensor and number not in blocks):
                continue
            unit = lambda size: size // scale if size % scale == 0 else size
            rows, columns = unit(int(rows)), unit(int(columns))
            start, _, end = where.partition("..")
            outputs = unit(int(end)) - unit(int(start)) if end else rows
            kernel = [columns // 9, 3, 3] if self.is_conv(tensor) else [columns]
            self.modules.append((module, tensor.removesuffix(".weight"), outputs, kernel))
            if tensor not in self.base:
                self.base[tensor] = torch.randn(rows, *kernel) * 0.3

    def is_conv(self, tensor):
        marks = (".op.", "in_layers.2.", "out_layers.3.", "input_blocks.0.0.", "out.2.", ".conv.")
        return self.name in UNETS and any(mark in f".{tensor}" for mark in marks)

    def save(self, path):
        save_file({self.prefix + name: value for name, value in self.base.items()}, path)

    def kohya(self):
        """kohya's name of each module that it has, and the shape."""
        if self.name in UNETS:
            return {"lora_unet_" + m.replace(".", "_"): [o, *kernel] for m, _, o, kernel in self.modules}
        shapes = {t: list(self.base[t + ".weight"].shape) for _, t, _, _ in self.modules}
        return {"lora_unet_" + t.replace(".", "_"): shape for t, shape in shapes.items()}


class Comfy:
    def __init__(self, tree):
        sys.path.insert(0, str(tree))
        from comfy.cli_args import args

        args.cpu = True
        import comfy.lora
        import comfy.lora_convert
        import comfy.model_base
        import comfy.supported_models

        self.api = comfy

    def loaded(self, model):
        """What ComfyUI calls a checkpoint's tensors once the model is loaded, with the checkpoint's names."""
        own = getattr(self.api.supported_models, model.own, None)
        renames = vars(own).get("process_unet_state_dict") if own else None
        names = {name: name for name in model.base}
        return renames(None, names) if renames else names

    def key_map(self, model):
        own = getattr(self.api.model_base, model.own)
        loaded = self.loaded(model).items()
        weights = {f"diffusion_model.{name}": model.base[stored] for name, stored in loaded}

        class Bare(own):
            def __init__(self):
                torch.nn.Module.__init__(self)
                self.model_config = SimpleNamespace(unet_config=model.config)

            def state_dict(self):
                return weights

        return self.api.lora.model_lora_keys_unet(Bare(), {})

    def patch(self, model, keys, path):
        """How many tensors are taken, of how many, and what the touched weights become."""
        state = self.api.lora_convert.convert_lora(load_file(path))
        untaken = []
        catch = logging.Handler()
        catch.emit = lambda record: untaken.append(record.getMessage())
        logging.getLogger().handlers = [catch]
        patches = self.api.lora.load_lora(state, keys)
        missing = sum("not loaded" in message for message in untaken)
        untaken.clear()
        found, loaded = {}, self.loaded(model)
        for key, adapter in patches.items():
            name, offset, function = (key, None, None) if isinstance(key, str) else (*key, None)[:3]
            stored = loaded[name.removeprefix("diffusion_model.")]
            name = f"diffusion_model.{stored}"
            weight = found.setdefault(name, model.base[stored].clone())
            patch = (1.0, adapter, 1.0, offset, function)
            found[name] = self.api.lora.calculate_weight([patch], weight, name)
        return len(state) - missing, len(state), found, untaken


def factors(model, names):
    tensors = {}
    for name, (module, _, outputs, kernel) in zip(names, model.modules):
        if name:
            tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, *kernel) * 0.2
            tensors[f"{name}.lora_B.weight"] = torch.randn(outputs, RANK, *[1] * (len(kernel) - 1)) * 0.2
    return tensors


def family(name, shape):
    """A module's tensors, as LyCORIS names and shapes them; none where it makes no such module."""
    out, inside = shape[0], shape[1:]
    rand = lambda *size: torch.randn(*size) * 0.3
    flat = int(torch.tensor(inside).prod())
    ones = [1] * (len(shape) - 1)
    down, up = rand(RANK, *inside), rand(out, RANK, *[1] * (len(inside) - 1))
    alpha = {"alpha": torch.tensor(1.5)}
    lora = {"lora_down.weight": down, "lora_up.weight": up} | alpha
    hada = lambda at: {f"hada_w{at}_a": rand(out, RANK), f"hada_w{at}_b": rand(RANK, flat)}
    conv = len(inside) == 3
    block = next((size for size in (4, 2) if out % (2 * size) == 0), 0)
    if name == "lora":
        return lora
    if name == "lora, no alpha":
        return {key: value for key, value in lora.items() if key != "alpha"}
    if name == "lora, tucker" and conv:
        small = {"lora_down.weight": rand(RANK, inside[0], 1, 1), "lora_mid.weight": rand(RANK, RANK, 3, 3)}
        return lora | small
    if name == "dora by outputs":
        return lora | {"dora_scale": torch.rand(out, *ones) + 0.5}
    if name == "dora by inputs" and inside[0] != out:
        return lora | {"dora_scale": torch.rand(1, inside[0], *ones[1:]) + 0.5}
    if name == "loha":
        return hada(1) | hada(2) | alpha
    if name == "loha, tucker" and conv:
        part = lambda at: {
            f"hada_w{at}_a": rand(RANK, out), f"hada_w{at}_b": rand(RANK, inside[0]), f"hada_t{at}": rand(RANK, RANK, 3, 3),
        }
        return part(1) | part(2) | alpha
    if name == "lokr" and out % 2 == 0 and inside[0] % 2 == 0 and not conv:
        return {"lokr_w1": rand(2, 2), "lokr_w2_a": rand(out // 2, RANK), "lokr_w2_b": rand(RANK, flat // 2)} | alpha
    if name == "lokr, whole" and out % 2 == 0 and inside[0] % 2 == 0:
        return {"lokr_w1": rand(2, 2), "lokr_w2": rand(out // 2, inside[0] // 2, *inside[1:])} | alpha
    if name == "glora" and not conv:
        a = {"a1.weight": rand(inside[0], RANK), "a2.weight": rand(RANK, inside[0])}
        return a | {"b1.weight": rand(out, RANK), "b2.weight": rand(RANK, inside[0])} | alpha
    if name == "oft" and block:
        return {"oft_blocks": rand(out // block, block, block)} | {"alpha": torch.tensor(0.0)}
    if name == "oft, rescaled" and block:
        return {"oft_blocks": rand(out // block, block, block), "rescale": torch.rand(out, *ones) + 0.5, "alpha": torch.tensor(0.0)}
    if name == "boft" and block:
        return {"oft_blocks": rand(2, out // block, block, block), "alpha": torch.tensor(0.0)}
    if name == "full":
        return {"diff": rand(*shape)}
    if name == "ia3":
        return {"weight": rand(out, *ones), "on_input": torch.tensor(0)}
    return {}


FAMILIES = [
    "lora", "lora, no alpha", "lora, tucker", "dora by outputs", "dora by inputs", "loha", "loha, tucker", "lokr",
    "lokr, whole", "glora", "oft", "oft, rescaled", "boft", "full", "ia3",
]  # fmt: skip


class Table:
    def __init__(self, comfy, tool):
        self.comfy, self.tool, self.count, self.bad = comfy, tool, 0, 0

    def run(self, *arguments, code=(0,)):
        command = [str(part) for part in (self.tool, "-q", *arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode not in code:
            raise RuntimeError(done.stderr.strip().splitlines()[0])
        return done.stdout

    def case(self, model, keys, label, path, base, scratch):
        report = json.loads(self.run("check", path, "--for", "comfyui", "--json", code=(0, 1, 2)))
        taken, of, found, said = self.comfy.patch(model, keys, path)
        out = scratch / "merged.safetensors"
        self.run("merge", base, path, "-o", out, "--force")
        merged = {name.removeprefix(model.prefix): value for name, value in load_file(out).items()}
        off = moved = 0.0
        for name, before in model.base.items():
            theirs = found.get(f"diffusion_model.{name}", before)
            off = max(off, (merged[name] - theirs).abs().max().item())
            moved = max(moved, (merged[name] - before).abs().max().item())
        right = taken == of and off <= 3e-6 * moved and not said
        good = right == report["ok"] and moved > 0
        self.count += 1
        self.bad += not good
        verdict = "loads" if report["ok"] else "; ".join(finding["says"] for finding in report["findings"])
        print(f"{'ok ' if good else 'BAD'} {model.name:13} {label:16} takes {taken:5} of {of:5}, off {off / moved:7.1e}, check: {verdict}", flush=True)

    def conventions(self, model, keys, base, scratch):
        root = "unet" if model.name in UNETS else "transformer"
        torch.manual_seed(5)
        path = scratch / "diffusers.safetensors"
        save_file(factors(model, [f"{root}.{module}" for module, *_ in model.modules]), path)
        self.case(model, keys, "diffusers", path, base, scratch)
        for convention in ("kohya", "comfyui"):
            out = scratch / f"{convention}.safetensors"
            self.run("convert", path, "--to", convention, "--reference", base, "-o", out)
            self.case(model, keys, convention, out, base, scratch)
        if model.name in UNETS:  # as diffusers spelled them at first
            old = lambda module: "unet." + module.replace(".to_", ".processor.to_").replace(".to_out.0", ".to_out")
            names = [old(module) if ".attn" in module else None for module, *_ in model.modules]
            spelled = {".lora_A.weight": "_lora.down.weight", ".lora_B.weight": "_lora.up.weight"}
            tensors = factors(model, names)
            for new, ending in spelled.items():
                tensors = {key.replace(new, ending): value for key, value in tensors.items()}
            save_file(tensors, path)
            self.case(model, keys, "diffusers, old", path, base, scratch)

    def families(self, model, keys, base, scratch):
        shapes = list(model.kohya().items())
        for name in FAMILIES:
            torch.manual_seed(9)
            made = [(module, family(name, shape)) for module, shape in shapes]
            made = [(module, tensors) for module, tensors in made if tensors]
            every = max(1, len(made) // 12)  # a dozen modules of each
            tensors = {f"{module}.{key}": value for module, own in made[::every] for key, value in own.items()}
            if tensors:
                path = scratch / "family.safetensors"
                save_file(tensors, path)
                self.case(model, keys, name, path, base, scratch)


def main(tree, tool="target/release/lora-tool"):
    table = Table(Comfy(Path(tree)), tool)
    for name in MODELS:
        model = Model(name)
        keys = table.comfy.key_map(model)
        with tempfile.TemporaryDirectory() as scratch:
            base = Path(scratch) / "base.safetensors"
            model.save(base)
            for cases in (table.conventions, table.families):
                try:
                    cases(model, keys, base, Path(scratch))
                except RuntimeError as error:
                    table.count, table.bad = table.count + 1, table.bad + 1
                    print(f"BAD {name:13} {error}")
    print(f"{table.count} cases, {table.bad} bad")
    return 1 if table.bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
