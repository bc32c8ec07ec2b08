#!/usr/bin/env bash
# Installs the Python package into a clean virtual environment, as a user would, and uses it there.
#
#     scripts/wheel_check.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${1:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet .
"$work/venv/bin/pip" install --quiet safetensors numpy mypy
cp -r fixtures/llama scripts/wheel_check.py "$work/"
cd "$work"

# The command is on PATH, and is this version.
PATH=$work/venv/bin:/usr/bin:/bin lora-tool --version
# The module is typed, and does what it says, without the repository around it.
"$work/venv/bin/mypy" --strict --python-executable "$work/venv/bin/python" wheel_check.py
"$work/venv/bin/python" wheel_check.py
