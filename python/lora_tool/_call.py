"""Runs the command that came with this module, and reads its report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from typing import Any, Iterable, Mapping, Union

Path = Union[str, "os.PathLike[str]"]
Paths = Union[Path, Iterable[Path]]
Report = dict[str, Any]

# Exit codes of the command.
_NO = 1
# Verbs that report also where something is unknown, or could not be done, each of several things by itself.
_REPORT_ALWAYS = ("check", "batch", "work", "commit")


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

    ``True`` gives an option without a value; ``None`` and ``False`` leave it out; a sequence or an
    array repeats it; a mapping gives ``KEY=VALUE`` for each entry. A merge that was asked to ``verify``
    and does not hold raises :class:`NotVerifiedError`.
    """
    command = [find_binary(), *verb.split(), "--json"]
    for name, value in options.items():
        command += _option(name, value)
    command += ["--", *(os.fspath(argument) for argument in arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          encoding="utf-8", check=False)
    if done.stdout and (done.returncode in (0, _NO) or verb in _REPORT_ALWAYS):
        report: Report = json.loads(done.stdout)
        verification = report.get("verification")
        if verification is not None and not verification["ok"]:
            raise NotVerifiedError(report)
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
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [f"{flag}={os.fspath(entry) if isinstance(entry, os.PathLike) else entry}"
                for entry in value]
    return [f"{flag}={os.fspath(value) if isinstance(value, os.PathLike) else value}"]


def paths(given: Paths) -> list[Path]:
    """One path or several, as a list."""
    return [given] if isinstance(given, (str, os.PathLike)) else list(given)


def joined(numbers: float | Iterable[float] | None) -> str | None:
    """One number, or one per adapter, as the command reads them."""
    if numbers is None:
        return None
    return ",".join(map(str, numbers)) if isinstance(numbers, Iterable) else str(numbers)
