#!/usr/bin/env bash
# Builds one binary that runs on any Linux of this architecture, whatever its libc and its age:
# statically linked, for the architecture's plainest CPU (faster instructions are found at run time).
#
#     scripts/build_portable.sh [OUT]        default OUT: dist/lora-tool-<version>-<target>
#
# Takes the musl target where its standard library is installed, and glibc's static libraries otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

machine=$(rustc -vV | sed -n 's/^host: \([^-]*\)-.*/\1/p')
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
target=$machine-unknown-linux-musl
if [ ! -d "$(rustc --print target-libdir --target "$target")" ]; then
    target=$machine-unknown-linux-gnu
fi
out=${1:-dist/lora-tool-$version-$target}

RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" cargo build --profile dist --features hub,cloud --locked --target "$target"
built=${CARGO_TARGET_DIR:-target}/$target/dist/lora-tool

# A dynamic loader or a needed library would tie it to one system.
if readelf -lW "$built" | grep -q INTERP || readelf -dW "$built" | grep -q NEEDED; then
    echo "$built still needs a loader or a library:" >&2
    readelf -dW "$built" | grep NEEDED >&2 || true
    exit 1
fi
mkdir -p "$(dirname "$out")"
cp "$built" "$out"
(
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # It works where there is nothing: no environment, and none of this machine's libraries.
    env -i "$out" merge fixtures/llama/base fixtures/llama/style -o "$work/merged" --verify >/dev/null
    if [ "$(id -u)" = 0 ]; then
        mkdir "$work/root"
        cp "$out" "$work/root/lora-tool"
        cp -r fixtures/llama "$work/root/"
        env -i "$(command -v chroot)" "$work/root" /lora-tool merge /llama/base /llama/style -o /merged --verify >/dev/null
    fi
)
echo "$out: $(stat -c %s "$out") bytes, $(ldd "$out" 2>&1 | tr -d '\t')"
