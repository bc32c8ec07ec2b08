#!/usr/bin/env bash
# Builds the Python wheel: the command, and the module that runs it.
#
#     scripts/build_wheel.sh [OUT]        default OUT: dist
#
# Needs maturin (pip install 'maturin>=1.8,<2'). On Linux the command is linked statically, so that the wheel installs on
# any distribution; elsewhere it is built for the system it is built on. PROFILE=dev builds quickly, to try the package.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-dist}
arguments=(build --locked --out "$out")
if [ "${PROFILE:-}" = dev ]; then
    arguments+=(--profile dev)
else
    arguments+=(--profile dist)
fi
if [ "$(uname -s)" = Linux ]; then
    host=$(rustc -vV | sed -n 's/^host: //p')
    # With a target named, build scripts and macros are not linked statically.
    arguments+=(--target "$host" --compatibility manylinux_2_17)
    export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
fi
maturin "${arguments[@]}"
ls -l "$out"/lora_tool-*.whl
