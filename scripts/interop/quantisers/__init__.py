"""Quantised weights as their packages write and read them, one file a package.

A scheme stores a matrix (or a stack of them) as the tensors of a checkpoint and reads them back in f32."""
import importlib
import importlib.util
import sys
import types


class Scheme:
    """How one package stores weights. A subclass sets what differs from these."""

    name = "?"
    # What a matrix's rows and columns must be multiples of.
    rows, columns = 1, 1
    # How its checkpoints store experts (quantised_models.py).
    experts = ("single",)
    # The largest share of codes that may differ after quantising again: ties, sums in another order.
    most_codes = 0.002
    # Whether lora-tool writes it, and a row of zeros may be in it.
    written, zero_rows = True, True
    # Names of a diffusion model and one file instead of a language model's directory.
    single_file = False
    # What becomes plain, and what is, if that is another.
    dtype, plain_dtype = "bfloat16", None
    # The code of 4 bits that stands for 0 as code 0 does.
    signed_zero = None

    def store(self, name, weight):
        """Tensors by name of the f32 weight of a module."""
        raise NotImplementedError

    def read(self, name, tensors, shape):
        """The f32 weight of a module, as the package reads it."""
        raise NotImplementedError

    def config(self, skipped):
        """Fields of config.json, with modules that are not quantised."""
        return {}

    def model(self):
        """Tensors of the whole file, of no module."""
        return {}

    def metadata(self, quantised):
        """Entries of a single file's header."""
        return None

    def part_of(self, tensor, name):
        """Whether a tensor is a companion of the weight of this name."""
        return tensor.startswith(name.removesuffix("weight") if name.endswith(".weight") else (f"{name}_", f"{name}."))

    def files(self, skipped):
        """Further JSON files beside config.json, by name."""
        return {}


def alone(package, *folders):
    """Lets files of a package be imported without what its __init__ files import, which may need a GPU."""
    root = importlib.util.find_spec(package).submodule_search_locations[0]
    for folder in ["", *folders]:
        module = types.ModuleType(".".join([package, folder]).rstrip("."))
        module.__path__ = ["/".join([root, *folder.split(".")])]
        sys.modules[module.__name__] = module


# Files of this package, each with the package that it needs.
PACKAGES = {
    "compressed": "compressed_tensors",
    "fp8": "transformers",
    "bitsandbytes_": "bitsandbytes",
    "gptq": "auto_gptq",
    "awq_": "awq",
    "comfy": "comfy_kitchen",
    "modelopt_": "modelopt",
    "mlx_": "mlx",
    "mxfp4": "gguf",
    "casts": "torch",
}


def schemes(rng):
    """Every scheme with random settings; and packages that are not there, each with the reason."""
    found, missing = [], {}
    for file, package in PACKAGES.items():
        try:
            module = importlib.import_module(f"quantisers.{file}")
        except Exception as error:
            missing[package] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        found += module.schemes(rng)
    return found, missing
