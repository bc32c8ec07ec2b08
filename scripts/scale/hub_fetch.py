#!/usr/bin/env python3
"""`--fetch` against `huggingface_hub`: both download from the same server, and the caches are compared.

    scripts/scale/hub_fetch.py target/release/lora-tool          # a binary with the feature `hub`

Needs the package huggingface_hub.
"""

import argparse
import hashlib
import http.server
import json
import os
import subprocess
import tempfile
import threading
from pathlib import Path

import fleet
from fleet import expect

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hash_of(file, data):
    """What the Hub names a file's content by."""
    if file.suffix == ".safetensors":
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the Hub does, out of `root/org/name/…`; weights have SHA-256 as their hash, the rest git's SHA-1."""

    protocol_version = "HTTP/1.1"
    root = None

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            folder = self.root / parts[2] / parts[3]
            files = [str(file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file()]
            if parts[4] == "tree":
                return self.reply(200, {"Content-Type": "application/json"},
                                  json.dumps([self.entry(folder, file) for file in files]).encode())
            text = json.dumps({"id": f"{parts[2]}/{parts[3]}", "sha": COMMIT, "private": False, "downloads": 0,
                               "likes": 0, "tags": [],
                               "siblings": [{"rfilename": file} for file in files]}).encode()
            return self.reply(200, {"Content-Type": "application/json"}, text)
        file = self.root / parts[0] / parts[1] / "/".join(parts[4:])
        if not file.is_file():
            return self.reply(404, {"X-Error-Code": "EntryNotFound"}, b"")
        data = file.read_bytes()
        etag = hash_of(file, data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if asked:
            first, last = (int(end) if end else None for end in asked.removeprefix("bytes=").split("-"))
            part = data[first:None if last is None else last + 1]
            headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
            return self.reply(206, headers, part)
        return self.reply(200, headers, data)

    do_HEAD = do_GET

    @staticmethod
    def entry(folder, file):
        """A file as the Hub's listing of a tree has it."""
        data = (folder / file).read_bytes()
        found = {"type": "file", "path": file, "size": len(data), "oid": hash_of(folder / file, data)}
        if file.endswith(".safetensors"):
            found["lfs"] = {"oid": found["oid"], "size": len(data), "pointerSize": 134}
        return found

    def reply(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def tree(cache):
    """Every file and link of a cache that is no lock or note of huggingface_hub's own."""
    found = {}
    for path in sorted(cache.rglob("*")):
        relative = str(path.relative_to(cache))
        if path.is_symlink():
            found[relative] = os.readlink(path)
        elif path.is_file() and not {".locks", ".no_exist", "trees", "CACHEDIR.TAG"} & set(path.parts):
            found[relative] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=lambda text: str(Path(text).resolve()))
    binary = parser.parse_args().binary
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        names = fleet.make_base(place / "hub/org/base", 300_000_000, 3)
        fleet.make_adapter(place / "hub/org/adapter", names, base="org/base")
        (place / "hub/org/adapter/deep/er").mkdir(parents=True)
        (place / "hub/org/adapter/deep/er/notes.json").write_text("{}")
        Hub.root = place / "hub"
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        env = os.environ | {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(place / "ours"), "HF_HOME": str(place)}
        subprocess.run([binary, "merge", "org/adapter", "-o", place / "out",
                        "--fetch", "-q"], env=env, check=True)
        fleet.command(binary, "merge", place / "hub/org/base", place / "hub/org/adapter", "-o", place / "by-path")
        expect(fleet.hashes(place / "out") == fleet.hashes(place / "by-path"), "the bytes of the merge by paths")
        os.environ |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(place), "HF_HUB_DISABLE_XET": "1",
                       "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        import huggingface_hub

        for name in ("base", "adapter"):
            huggingface_hub.snapshot_download(f"org/{name}", cache_dir=place / "theirs")
        ours, theirs = tree(place / "ours"), tree(place / "theirs")
        for name, _ in sorted(ours.items() ^ theirs.items()):
            print(f"differs: {name}")
        expect(ours == theirs, f"the cache is what huggingface_hub {huggingface_hub.__version__} makes: "
                               f"{len(ours)} files and links")
        found = huggingface_hub.scan_cache_dir(place / "ours")
        expect(not found.warnings and len(found.repos) == 2, "scan_cache_dir has nothing to say against it")
        path = huggingface_hub.snapshot_download("org/base", cache_dir=place / "ours", local_files_only=True)
        expect(fleet.hashes(Path(path)) == fleet.hashes(place / "hub/org/base"), "huggingface_hub finds it")
        server.shutdown()


if __name__ == "__main__":
    main()
