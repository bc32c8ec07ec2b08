#!/bin/sh
# All tables of docs/quality.md, into OUT: all.sh LORA_TOOL OUT BASE TASK… [-- BASE TASK…]…
# What was scored is kept in OUT/results.jsonl: a killed run goes on.
set -eu
tool=$(realpath "$1") out=$2
shift 2
here=$(dirname "$(realpath "$0")")
python=${PYTHON:-python3}
mkdir -p "$out/bin"
ln -sf "$tool" "$out/bin/lora-tool"
PATH=$(realpath "$out/bin"):$PATH
PYTHONPATH=$here/../../python${PYTHONPATH:+:$PYTHONPATH}
export PATH PYTHONPATH
# Paths hold no spaces here: each `--` begins the next base.
benches="--bench"
for path in "$@"; do
    [ "$path" = -- ] && benches="$benches --bench" || benches="$benches $path"
done
# shellcheck disable=SC2086
"$python" "$here/quality.py" --lora-tool "$tool" --results "$out/results.jsonl" $benches > "$out/methods.md"
# shellcheck disable=SC2086
"$python" "$here/advice.py" --lora-tool "$tool" --results "$out/results.jsonl" $benches > "$out/advice.md"
# shellcheck disable=SC2086
"$python" "$here/tuned.py" --lora-tool "$tool" --results "$out/results.jsonl" --recipes "$out/recipes" $benches > "$out/tuned.md"
