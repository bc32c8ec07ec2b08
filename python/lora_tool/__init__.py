"""LoRA adapters from Python: every function runs the ``lora-tool`` command that came with it.

    import lora_tool

    lora_tool.merge("base", ["style", "task"], "merged", weights=[0.7, 0.3])
    report = lora_tool.combine(["style", "task"], "both", rank=16)
    report["energy_kept"]

A function takes the command's arguments in its order, and any other option of the verb by its name
with underscores (``module_weight={"mlp": 0.5}``, ``allow_unmatched=True``). It returns what
``--json`` reports, as a dictionary, and raises :class:`LoraToolError` with the command's own words
if it could not do what was asked; then nothing is left at the output's path.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from typing import Any, Mapping, Sequence, Union

__all__ = [
    "LoraToolError",
    "NotVerifiedError",
    "call",
    "check",
    "combine",
    "compare",
    "convert",
    "diff",
    "extract",
    "find_binary",
    "inspect",
    "merge",
    "metadata",
    "methods",
    "resize",
    "run",
    "undo",
    "verify",
]

Path = Union[str, "os.PathLike[str]"]
Paths = Union[Path, Sequence[Path]]
Report = dict[str, Any]

# Exit codes of the command.
_NO = 1


class LoraToolError(RuntimeError):
    """The command could not do what was asked; the message says why, and what to do about it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class NotVerifiedError(LoraToolError):
    """A merge was written, and is not what it should be; ``report`` says where."""

    def __init__(self, report: Report) -> None:
        super().__init__("the result is not what merge should have written", _NO)
        self.report = report


def find_binary() -> str:
    """Path of the command: the one this module was installed with, or the first on PATH."""
    name = "lora-tool" + (".exe" if sys.platform == "win32" else "")
    schemes = {None, f"{os.name}_user"} & {None, *sysconfig.get_scheme_names()}
    folders = [sysconfig.get_path("scripts", scheme) if scheme else sysconfig.get_path("scripts")
               for scheme in sorted(schemes, key=str)]
    for folder in [os.path.dirname(sys.executable), *folders]:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK):
            return path
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is neither beside this Python nor on PATH")
    return found


def call(verb: str, *arguments: Path, **options: Any) -> Report:
    """Runs any verb that reports, and returns its report.

    ``True`` gives an option without a value; ``None`` and ``False`` leave it out; a sequence repeats
    it; a mapping gives ``KEY=VALUE`` for each entry.
    """
    command = [find_binary(), verb, "--json"]
    for name, value in options.items():
        command += _option(name, value)
    command += ["--", *(os.fspath(argument) for argument in arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          encoding="utf-8", check=False)
    # `check` also reports what nobody knows, with the code of what could not be done.
    if done.stdout and (done.returncode in (0, _NO) or verb == "check"):
        report: Report = json.loads(done.stdout)
        return report
    raise LoraToolError(done.stderr.strip() or f"lora-tool ended with {done.returncode}",
                        done.returncode)


def _option(name: str, value: Any) -> list[str]:
    flag = "--" + name.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    if isinstance(value, Mapping):
        return [f"{flag}={key}={entry}" for key, entry in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [f"{flag}={os.fspath(entry) if isinstance(entry, os.PathLike) else entry}"
                for entry in value]
    return [f"{flag}={os.fspath(value) if isinstance(value, os.PathLike) else value}"]


def _paths(paths: Paths) -> list[Path]:
    return [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)


def inspect(paths: Paths, *, modules: bool = False, spectrum: bool = False,
            against: Path | None = None, **options: Any) -> Report:
    """What is in adapters or checkpoints; ``spectrum`` adds norms and singular values."""
    return call("inspect", *_paths(paths), modules=modules, spectrum=spectrum, against=against,
                **options)


def merge(base: Path, adapters: Paths, output: Path, *, weights: Sequence[float] | None = None,
          dtype: str | None = None, verify: bool = False, force: bool = False,
          **options: Any) -> Report:
    """Bakes adapters into base weights, in one pass and with one rounding.

    With ``verify`` the result is read again and compared with a recomputation;
    :class:`NotVerifiedError` if it does not hold.
    """
    report = call("merge", base, *_paths(adapters), output=output, weights=weights, dtype=dtype,
                  verify=verify, force=force, **options)
    verification = report.get("verification")
    if verification is not None and not verification["ok"]:
        raise NotVerifiedError(report)
    return report


def combine(adapters: Paths, output: Path, *, weights: Sequence[float] | None = None,
            method: str | None = None, rank: int | str | None = None, dtype: str | None = None,
            to: str | None = None, force: bool = False, **options: Any) -> Report:
    """Makes one adapter of several: by default the exact weighted sum of their updates."""
    return call("combine", *_paths(adapters), output=output, weights=weights, method=method,
                rank=rank, dtype=dtype, to=to, force=force, **options)


def resize(adapter: Path, output: Path, rank: int | str, *, uniform: bool = False,
           dtype: str | None = None, to: str | None = None, force: bool = False,
           **options: Any) -> Report:
    """Lowers an adapter's rank: ``16``, ``"energy:0.99"``, ``"size:32MiB"``, …"""
    return call("resize", adapter, output=output, rank=rank, uniform=uniform, dtype=dtype, to=to,
                force=force, **options)


def convert(adapter: Path, output: Path, to: str | None = None, *, reference: Path | None = None,
            allow_loss: bool = False, force: bool = False, **options: Any) -> Report:
    """Writes the same update in another convention; for a program: ``for_="vllm"``."""
    return call("convert", adapter, output=output, to=to, reference=reference,
                allow_loss=allow_loss, force=force, **options)


def extract(base: Path, tuned: Path, output: Path, rank: int | str, *,
            max_rank: int | None = None, dtype: str | None = None, to: str | None = None,
            force: bool = False, **options: Any) -> Report:
    """Makes an adapter of what fine-tuning changed: ``16``, ``"energy:0.95"``, ``"auto"``, …"""
    return call("extract", base, tuned, output=output, rank=rank, max_rank=max_rank, dtype=dtype,
                to=to, force=force, **options)


def compare(adapters: Sequence[Path], *, weights: Sequence[float] | None = None,
            **options: Any) -> Report:
    """How adapters get along: cosines, shared directions, and a line of advice."""
    return call("compare", *adapters, weights=weights, **options)


def check(adapter: Path, for_: str | None = None, **options: Any) -> Report:
    """What a program (``"vllm"``, ``"peft@0.14"``, …), or every one, would refuse or get wrong:
    ``report["answer"]`` is ``"yes"``, ``"no"`` or ``"unknown"``."""
    return call("check", adapter, for_=for_, **options)


def diff(a: Path, b: Path, **options: Any) -> Report:
    """Two adapters or two checkpoints compared in numbers; adapters by their updates."""
    return call("diff", a, b, **options)


def undo(merged: Path, receipt: Path, output: Path, *, force: bool = False,
         **options: Any) -> Report:
    """The base back, bit for bit, from a merge that kept its receipt.

    ``allow_missing=True`` restores the weights though other files of the base are missing or changed.
    """
    return call("undo", merged, receipt=receipt, output=output, force=force, **options)


def run(recipe: Path, output: Path | None = None, *, dry_run: bool = False, force: bool = False,
        **options: Any) -> Report:
    """Runs a recipe, a merge or a combination written down; ``output`` instead of its own.

    If it asks to ``verify``, :class:`NotVerifiedError` says that the result does not hold.
    """
    report = call("run", recipe, output=output, dry_run=dry_run, force=force, **options)
    verification = report.get("verification")
    if verification is not None and not verification["ok"]:
        raise NotVerifiedError(report)
    return report


def methods(**options: Any) -> Report:
    """The combination methods, their parameters and sources."""
    return call("methods", **options)


def verify(merged: Path, base: Path, adapters: Paths, *, weights: Sequence[float] | None = None,
           dtype: str | None = None, **options: Any) -> Report:
    """Whether a merged checkpoint is what merge should have written: ``report["ok"]``.

    ``sample=N`` looks at N rows of each tensor instead of every byte.
    """
    return call("verify", merged, base=base, adapter=_paths(adapters), weights=weights,
                dtype=dtype, **options)


def metadata(file: Path, *, set: Mapping[str, str] | None = None,
             remove: Sequence[str] | None = None, strip_training: bool = False,
             output: Path | None = None, in_place: bool = False, **options: Any) -> Report:
    """Reads or edits a file's header; its tensors stay as they are."""
    return call("metadata", file, set=set, remove=remove, strip_training=strip_training,
                output=output, in_place=in_place, **options)
