"""LoRA adapters from Python: every function runs the ``lora-tool`` command that came with it.

    import lora_tool

    lora_tool.merge("base", ["style", "task"], "merged", weights=[0.7, 0.3])
    report = lora_tool.combine(["style", "task"], "both", rank=16)
    report["energy_kept"]

A function takes the command's arguments in its order, and the verb's options by their names with
underscores (``module_weight={"mlp": 0.5}``, ``density=[0.4, 0.3]``; ``as_``, ``for_`` and
``lambda_`` where Python has the word). It returns what
``--json`` reports, as a dictionary, and raises :class:`LoraToolError` with the command's own words
if it could not do what was asked; then nothing is left at the output's path. Every function takes
``progress``, a function of phase, done and all, which is called while the command works.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Mapping, Sequence

from ._call import LoraToolError, LoraToolWarning, NotVerifiedError, Path, Paths, Progress, Report
from ._call import call, find_binary
from ._call import paths as paths_of
from .tuning import tune
from .arrays import Adapter, Module
from .arrays import open as open
from ._verbs import combine, convert, extract, merge, resize

try:
    __version__ = version("lora-tool")
except PackageNotFoundError:
    # A source tree that is not installed.
    __version__ = "unknown"

__all__ = [
    "Adapter",
    "LoraToolError",
    "LoraToolWarning",
    "Module",
    "NotVerifiedError",
    "Progress",
    "Report",
    "__version__",
    "batch",
    "call",
    "check",
    "clean",
    "collect_add",
    "collect_build",
    "collect_export",
    "collect_info",
    "combine",
    "commit",
    "compare",
    "convert",
    "diff",
    "explore",
    "extract",
    "find_binary",
    "inspect",
    "list_adapters",
    "merge",
    "metadata",
    "methods",
    "resize",
    "run",
    "tune",
    "undo",
    "verify",
    "work",
]


def inspect(paths: Paths, *, modules: bool = False, spectrum: bool = False,
            against: Path | None = None, **options: Any) -> Report:
    """What is in adapters or checkpoints; ``spectrum`` adds norms and singular values."""
    return call("inspect", *paths_of(paths), modules=modules, spectrum=spectrum, against=against,
                **options)


def list_adapters(folders: Paths, *, where: str | Sequence[str] | None = None,
                  sort: str | None = None, alike: bool = False, **options: Any) -> Report:
    """The adapters in folders, a row each (``report["adapters"]``), and which are the same.

    ``where`` chooses rows (``"rank>16"``), ``sort`` orders them (``"-size"``).
    """
    return call("list", *paths_of(folders), where=where, sort=sort, alike=alike, **options)


def explore(adapter: Path, **options: Any) -> Report:
    """What error, size and server limit other ranks of an adapter would give: ``report["choices"]``."""
    return call("resize", adapter, explore=True, **options)


def clean(folders: Paths = ".", *, dry_run: bool = False, **options: Any) -> Report:
    """Removes what killed runs have left below folders, and nothing that a run is at work on."""
    return call("clean", *paths_of(folders), dry_run=dry_run, **options)


def compare(adapters: Paths, *, weights: Sequence[float] | None = None,
            **options: Any) -> Report:
    """How adapters get along: cosines, shared directions, and a line of advice."""
    if isinstance(adapters, (str, os.PathLike)):
        raise TypeError("compare takes a list of two adapters or more")
    return call("compare", *paths_of(adapters), weights=weights, **options)


def check(adapter: Path, for_: str | None = None, **options: Any) -> Report:
    """What a program (``"vllm"``, ``"peft@0.14"``, …), or every one, would refuse or get wrong:
    ``report["answer"]`` is ``"yes"``, ``"no"`` or ``"unknown"``."""
    return call("check", adapter, for_=for_, **options)


def collect_build(adapters: Paths, output: Path, rank: int, *, clusters: int = 1,
                  common_a: bool = False, dtype: str | None = None, **options: Any) -> Report:
    """Many adapters of one model in little space: what all share, and a small core each.

    ``report["adapters"]`` says of each how far what is stored is from its update. ``common_a`` writes plain PEFT
    adapters that share one A byte for byte.
    """
    return call("collect build", *paths_of(adapters), output=output, rank=rank, clusters=clusters,
                common_a=common_a, dtype=dtype, **options)


def collect_add(store: Path, adapters: Paths, **options: Any) -> Report:
    """Puts adapters into a collection; what is there stays as it is."""
    return call("collect add", store, *paths_of(adapters), **options)


def collect_export(store: Path, name: str, output: Path, **options: Any) -> Report:
    """One adapter of a collection as a plain adapter."""
    return call("collect export", store, name, output=output, **options)


def collect_info(store: Path, **options: Any) -> Report:
    """What is in a collection, and how far each adapter is from what it was."""
    return call("collect info", store, **options)


def diff(a: Path, b: Path, **options: Any) -> Report:
    """Two adapters or two checkpoints compared in numbers; adapters by their updates."""
    return call("diff", a, b, **options)


def undo(merged: Path, receipt: Path, output: Path, *, force: bool = False,
         **options: Any) -> Report:
    """The base back, bit for bit, from a merge that kept its receipt.

    ``allow_missing=True`` restores the weights though other files of the base are missing or changed.
    """
    return call("undo", merged, receipt=receipt, output=output, force=force, **options)


def batch(jobs: Path, *, dry_run: bool = False, force: bool = False, skip_done: bool = False,
          **options: Any) -> Report:
    """Takes many adapters through other verbs, item by item: ``report["items"]`` has the status of each.

    An item that fails is reported, and does not stop the others unless ``fail_fast=True``. With ``plan=FILE`` and
    ``workers=N`` nothing is done but to plan for several machines: :func:`work`, then :func:`commit`.
    """
    return call("batch", jobs, dry_run=dry_run, force=force, skip_done=skip_done, **options)


def work(plan: Path, shard: str | None = None, **options: Any) -> Report:
    """Makes one part of what ``merge``, ``extract`` or ``batch`` planned (``plan=FILE``): ``shard="3/16"`` is the
    third of 16.

    What is finished is not made again. Without ``shard`` a Slurm array or an indexed Kubernetes job says it.
    """
    return call("work", plan, shard=shard, **options)


def commit(plan: Path, **options: Any) -> Report:
    """Puts what all workers have made of a plan in place, if every part is there and as it was made."""
    return call("commit", plan, **options)


def run(recipe: Path, output: Path | None = None, *, dry_run: bool = False, force: bool = False,
        **options: Any) -> Report:
    """Runs a recipe, a merge or a combination written down; ``output`` instead of its own.

    If it asks to ``verify``, :class:`NotVerifiedError` says that the result does not hold.
    """
    return call("run", recipe, output=output, dry_run=dry_run, force=force, **options)


def methods(**options: Any) -> Report:
    """The combination methods, their parameters and sources."""
    return call("methods", **options)


def verify(merged: Path, base: Path, adapters: Paths, *, weights: Sequence[float] | None = None,
           dtype: str | None = None, **options: Any) -> Report:
    """Whether a merged checkpoint is what merge should have written: ``report["ok"]``.

    ``sample=N`` looks at N rows of each tensor instead of every byte.
    """
    return call("verify", merged, base=base, adapter=paths_of(adapters), weights=weights,
                dtype=dtype, **options)


def metadata(file: Path, *, set: Mapping[str, str] | None = None,
             remove: Sequence[str] | None = None, strip_training: bool = False,
             output: Path | None = None, in_place: bool = False, **options: Any) -> Report:
    """Reads or edits a file's header; its tensors stay as they are."""
    return call("metadata", file, set=set, remove=remove, strip_training=strip_training,
                output=output, in_place=in_place, **options)
