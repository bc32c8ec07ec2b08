"""Runs the command, and shows line and answer as a user sees them."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any


class Tool:
    """The command in a folder of work."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.binary, self.folder = str(Path(binary).resolve()), folder

    def __call__(self, line: str, code: int = 0, **how: Any) -> str:
        """Runs `lora-tool LINE`, prints both, and holds the exit code to `code`: stdout and stderr."""
        print(f"\n$ lora-tool {line}", flush=True)
        done = subprocess.run([self.binary, *shlex.split(line)], cwd=self.folder, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how)
        print(done.stdout, end="", flush=True)
        assert done.returncode == code, f"exit code {done.returncode}, expected {code}"
        return done.stdout

    def report(self, line: str, code: int = 0) -> dict[str, Any]:
        """The report of `lora-tool LINE --json`, unseen."""
        done = subprocess.run([self.binary, *shlex.split(line), "--json"], cwd=self.folder, text=True,
                              capture_output=True)
        assert done.returncode == code, f"{line}: {done.returncode}: {done.stderr}"
        return json.loads(done.stdout)


def tell(name: str, value: float, most: float) -> None:
    """Prints a figure and holds it to the most it may be."""
    print(f"  ==> {name}: {value:.2e} (at most {most:.0e})", flush=True)
    assert value <= most, f"{name}: {value}"


def digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file at a path."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def arguments() -> tuple[str, Path]:
    """The binary and the folder of work of `SCRIPT LORA_TOOL FOLDER`; the folder is new."""
    if len(sys.argv) != 3:
        raise SystemExit(f"usage: {sys.argv[0]} LORA_TOOL FOLDER")
    folder = Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True)
    return sys.argv[1], folder
