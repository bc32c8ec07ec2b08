"""Runs the command that came with this module, and reads its report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import warnings
from typing import Any, Callable, Iterable, Mapping, Union

Path = Union[str, "os.PathLike[str]"]
Paths = Union[Path, Iterable[Path]]
Report = dict[str, Any]
Progress = Callable[[str, int, int], None]

# Exit codes of the command.
_NO = 1
_FAILED = 2
# Seconds that an interrupted command has to remove what it has begun.
_PATIENCE = 10


class LoraToolError(RuntimeError):
    """The command could not do what was asked; the message says why, and what to do about it.

    ``hint`` is the advice alone, ``file`` and ``tensor`` are what it is about, where that is known.
    """

    def __init__(self, message: str, code: int, *, hint: str | None = None, file: str | None = None,
                 tensor: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\nhint: {hint}")
        self.code, self.hint, self.file, self.tensor = code, hint, file, tensor


class LoraToolWarning(UserWarning):
    """Something that the command did as asked, and that the user should know."""


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
    array repeats it; a mapping gives ``KEY=VALUE`` for each entry. ``progress`` is called with the
    phase, what of it is done, and all of it, a few times a second. The report's warnings are raised as
    :class:`LoraToolWarning`. A merge that was asked to ``verify`` and does not hold raises
    :class:`NotVerifiedError`. An interrupt stops the command, which leaves nothing half-written.
    """
    progress: Progress | None = options.pop("progress", None)
    command = [find_binary(), *verb.split(), "--json"]
    command.append("--progress=none" if progress is None else "--progress=json")
    for name, value in options.items():
        command += _option(name, value)
    command += ["--", *(os.fspath(argument) for argument in arguments)]
    code, out, err = _run(command, progress)
    # One that was killed may have printed a part.
    report: Report = json.loads(out) if out and code in (0, _NO, _FAILED) else {}
    if "exit_code" in report:
        raise LoraToolError(report["error"], code, hint=report["hint"], file=report["file"],
                            tensor=report["tensor"])
    if report:
        for warning in report.get("warnings") or ():
            warnings.warn(warning, LoraToolWarning, stacklevel=3)
        verification = report.get("verification")
        if verification is not None and not verification["ok"]:
            raise NotVerifiedError(report)
        return report
    raise LoraToolError(err.strip() or f"lora-tool ended with {code}", code)


def _run(command: list[str], progress: Progress | None) -> tuple[int, str, str]:
    """Exit code and both outputs of a command, which ends with what interrupts this function."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, encoding="utf-8") as child:
        out: list[str] = []
        # Both pipes are read at once: a full one would stop the command.
        reader = threading.Thread(target=lambda: out.extend(child.stdout or ()), daemon=True)
        reader.start()
        said: list[str] = []
        try:
            for line in child.stderr or ():
                step = _step(line) if progress is not None else None
                if progress is not None and step is not None:
                    progress(*step)
                else:
                    said.append(line)
            code = child.wait()
        except BaseException:
            # Told to stop, it removes what it has begun; killed, it could not.
            _stop(child)
            raise
        reader.join()
        return code, "".join(out), "".join(said)


def _stop(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()


def _step(line: str) -> tuple[str, int, int] | None:
    """What a line of progress says, if it is one."""
    if not line.startswith("{"):
        return None
    try:
        step = json.loads(line)
        return step["phase"], step["done"], step["all"]
    except (ValueError, KeyError):
        return None


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
