#!/usr/bin/env python3
"""Base, adapter and output in Google Cloud Storage and in Azure Blob Storage, each played by a small server here that
answers what their documentation says: merges alone, and by workers from a plan.

    scripts/scale/other_stores.py target/release/lora-tool      # a binary with the feature `cloud`
"""

import argparse
import base64
import email.utils
import hashlib
import http.server
import json
import os
import re
import tempfile
import threading
import urllib.parse
from pathlib import Path
from xml.sax.saxutils import escape

import fleet
from fleet import expect

BUCKET, ACCOUNT = "models", "devstoreaccount1"
NOW = email.utils.formatdate(usegmt=True)
# The form of dates in Azure's and in Google's lists.
STAMP = "2026-01-02T03:04:05.000Z"


class Server(http.server.BaseHTTPRequestHandler):
    """Objects by their names, and what is the same for both stores."""

    protocol_version = "HTTP/1.1"
    lock = threading.Lock()

    def handle_any(self):
        url = urllib.parse.urlsplit(self.path)
        query = {key: words[0] for key, words in urllib.parse.parse_qs(url.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.lock:
            self.answer(urllib.parse.unquote(url.path).removeprefix(self.root).lstrip("/"), query, body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def reply(self, status, body=b"", headers=None, length=None):
        self.send_response(status)
        for name, value in ({"Last-Modified": NOW} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def get(self, name):
        data = self.objects.get(name)
        if data is None:
            return self.reply(404, b"<Error><Code>NotFound</Code></Error>")
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            return self.reply(200, data, {"ETag": tag(data)}, len(data))
        start, end = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        where = {"ETag": tag(data), "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        return self.reply(206, data[start:end], where)

    def put(self, name, data, only_new):
        if only_new and name in self.objects:
            return self.reply(412, b"<Error><Code>ConditionNotMet</Code></Error>")
        self.objects[name] = data
        return self.reply(self.created, headers={"ETag": tag(data)})

    def log_message(self, *_):
        pass


def tag(data):
    return f'"{hashlib.md5(data).hexdigest()}"'


class Google(Server):
    """The XML interface of Cloud Storage."""

    root, created = f"/{BUCKET}", 200
    objects, uploads = {}, {}

    def answer(self, name, query, body):
        if self.command == "DELETE":
            return self.reply(204 if self.objects.pop(name, None) is not None else 404)
        if not name:
            return self.list(query.get("prefix", ""))
        if "uploads" in query:
            number = f"upload-{len(self.uploads)}"
            self.uploads[number] = {}
            return self.reply(200, f"<InitiateMultipartUploadResult><UploadId>{number}</UploadId>"
                              "</InitiateMultipartUploadResult>".encode())
        if "partNumber" in query:
            self.uploads[query["uploadId"]][int(query["partNumber"])] = body
            return self.reply(200, headers={"ETag": tag(body)})
        if "uploadId" in query:
            parts = self.uploads.pop(query["uploadId"])
            self.objects[name] = b"".join(parts[number] for number in sorted(parts))
            return self.reply(200, f"<CompleteMultipartUploadResult><ETag>{escape(tag(self.objects[name]))}</ETag>"
                              "</CompleteMultipartUploadResult>".encode())
        if self.command in ("GET", "HEAD"):
            return self.get(name)
        source = self.headers.get("x-goog-copy-source")
        if source is not None:
            body = self.objects[urllib.parse.unquote(source).removeprefix(f"{BUCKET}/")]
        return self.put(name, body, self.headers.get("x-goog-if-generation-match") == "0")

    def list(self, prefix):
        found = "".join(f"<Contents><Key>{escape(name)}</Key><Size>{len(data)}</Size><LastModified>{STAMP}"
                        f"</LastModified><ETag>{escape(tag(data))}</ETag></Contents>"
                        for name, data in sorted(self.objects.items()) if name.startswith(prefix))
        self.reply(200, f"<ListBucketResult>{found}</ListBucketResult>".encode())


class Azure(Server):
    """Block blobs of an account."""

    root, created = f"/{ACCOUNT}/{BUCKET}", 201
    objects, blocks = {}, {}

    def answer(self, name, query, body):
        if query.get("comp") == "batch":
            return self.batch(body.decode())
        if query.get("comp") == "list":
            return self.list(query.get("prefix", ""))
        if query.get("comp") == "block":
            self.blocks[name, query["blockid"]] = body
            return self.reply(201)
        if query.get("comp") == "blocklist":
            numbers = re.findall(r"<(?:Uncommitted|Latest)>([^<]*)</", body.decode())
            body = b"".join(self.blocks.pop((name, number)) for number in numbers)
        elif self.command in ("GET", "HEAD"):
            return self.get(name)
        return self.put(name, body, self.headers.get("If-None-Match") == "*")

    def list(self, prefix):
        found = "".join(f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{NOW}</Last-Modified>"
                        f"<Content-Length>{len(data)}</Content-Length><Content-Type>x/y</Content-Type>"
                        f"<Etag>{escape(tag(data))}</Etag></Properties></Blob>"
                        for name, data in sorted(self.objects.items()) if name.startswith(prefix))
        self.reply(200, f"<EnumerationResults><Blobs>{found}</Blobs><NextMarker /></EnumerationResults>".encode())

    def batch(self, body):
        """Removes several blobs; the answer has a part for each."""
        parts = []
        for number, path in enumerate(re.findall(r"^DELETE (\S+) HTTP", body, re.MULTILINE)):
            name = urllib.parse.unquote(path.split("?")[0]).removeprefix(self.root).lstrip("/")
            status = "202 Accepted" if self.objects.pop(name, None) is not None else "404 The specified blob does not exist."
            parts.append(f"--answers\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
                         f"HTTP/1.1 {status}\r\nx-ms-request-id: {number}\r\nx-ms-version: 2018-11-09\r\n\r\n")
        self.reply(202, ("".join(parts) + "--answers--\r\n").encode(),
                   {"Content-Type": "multipart/mixed; boundary=answers"})


def serve(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def environments(place):
    """Each store's scheme, its objects, and the variables that lead to the server here."""
    account = place / "account.json"
    account.write_text(json.dumps({"gcs_base_url": serve(Google), "disable_oauth": True, "client_email": "",
                                   "private_key": "", "private_key_id": ""}))
    key = base64.b64encode(b"a key of nobody").decode()
    yield "gs", Google.objects, {"GOOGLE_SERVICE_ACCOUNT": str(account)}
    yield "az", Azure.objects, {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": key,
                                "AZURE_STORAGE_ENDPOINT": f"{serve(Azure)}/{ACCOUNT}"}


def run(binary, place, scheme, objects, env):
    """Merges from and to a store, alone and by workers."""
    def under(prefix):
        return {name.removeprefix(prefix): hashlib.sha256(data).hexdigest()
                for name, data in objects.items() if name.startswith(prefix)}

    for folder in ("base", "adapter"):
        for file in (place / folder).iterdir():
            objects[f"org/{folder}/{file.name}"] = file.read_bytes()
    right, env = fleet.hashes(place / "right"), os.environ | env | {"TMPDIR": str(place)}
    inputs = [f"{scheme}://{BUCKET}/org/base", f"{scheme}://{BUCKET}/org/adapter"]

    def tool(*words, expected=0):
        return fleet.command(binary, "-q", *words, expect=expected, env=env)

    tool("merge", *inputs, "-o", f"{scheme}://{BUCKET}/out/alone")
    expect(under("out/alone/") == right, f"{scheme}: the bytes of the merge by paths")
    expect("exists" in tool("merge", *inputs, "-o", f"{scheme}://{BUCKET}/out/alone", expected=2),
           f"{scheme}: a second merge to the same place is refused")
    plan = place / f"{scheme}.json"
    tool("merge", *inputs, "-o", f"{scheme}://{BUCKET}/out/worked", "--plan", plan)
    for part in ("2/2", "1/2"):
        tool("work", plan, "--shard", part)
    expect(not under("out/worked/"), f"{scheme}: nothing is seen before the commit")
    tool("commit", plan)
    expect(under("out/worked/") == right, f"{scheme}: by two workers, the bytes of the merge by paths")
    expect(not under("out/.worked.work/"), f"{scheme}: and nothing waits any more")
    expect("committed already" in tool("commit", plan, expected=2), f"{scheme}: a second commit is refused")
    expect("nothing is there" in tool("inspect", f"{scheme}://{BUCKET}/nothing", expected=2),
           f"{scheme}: what is not there is said so")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=lambda text: str(Path(text).resolve()))
    parser.add_argument("--bytes", type=float, default=1e8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        names = fleet.make_base(place / "base", int(args.bytes), 3)
        fleet.make_adapter(place / "adapter", names)
        fleet.command(args.binary, "merge", place / "base", place / "adapter", "-o", place / "right")
        for scheme, objects, env in environments(place):
            run(args.binary, place, scheme, objects, env)


if __name__ == "__main__":
    main()
