#!/usr/bin/env python3
"""Base, adapter and output in an S3 store (moto): bytes, memory, what is read, what is seen, and servers in trouble.

    scripts/scale/object_store.py target/release/lora-tool      # a binary with the feature `cloud`

Needs the package moto[server,s3]. A proxy between the tool and moto counts, and answers wrongly when it is told to.
"""

import argparse
import collections
import http.client
import http.server
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import fleet
from fleet import expect

MIB = 1 << 20


class Proxy(http.server.BaseHTTPRequestHandler):
    """Hands requests on to moto. `fault` says what goes wrong with how many of the answers to come."""

    protocol_version = "HTTP/1.1"
    moto = None
    fault, left = None, 0
    read = 0
    requests = collections.Counter()
    lock = threading.Lock()

    def any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.lock:
            Proxy.requests[self.command] += 1
        fault = self.draw()
        if fault in ("500", "503"):
            return self.reply(int(fault), {}, b"<Error><Code>SlowDown</Code></Error>", None)
        if fault == "skew":
            return self.reply(403, {}, b"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the "
                              b"request time and the current time is too large.</Message></Error>", None)
        if fault in ("denied", "last"):
            return self.reply(403, {}, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>", None)
        if fault == "slow":
            time.sleep(2)
        upstream = http.client.HTTPConnection("127.0.0.1", self.moto)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        data = answer.read()
        if self.command == "GET" and "list-type" not in self.path:
            with self.lock:
                Proxy.read += len(data)
        headers = {name: value for name, value in answer.getheaders()
                   if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server")}
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        return self.reply(answer.status, headers, data, length, cut=fault == "cut")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = any

    def draw(self):
        """The fault of this answer; reads are cut, everything can be refused."""
        with self.lock:
            if Proxy.left <= 0 or (Proxy.fault == "cut" and (self.command != "GET" or "Range" not in self.headers)):
                return None
            if Proxy.fault == "last" and not (self.command == "PUT" and self.path.endswith(".index.json")):
                return None
            Proxy.left -= 1
            return Proxy.fault

    def reply(self, status, headers, data, length, cut=False):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:len(data) // 2] if cut else data)
        if cut:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def log_message(self, *_):
        pass

    @classmethod
    def fail(cls, fault, count):
        """What goes wrong with the next answers."""
        cls.fault, cls.left = fault, count


def peak_of(arguments, env):
    """Runs a command; its exit code, its words, and the peak of its anonymous memory in MiB."""
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen([*map(str, arguments)], env=env, stdout=words, stderr=words)
        peak = 0
        while process.poll() is None:
            try:
                with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
                    found = [line for line in status if line.startswith("RssAnon")]
                peak = max(peak, *(int(line.split()[1]) / 1024 for line in found), 0)
            except (OSError, TypeError):
                pass
            time.sleep(0.01)
        words.seek(0)
        return process.returncode, words.read().decode(), peak


def serve(place):
    """moto and the proxy before it; the environment that leads to them."""
    moto = subprocess.Popen([sys.executable, "-c", "from moto.server import ThreadedMotoServer as S; import sys, time\n"
                             "s = S(port=0, verbose=False); s.start(); print(s.get_host_and_port()[1], flush=True)\n"
                             "time.sleep(1e6)"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=place)
    Proxy.moto = int(moto.stdout.readline())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = os.environ | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_REGION": "us-east-1",
                        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "TMPDIR": str(place)}
    return moto, server, env


class Store:
    """The bucket, by boto3, past the proxy."""

    def __init__(self, name):
        import boto3

        self.name = name
        self.client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{Proxy.moto}", region_name="us-east-1",
                                   aws_access_key_id="key", aws_secret_access_key="secret")
        self.client.create_bucket(Bucket=name)

    def put(self, folder, prefix):
        for file in folder.iterdir():
            self.client.upload_file(str(file), self.name, f"{prefix}/{file.name}")

    def names(self, prefix):
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix)
        return sorted(item["Key"].removeprefix(prefix) for item in found.get("Contents", []))

    def get(self, prefix, folder):
        for name in self.names(prefix):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self.client.download_file(self.name, prefix + name, str(folder / name))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=lambda text: str(Path(text).resolve()))
    parser.add_argument("--bytes", type=float, default=5e8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        moto, server, env = serve(place)
        try:
            run(args, place, env)
        finally:
            server.shutdown()
            moto.kill()


def run(args, place, env):
    """The merge by paths, then from and to the store, then with a server in trouble."""
    store = Store("models")
    names = fleet.make_base(place / "base", int(args.bytes), 6)
    fleet.make_adapter(place / "adapter", names)
    store.put(place / "base", "org/base")
    store.put(place / "adapter", "org/adapter")
    size = sum(file.stat().st_size for folder in ("base", "adapter") for file in (place / folder).iterdir())
    fleet.command(args.binary, "merge", place / "base", place / "adapter", "-o", place / "right")
    right = fleet.hashes(place / "right")
    inputs = ["s3://models/org/base", "s3://models/org/adapter"]

    def merged(to, fault=None, count=0, expected=0):
        Proxy.fail(fault, count)
        began, Proxy.read = time.monotonic(), 0
        code, words, peak = peak_of([args.binary, "-q", "merge", *inputs, "-o", f"s3://models/out/{to}"], env)
        Proxy.fail(None, 0)
        if code != expected:
            sys.exit(f"WRONG: exit {code}, not {expected}: {words}")
        print(f"merge to {to}: {time.monotonic() - began:.1f} s, {peak:.0f} MiB anonymous, "
              f"{Proxy.read / size:.3f} of the inputs' bytes read")
        return words, peak

    def is_right(to):
        store.get(f"out/{to}/", place / to)
        return fleet.hashes(place / to) == right

    watched, seen = threading.Event(), []

    def watch():
        while not watched.is_set():
            seen.append(tuple(store.names("out/plain/")))
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, peak = merged("plain")
    watched.set()
    watcher.join()
    expect(is_right("plain"), "base, adapter and output in the store: the bytes of the merge by paths")
    expect(peak <= 128, f"{peak:.0f} MiB anonymous, at most 128")
    expect(Proxy.read <= 1.1 * size, "no more than 1.1 of the inputs' bytes were read")
    index = "model.safetensors.index.json"
    early = [names for names in seen if names and index in names and len(names) < len(right)]
    expect(not early, "the index is there only when all else is")
    words, _ = merged("plain", expected=2)
    expect("exists" in words, "a second merge to the same place is refused")
    Proxy.read = 0
    code, words, _ = peak_of([args.binary, "inspect", inputs[0]], env)
    expect(code == 0 and Proxy.read < MIB, f"inspect reads headers alone: {Proxy.read} bytes")
    for fault, count in (("500", 3), ("503", 3), ("slow", 4), ("cut", 5)):
        to = f"after-{fault}"
        merged(to, fault, count)
        expect(is_right(to), f"{count} answers {fault}: the bytes of the merge by paths")
    for fault, hint in (("denied", "credentials may not"), ("skew", "clock")):
        words, _ = merged("refused", fault, 10**9, expected=2)
        expect(hint in words, f"{fault}: {hint}")
        expect(not store.names("out/refused"), "and nothing is in the store")
    merged("no-index", "last", 10**9, expected=2)
    expect(not store.names("out/no-index"), "a store that refuses the index keeps none of the other files")
    plan_and_work(args, place, env, inputs, (right, store))
    extract_to_store(args, place, env, store)
    batch_to_store(args, place, env, store)
    for location, hint in (("s3://nowhere/base", "no such bucket"), ("s3://models/nothing", "nothing is there"),
                           ("ftp://host/base", "unknown scheme")):
        code, words, _ = peak_of([args.binary, "inspect", location], env)
        expect(code == 2 and hint in words, f"{location}: {hint}")
    expect(not list(place.glob("lora-tool-remote-*")), "no mirror is left on the disk")


def tool(args, env, *words, expected=0):
    """Runs a command that has to end with a code; its words, and the peak of its memory."""
    code, told, peak = peak_of([args.binary, "-q", *words], env)
    if code != expected:
        sys.exit(f"WRONG: {' '.join(map(str, words))}: exit {code}, not {expected}: {told}")
    return told, peak


def plan_and_work(args, place, env, inputs, expected):
    """Plans whose inputs are in the store: with a directory that all workers see, and with an output in the store."""
    right, store = expected
    plan = place / "plan.json"
    tool(args, env, "merge", *inputs, "-o", place / "planned", "--plan", plan, "--workers", "2")
    expect("lora-tool-remote" not in plan.read_text() and inputs[0] in plan.read_text(), "a plan holds locations")
    for part in ("2/2", "1/2"):
        tool(args, env, "work", plan, "--shard", part)
    tool(args, env, "commit", plan)
    expect(fleet.hashes(place / "planned") == right, "planned from the store: the bytes of the merge by paths")

    plan = place / "plan-to-store.json"
    tool(args, env, "merge", *inputs, "-o", "s3://models/out/worked", "--plan", plan, "--workers", "3")
    expect("lora-tool-remote" not in plan.read_text(), "a plan to the store holds locations")
    told, _ = tool(args, env, "commit", plan, expected=2)
    expect("no worker has begun" in told, "a commit before any work is refused")
    peak = max(tool(args, env, "work", plan, "--shard", part)[1] for part in ("2/3", "1/3"))
    told, _ = tool(args, env, "commit", plan, expected=2)
    expect("missing" in told and ".safetensors" in told, "a commit without a part is refused, and names it")
    peak = max(peak, tool(args, env, "work", plan, "--shard", "3/3")[1])
    expect(peak <= 128, f"a worker to the store: {peak:.0f} MiB anonymous, at most 128")
    expect(not store.names("out/worked/"), "nothing is seen before the commit")
    waiting = "out/.worked.work/out/"
    shard = next(name for name in store.names(waiting) if name.endswith(".safetensors"))
    store.client.put_object(Bucket=store.name, Key=waiting + shard, Body=b"another")
    told, _ = tool(args, env, "commit", plan, expected=2)
    expect("not as it was made" in told and shard in told, "an altered shard is named")
    for part in ("1/3", "2/3", "3/3", "3/3"):
        tool(args, env, "work", plan, "--shard", part)
    Proxy.fail("last", 10**9)
    tool(args, env, "commit", plan, expected=2)
    Proxy.fail(None, 0)
    expect(not store.names("out/worked/"), "a commit whose index is refused leaves nothing in its place")
    tool(args, env, "commit", plan)
    store.get("out/worked/", place / "worked")
    expect(fleet.hashes(place / "worked") == right, "planned to the store: the bytes of the merge by paths")
    expect(not store.names("out/.worked.work/"), "and nothing waits any more")
    told, _ = tool(args, env, "commit", plan, expected=2)
    expect("committed already" in told, "a second commit is refused")
    told, _ = tool(args, env, "work", plan, "--shard", "1/3", expected=2)
    expect("exists" in told, "and so is more work")


def extract_to_store(args, place, env, store):
    """An extraction of two models in the store to an adapter there, alone and by two workers."""
    fleet.command(args.binary, "extract", place / "base", place / "right", "--rank", "4", "-o", place / "extracted")
    store.put(place / "right", "org/right")
    models = ["s3://models/org/base", "s3://models/org/right", "--rank", "4"]
    tool(args, env, "extract", *models, "-o", "s3://models/out/extracted")
    plan = place / "extract.json"
    tool(args, env, "extract", *models, "-o", "s3://models/out/shared", "--plan", plan)
    for part in ("2/2", "1/2"):
        tool(args, env, "work", plan, "--shard", part)
    expect(not store.names("out/shared"), "an extraction is not seen before the commit")
    tool(args, env, "commit", plan)
    for name in ("extracted", "shared"):
        got = place / f"{name}-got"
        store.get(f"out/{name}/", got)
        file = "adapter_model.safetensors"
        expect(fleet.hashes(got)[file] == fleet.hashes(place / "extracted")[file], f"{name}: the factors of paths")
        config = (got / "adapter_config.json").read_text()
        expect("lora-tool-remote" not in config, f"{name}: its config names no path of this machine")


def batch_to_store(args, place, env, store):
    """A batch whose items lie in the store and go there, by two workers."""
    fleet.command(args.binary, "resize", place / "adapter", "--rank", "4", "-o", place / "small")
    items = "".join(f"- {{verb: resize, adapter: 's3://models/org/adapter', rank: {rank}, "
                    f"output: 's3://models/out/batch/r{rank}'}}\n" for rank in (4, 8))
    (place / "jobs.yaml").write_text(f"items:\n{items}")
    plan = place / "batch.json"
    tool(args, env, "batch", place / "jobs.yaml", "--plan", plan)
    for part in ("2/2", "1/2"):
        tool(args, env, "work", plan, "--shard", part)
    expect(not store.names("out/batch/r"), "a batch is not seen before the commit")
    tool(args, env, "commit", plan)
    expect(not store.names("out/batch/."), "and nothing of it waits after")
    store.get("out/batch/r4/", place / "r4")
    file = "adapter_model.safetensors"
    expect(fleet.hashes(place / "r4")[file] == fleet.hashes(place / "small")[file], "a batch: the factors of paths")


if __name__ == "__main__":
    main()
