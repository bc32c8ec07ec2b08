#!/usr/bin/env bash
# Installs the Python package into a clean virtual environment, as a user would, and uses it there.
#
#     scripts/wheel_check.sh [PYTHON] [WHEEL]     without a wheel it is built of this tree
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${1:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "${2:-.}"
"$work/venv/bin/pip" install --quiet safetensors numpy mypy
cp -r fixtures/llama scripts/wheel_check.py docs/python.md "$work/"
cd "$work"

# The command is on PATH, and is this version.
PATH=$work/venv/bin:/usr/bin:/bin lora-tool --version
# The module is typed, and does what it says, without the repository around it.
"$work/venv/bin/mypy" --strict --python-executable "$work/venv/bin/python" wheel_check.py
PATH=/usr/bin:/bin "$work/venv/bin/python" -m lora_tool --version
"$work/venv/bin/python" wheel_check.py
# A wrong option is seen before anything runs.
for line in 'lora_tool.merge("b", ["a"], "o", wieghts=[1])' 'lora_tool.merge("b", ["a"], "o", dtype="f8")' \
    'lora_tool.combine(["a"], "o")["energy"]'; do
    printf 'import lora_tool\n\n%s\n' "$line" > wrong.py
    if "$work/venv/bin/mypy" --strict --python-executable "$work/venv/bin/python" wrong.py >/dev/null; then
        echo "mypy does not see what is wrong with $line" >&2
        exit 1
    fi
done
