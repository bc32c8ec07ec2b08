#!/usr/bin/env bash
# Kill `lora-tool merge` at random moments: OUT must be absent or complete, inputs untouched.
#
# usage: kill_loop.sh LORA_TOOL BASE ADAPTER [N=50]
#
# Works below $TMPDIR (default /tmp). Exit 0: no partial output. 1: a partial output, or an
# input changed. 2: usage, or lora-tool failed on its own.
set -euo pipefail

if (($# < 3 || $# > 4)); then
    sed -n '4s/^# //p' "$0" >&2
    exit 2
fi
lora_tool=$1 base=$2 adapter=$3 runs=${4:-50}
if [[ ! $runs =~ ^[1-9][0-9]*$ ]]; then
    echo "error: N must be a positive number, not '$runs'" >&2
    exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

hash_inputs() {
    find -L "$base" "$adapter" -type f -print0 | sort -z | xargs -0 sha256sum
}

merge() {
    "$lora_tool" -q merge "$base" "$adapter" -o "$1" >/dev/null
}

now_us() {
    echo "${EPOCHREALTIME//[!0-9]/}"
}

hash_inputs >"$work/inputs.before"

# The first run is the reference and warms the page cache; the second one is timed.
mkdir "$work/run"
merge "$work/reference" || exit 2
start=$(now_us)
merge "$work/run/out" || exit 2
duration=$(($(now_us) - start))
if ! diff -r "$work/reference" "$work/run/out" >/dev/null; then
    echo "error: two undisturbed merges differ" >&2
    exit 2
fi
printf 'a complete run takes %d.%03d s\n' $((duration / 1000000)) $((duration / 1000 % 1000))

killed_before=0 complete=0 partial=0 leftovers=0
for ((run = 1; run <= runs; run++)); do
    rm -rf "$work/run"
    mkdir "$work/run"
    delay=$(((RANDOM << 15 | RANDOM) % duration))
    "$lora_tool" -q merge "$base" "$adapter" -o "$work/run/out" >/dev/null 2>"$work/stderr" &
    pid=$!
    sleep "$(printf '%d.%06d' $((delay / 1000000)) $((delay % 1000000)))"
    kill -9 "$pid" 2>/dev/null || true
    status=0
    wait "$pid" 2>/dev/null || status=$?
    if ((status != 0 && status != 137)); then
        cat "$work/stderr" >&2
        echo "error: run $run ended with status $status before it was killed" >&2
        exit 2
    fi

    if [[ -n $(find "$work/run" -mindepth 1 -maxdepth 1 ! -name out -print -quit) ]]; then
        ((leftovers += 1))
    fi
    if [[ ! -e $work/run/out && $status -ne 0 ]]; then
        ((killed_before += 1))
    elif diff -r "$work/reference" "$work/run/out" >"$work/diff" 2>&1; then
        ((complete += 1))
    else
        ((partial += 1))
        printf 'partial output in run %d, killed after %d us (status %d):\n' "$run" "$delay" "$status"
        cat "$work/diff"
    fi
done

printf 'killed before: %d, complete: %d, partial: %d (of %d; %d left temporaries behind)\n' \
    "$killed_before" "$complete" "$partial" "$runs" "$leftovers"

hash_inputs >"$work/inputs.after"
if ! cmp -s "$work/inputs.before" "$work/inputs.after"; then
    echo "error: an input changed" >&2
    diff "$work/inputs.before" "$work/inputs.after" >&2 || true
    exit 1
fi
((partial == 0))
