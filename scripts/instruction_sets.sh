#!/usr/bin/env bash
# Whether merges give the same bytes on processors with other instructions: runs them as they are here,
# without AVX and FMA, and with AVX2 alone, by qemu's user mode.
#
# usage: instruction_sets.sh BINARY FIXTURES
set -euo pipefail
binary=$(realpath "$1")
fixtures=$(realpath "$2")
emulator=$(command -v qemu-x86_64-static || command -v qemu-x86_64 || true)
if [ "$(uname -m)" != x86_64 ] || [ -z "$emulator" ]; then
  echo "skipped: this needs an x86-64 machine with qemu-user"
  exit 0
fi
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cd "$room"
base="$fixtures/llama/base" a="$fixtures/llama/style" b="$fixtures/llama/task"

# Everything that a merge writes, as one hash.
hash_of() { (cd "$1" && find . -type f -name '*.safetensors' -print0 | sort -z | xargs -0 sha256sum | sha256sum); }

# A fine-tuned checkpoint to merge besides adapters.
"$binary" merge "$base" "$b" -o tuned -q
compared=0
compare() {
  local name=$1 expected found
  shift
  "$binary" merge "$@" -o native --force -q
  expected=$(hash_of native)
  for processor in Nehalem Haswell; do
    "$emulator" -cpu "$processor" "$binary" merge "$@" -o other --force -q --threads 2 2>log || { cat log; exit 1; }
    found=$(hash_of other)
    if [ "$expected" != "$found" ]; then
      echo "$name: other bytes on $processor"
      exit 1
    fi
    compared=$((compared + 1))
  done
}

for dtype in keep f32 f16 bf16; do
  compare "linear to $dtype" "$base" "$a" "$b" -w 0.7 -0.4 --dtype "$dtype"
done
compare "a checkpoint and an adapter" "$base" tuned "$a" -w 0.3 0.6
# Singular values are computed by instructions that a processor chooses: their last digits are its own, and with them
# those of merges by methods on them.
methods=$("$binary" methods --json | python3 -c '
import json, sys
for method in json.load(sys.stdin)["methods"]:
    if method["space"] != "core":
        print(method["name"])')
for method in $methods; do
  if "$binary" merge "$base" "$a" "$b" --method "$method" -o native --force -q 2>log; then
    compare "$method of adapters" "$base" "$a" "$b" -w 0.7 0.4 --method "$method"
    compare "$method with a checkpoint" "$base" tuned "$a" -w 0.7 0.4 --method "$method"
  fi
done
echo "$compared merges on other processors, the same bytes as here"
