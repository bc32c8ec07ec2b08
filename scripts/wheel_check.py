"""What `wheel_check.sh` runs in a clean environment, beside a copy of the fixture."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable

import numpy
from safetensors.numpy import load_file, save_file

import lora_tool

LLAMA = Path("llama")
KEY = "model.layers.0.self_attn.q_proj"


def widen(path: Path, name: str) -> "numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.float32]]":
    """A tensor of a directory of shards; numpy has no bf16, so merges here are written as f32."""
    for file in sorted(path.glob("*.safetensors")):
        tensors = load_file(file)
        if name in tensors:
            return tensors[name].astype(numpy.float32)
    raise AssertionError(f"{name} is not in {path}")


def examples() -> None:
    """The page on Python runs as it stands, among the fixture's files."""
    folder = Path("page")
    shutil.copytree(LLAMA, folder)
    (folder / "loras").mkdir()
    shutil.copytree(LLAMA / "style", folder / "loras" / "style")
    blocks = Path("python.md").read_text(encoding="utf-8").split("```python\n")[1:]
    code = "\n".join(block.split("```")[0] for block in blocks)
    assert "lora_tool." in code
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    assert (folder / "both").is_dir()


def arrays() -> None:
    """Factors are views of the mapped file: the same memory each time, of which nobody else has a copy."""
    adapter = lora_tool.open(LLAMA / "style")
    stored = load_file(LLAMA / "style" / "adapter_model.safetensors")
    assert len(adapter) == 14 and adapter[KEY].scale == 2.0
    for module in adapter:
        down, up = module.factors()
        for array, again, part in zip((down, up), module.factors(), "AB"):
            address = array.__array_interface__["data"]
            assert address == again.__array_interface__["data"] and address[1], "a copy, or writable"
            assert not array.flags.owndata
            assert numpy.array_equal(array, stored[f"base_model.model.{module.name}.lora_{part}.weight"])
        assert numpy.allclose(module.delta(), 2.0 * up @ down, atol=1e-6)
    # All of a file's tensors lie in one map of it.
    addresses = [array.__array_interface__["data"][0] for module in adapter for array in module.factors()]
    size = (LLAMA / "style" / "adapter_model.safetensors").stat().st_size
    assert max(addresses) - min(addresses) < size
    kohya = lora_tool.Adapter("small.safetensors")
    assert kohya.convention == "kohya" and next(iter(kohya)).delta().ndim == 2
    assert "base_model.model." + KEY + ".lora_A.weight" in adapter.state_dict(to="peft")


def interrupted() -> None:
    """An interrupt of this process alone, as a notebook sends it, stops the command, which leaves nothing."""
    before = set(Path().iterdir())

    def stop(phase: str, done: int, all_: int) -> None:
        raise KeyboardInterrupt

    try:
        lora_tool.combine([big(7), big(8)], "never", rank=4, method="ties", progress=stop)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("nothing was interrupted")
    assert set(Path().iterdir()) <= before | {Path("big7"), Path("big8")}, list(Path().iterdir())


def big(seed: int) -> Path:
    """An adapter that takes a while."""
    place = Path(f"big{seed}")
    place.mkdir()
    random = numpy.random.default_rng(seed)
    tensors = {}
    for layer in range(24):
        for name in ("q_proj", "v_proj"):
            key = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{key}.lora_A.weight"] = random.standard_normal((32, 1024)).astype(numpy.float32)
            tensors[f"{key}.lora_B.weight"] = random.standard_normal((1024, 32)).astype(numpy.float32)
    save_file(tensors, place / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 32, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"],
              "base_model_name_or_path": "none"}
    (place / "adapter_config.json").write_text(json.dumps(config))
    return place


def main() -> None:
    report = lora_tool.merge(LLAMA / "base", [LLAMA / "style", LLAMA / "task"], "merged",
                             weights=[1, -0.5], dtype="f32", verify=True)
    assert report["command"] == "merge", report
    assert report["verification"] is not None and report["verification"]["ok"], report

    # The same by hand, for one tensor: style has scale 16/8; task is rsLoRA, 4/sqrt(4).
    plain = lora_tool.call("merge", LLAMA / "base", LLAMA / "style", weights=1e-30, dtype="f32",
                           output="plain")
    assert plain["command"] == "merge"
    expected = widen(Path("plain"), f"{KEY}.weight").astype(numpy.float64)
    for adapter, scale in (("style", 2.0), ("task", -0.5 * 2.0)):
        tensors = load_file(LLAMA / adapter / "adapter_model.safetensors")
        up = tensors[f"base_model.model.{KEY}.lora_B.weight"].astype(numpy.float64)
        expected += scale * up @ tensors[f"base_model.model.{KEY}.lora_A.weight"]
    merged = widen(Path("merged"), f"{KEY}.weight")
    assert numpy.abs(merged - expected).max() < 1e-6

    found = lora_tool.extract("plain", "merged", "found", rank="lossless")
    assert found["command"] == "extract", found

    both = lora_tool.combine([LLAMA / "style", f"{LLAMA}/task:0.5"], "both", rank=8)
    assert both["energy_kept"] > 0.5, both
    small = lora_tool.resize("both", "small", rank="energy:0.9")
    assert small["energy_kept"] >= 0.9, small
    assert lora_tool.convert("small", "small.safetensors", to="kohya")["command"] == "convert"
    lora_tool.convert("small", "served", for_="vllm")
    store = lora_tool.collect_build([LLAMA / "style", LLAMA / "task"], "store", 4)
    assert [entry["name"] for entry in store["adapters"]] == ["style", "task"], store
    assert lora_tool.collect_info("store")["adapters"] == store["adapters"]
    again = lora_tool.collect_export("store", "style", "exported")
    assert again["relative_error"] == store["adapters"][0]["relative_error"], again
    added = lora_tool.collect_add("store", "both")
    assert added["adapters"][0]["name"] == "both", added
    item = lora_tool.inspect("small", spectrum=True)["items"][0]
    assert item["modules"][0]["norm"] > 0, item
    assert lora_tool.compare([LLAMA / "style", LLAMA / "task"])["pairs"], "no pairs"
    good = lora_tool.verify("merged", LLAMA / "base", [LLAMA / "style", LLAMA / "task"],
                            weights=[1, -0.5], dtype="f32")
    assert good["ok"], good
    bad = lora_tool.verify("merged", LLAMA / "base", LLAMA / "style", dtype="f32")
    assert not bad["ok"], "the wrong merge was verified"

    assert lora_tool.check(LLAMA / "style", "vllm")["ok"], "vllm reads it"
    lora_tool.merge(LLAMA / "base", LLAMA / "style", "kept", receipt="kept.receipt")
    lora_tool.undo("kept", "kept.receipt", "again")
    assert lora_tool.diff("again", LLAMA / "base")["command"] == "diff"
    blend = lora_tool.run(LLAMA / "blend.yaml", "blend")
    assert blend["adapters"][0]["by_module"], blend
    assert len(lora_tool.methods()["methods"]) > 10

    # Refusals carry the command's words, and leave nothing.
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: lora_tool.merge(LLAMA / "base", LLAMA / "style", "merged"), "--force"),
        (lambda: lora_tool.merge(LLAMA / "base", LLAMA / "nowhere", "new"), "no such file"),
        (lambda: lora_tool.resize(LLAMA / "style", "new", rank="half"), "half"),
    ]
    for call, words in refused:
        try:
            call()
        except lora_tool.LoraToolError as error:
            assert error.code == 2 and words in str(error), error
        else:
            raise AssertionError(f"no error that says {words}")
    assert not Path("new").exists()
    examples()
    arrays()
    interrupted()
    print("the module merges, combines, resizes, extracts, converts, compares, inspects, verifies and refuses")


main()
