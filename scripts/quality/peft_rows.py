"""What PEFT's `add_weighted_adapter` makes of a set of adapters, saved as adapters."""

import json

import torch
from safetensors.torch import load_file, save_file

A, B = ".lora_A.weight", ".lora_B.weight"


def widened(directories, scratch):
    """Copies of adapters that all have the modules of all, zero where they had none.

    PEFT gives a merge the layers of its first adapter, and refuses one whose layers differ; what adapters add to the
    base is the same with zeros.
    """
    configs = [json.loads((path / "adapter_config.json").read_text(encoding="utf-8")) for path in directories]
    tensors = [load_file(path / "adapter_model.safetensors") for path in directories]
    shapes = {}
    for one in tensors:
        for name, value in one.items():
            if name.endswith(A):
                shapes[name.removesuffix(A)] = (value.shape[1:], one[name.replace(A, B)].shape)
    if all(len(one) == 2 * len(shapes) for one in tensors):
        return directories
    layers = sorted({at for config in configs for at in config.get("layers_to_transform") or []})
    targets = sorted({target for config in configs for target in config["target_modules"]})
    copies = []
    for path, config, one in zip(directories, configs, tensors):
        for module, (inputs, up) in shapes.items():
            if module + A not in one:
                one[module + A] = torch.zeros(config["r"], *inputs)
                one[module + B] = torch.zeros(up[0], config["r"], *up[2:])
        copy = scratch / "widened" / path.name
        copy.mkdir(parents=True, exist_ok=True)
        save_file(one, copy / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {**config, "target_modules": targets, "layers_to_transform": layers or None}
        (copy / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        copies.append(copy)
    return copies


class PeftMerges:
    """Adapters in one PEFT model, opened when the first merge is asked for."""

    def __init__(self, scores, scratch):
        self.scores, self.scratch, self.model = scores, scratch, None

    def merged(self, weight, arguments):
        """The directory of one merge."""
        from peft import PeftModel

        names = [path.name for path in self.scores.dirs]
        if self.model is None:
            paths = widened(self.scores.dirs, self.scratch)
            net = self.scores.opened().net
            self.model = PeftModel.from_pretrained(net, paths[0], adapter_name=names[0])
            for name, path in zip(names[1:], paths[1:]):
                self.model.load_adapter(path, adapter_name=name)
        self.model.add_weighted_adapter(names, [weight] * len(names), "all", **arguments)
        self.model.save_pretrained(self.scratch / "peft", selected_adapters=["all"])
        self.model.delete_adapter("all")
        return self.scratch / "peft" / "all"
