"""A null S3 server: it takes bodies at the speed of the socket and forgets them.

Against it a client is measured and not a store. Objects under 1 MiB (commit records, manifests) are
remembered, so a whole save works; of a larger object only the length is known, and a GET answers
that many synthetic bytes. `keep=True` remembers everything in memory, for verified loads.

It speaks what S3 clients need: PUT with `If-None-Match`, multipart, GET with a range, HEAD, LIST
(version 2), copy, DELETE one or many. Path-style, no authentication, loopback only; a thread for
each connection. ``python -m benchmarks.null_s3 --json`` prints what a plain socket reaches with it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import unquote
from xml.sax.saxutils import escape

from benchmarks.null_s3_wire import SINK_BYTES, Request, Wire

HOST: Final = "127.0.0.1"
REMEMBERED_BYTES: Final = 2**20
_ALL: Final = 2**62
_SPEED_BYTES: Final = 16 * 2**20
_SPEED_OBJECTS: Final = 64
_SPEED_REPEATS: Final = 5
_STOP_S: Final = 5.0
_PAGE: Final = 1000
_MODIFIED: Final = "2026-01-01T00:00:00.000Z"
_SYNTHETIC: Final = bytes(range(256)) * (SINK_BYTES // 256)


@dataclass(frozen=True, slots=True)
class NullS3:
    """A running server and how to reach it."""

    port: int
    bucket: str = "null"
    """Exists; so does every other bucket."""

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return the variables that make boto3 (and so our storage) use this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": "null",
            "AWS_SECRET_ACCESS_KEY": "null",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def null_s3(*, keep: bool = False) -> Iterator[NullS3]:
    """Run a server in a process of its own for the length of a `with` block."""
    command = [sys.executable, "-m", "benchmarks.null_s3", "--serve", *(["--keep"] if keep else [])]
    root = Path(__file__).absolute().parents[1]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield NullS3(int(process.stdout.readline()))
        finally:
            process.stdin.close()  # it ends with its caller, however that ends
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


# ------------------------------------------------------------------------------ the store


@dataclass(frozen=True, slots=True)
class _Stored:
    length: int
    data: memoryview | None  # None: only the length is known
    etag: str
    checksum: tuple[str, str] | None


@dataclass(slots=True)
class _Store:
    """What all connections share; `lock` guards every field."""

    keep_below: int
    objects: dict[str, _Stored] = field(default_factory=dict)
    uploads: dict[str, dict[int, _Stored]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    received_bytes: int = 0
    """Bytes of all bodies that were stored; `GET /?received` tells."""

    def stored(self, length: int, data: memoryview | None, headers: dict[str, str]) -> _Stored:
        """Describe a body that has arrived, under an ETag that no other has."""
        with self.lock:
            self.received_bytes += length
        sums = [item for item in headers.items() if _CHECKSUM.fullmatch(item[0])]
        return _Stored(length, data, f'"{next(self.numbers):032x}"', sums[0] if sums else None)

    def put(self, key: str, body: _Stored, *, if_absent: bool) -> bool:
        """Store an object, or say that its name is taken."""
        with self.lock:
            if if_absent and key in self.objects:
                return False
            self.objects[key] = body
            return True

    def complete(self, key: str, upload: str) -> _Stored | None:
        """Make an object of the parts; None for an unknown upload."""
        with self.lock:
            parts = self.uploads.pop(upload, None)
            if parts is None:
                return None
            ordered = [parts[number] for number in sorted(parts)]
            bodies = [part.data for part in ordered if part.data is not None]
            whole = memoryview(b"".join(bodies)) if len(bodies) == len(ordered) else None
            length = sum(part.length for part in ordered)
            self.objects[key] = _Stored(length, whole, f'"{next(self.numbers):032x}"', None)
            return self.objects[key]


_CHECKSUM: Final = re.compile(r"x-amz-checksum-(?!algorithm|mode|type).+")


# --------------------------------------------------------------------------- the answers


def _serve(connection: socket.socket, store: _Store) -> None:
    wire = Wire(connection)
    with connection:
        try:
            while (request := wire.request()) is not None:
                _handle(wire, store, request)
        except ConnectionError:
            return  # the client's own business


def _handle(wire: Wire, store: _Store, request: Request) -> None:
    match request.method:
        case "PUT":
            _put(wire, store, request)
        case "GET" | "HEAD" if request.key and "uploadId" not in request.query:
            _get(wire, store, request)
        case "GET" if "received" in request.query:
            told = str(store.received_bytes).encode("ascii")
            wire.answer("200 OK", headers={}, length=len(told))
            wire.send(told)
        case "GET" | "HEAD":
            _xml(wire, _listing(store, request), bodiless=request.method == "HEAD")
        case "POST":
            _post(wire, store, request)
        case "DELETE":
            with store.lock:
                store.objects.pop(request.key, None)
                store.uploads.pop(request.query.get("uploadId", ""), None)
            wire.answer("204 No Content", headers={})
        case _:
            wire.answer("501 Not Implemented", headers={})


def _put(wire: Wire, store: _Store, request: Request) -> None:
    if "x-amz-copy-source" in request.headers:
        _copy(wire, store, request)
        return
    if_absent = request.headers.get("if-none-match") == "*"
    body = store.stored(*wire.body(request, keep_below=store.keep_below), request.headers)
    headers = {"ETag": body.etag} | dict([body.checksum] if body.checksum else [])
    upload = request.query.get("uploadId")
    if upload is not None:
        with store.lock:
            store.uploads.setdefault(upload, {})[int(request.query["partNumber"])] = body
    elif request.key and not store.put(request.key, body, if_absent=if_absent):
        _error(wire, "412 Precondition Failed", "PreconditionFailed")
        return
    wire.answer("200 OK", headers=headers)


def _copy(wire: Wire, store: _Store, request: Request) -> None:
    source = unquote(request.headers["x-amz-copy-source"]).lstrip("/").partition("/")[2]
    with store.lock:
        found = store.objects.get(source)
        if found is not None:
            store.objects[request.key] = found
    if found is None:
        _error(wire, "404 Not Found", "NoSuchKey")
    else:
        _xml(wire, _element("CopyObjectResult", {"ETag": found.etag, "LastModified": _MODIFIED}))


def _get(wire: Wire, store: _Store, request: Request) -> None:
    with store.lock:
        found = store.objects.get(request.key)
    if found is None:
        _error(wire, "404 Not Found", "NoSuchKey", bodiless=request.method == "HEAD")
        return
    start, end = _range(request.headers.get("range"), found.length)
    if start >= end and found.length:
        _error(wire, "416 Range Not Satisfiable", "InvalidRange")
        return
    headers = {"ETag": found.etag, "Last-Modified": formatdate(0, usegmt=True)}
    whole = "range" not in request.headers
    if found.checksum and whole and "x-amz-checksum-mode" in request.headers:
        headers |= dict([found.checksum])
    if not whole:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.length}"
    headers |= {"Accept-Ranges": "bytes", "Content-Type": "binary/octet-stream"}
    wire.answer("200 OK" if whole else "206 Partial Content", headers=headers, length=end - start)
    if request.method == "GET":
        _send_range(wire, found, start, end)


def _send_range(wire: Wire, found: _Stored, start: int, end: int) -> None:
    if found.data is not None:
        wire.send(found.data[start:end])
        return
    for at in range(start, end, SINK_BYTES):
        wire.send(memoryview(_SYNTHETIC)[: min(SINK_BYTES, end - at)])


def _range(asked: str | None, length: int) -> tuple[int, int]:
    """Return the half-open range that a `Range` header names, cut to the object."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
    if found is None:
        return 0, length
    first, last = found.groups()
    if not first:
        return max(0, length - int(last)), length
    return int(first), min(length, int(last) + 1) if last else length


def _post(wire: Wire, store: _Store, request: Request) -> None:
    _, body = wire.body(request, keep_below=_ALL)
    if "uploads" in request.query:
        upload = str(next(store.numbers))
        with store.lock:
            store.uploads[upload] = {}
        _xml(wire, _element("InitiateMultipartUploadResult", {"UploadId": upload}))
    elif "uploadId" in request.query:
        done = store.complete(request.key, request.query["uploadId"])
        if done is None:
            _error(wire, "404 Not Found", "NoSuchUpload")
        else:
            told = {"Bucket": request.bucket, "Key": request.key, "ETag": done.etag}
            _xml(wire, _element("CompleteMultipartUploadResult", told))
    else:
        keys = re.findall(r"<Key>(.*?)</Key>", bytes(body or b"").decode())
        with store.lock:
            for key in keys:
                store.objects.pop(key, None)
        _xml(wire, "<DeleteResult/>")


def _listing(store: _Store, request: Request) -> str:
    """Return a page of LIST; objects under a common prefix count as one line."""
    query = request.query
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    after = query.get("continuation-token", query.get("start-after", ""))
    with store.lock:
        found = {key: item for key, item in store.objects.items() if key.startswith(prefix)}
    lines: dict[str, str] = {}
    for key, item in found.items():
        stem, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        if cut:
            name = prefix + stem + cut
            lines[name] = f"<CommonPrefixes>{_fields({'Prefix': name})}</CommonPrefixes>"
        else:
            told = {"Key": key, "Size": item.length, "ETag": item.etag, "LastModified": _MODIFIED}
            lines[key] = f"<Contents>{_fields(told)}</Contents>"
    names = sorted(name for name in lines if name > after)
    page = names[: int(query.get("max-keys", _PAGE))]
    head: dict[str, object] = {"Name": request.bucket, "Prefix": prefix, "KeyCount": len(page)}
    more = len(page) < len(names)
    head |= {"IsTruncated": str(more).lower()}
    head |= {"NextContinuationToken": page[-1]} if more and page else {}
    rows = "".join(lines[name] for name in page)
    return f"<ListBucketResult>{_fields(head)}{rows}</ListBucketResult>"


def _fields(told: Mapping[str, object]) -> str:
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in told.items())


def _element(name: str, told: Mapping[str, object]) -> str:
    return f"<{name}>{_fields(told)}</{name}>"


def _xml(wire: Wire, text: str, *, status: str = "200 OK", bodiless: bool = False) -> None:
    data = ('<?xml version="1.0" encoding="UTF-8"?>' + text).encode()
    wire.answer(status, headers={"Content-Type": "application/xml"}, length=len(data))
    if not bodiless:
        wire.send(data)


def _error(wire: Wire, status: str, code: str, *, bodiless: bool = False) -> None:
    _xml(wire, _element("Error", {"Code": code, "Message": code}), status=status, bodiless=bodiless)


# ---------------------------------------------------------------------------- the process


def serve(*, keep: bool) -> None:
    """Listen on a free port, print its number, and serve until standard input closes."""
    store = _Store(keep_below=_ALL if keep else REMEMBERED_BYTES)
    listener = socket.create_server((HOST, 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_accept, args=(listener, store), daemon=True).start()
    sys.stdin.buffer.read()
    os._exit(0)  # clients' connections are not waited for


def _accept(listener: socket.socket, store: _Store) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, store), daemon=True).start()


def main() -> None:
    """Serve with `--serve`; else measure what a plain socket reaches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help="run the server until stdin closes")
    parser.add_argument("--keep", action="store_true", help="remember every object in memory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    if asked.serve:
        serve(keep=asked.keep)
    else:
        _print_speeds(as_json=asked.json)


def _print_speeds(*, as_json: bool) -> None:
    from benchmarks.raw_s3 import RawS3

    body = memoryview(bytearray(_SPEED_BYTES))
    puts, gets = [], []
    with null_s3() as server:
        raw = RawS3(server.environment(), bucket=server.bucket)
        work = {f"raw-{number}": body for number in range(_SPEED_OBJECTS)}
        raw.put_all(work)  # warm-up
        for _ in range(_SPEED_REPEATS):
            puts.append(raw.put_all(work))
            gets.append(raw.get_all(work))
    moved_gb = _SPEED_BYTES * _SPEED_OBJECTS / 1e9
    found = {
        "put_gb_per_s": round(moved_gb / median(puts), 2),
        "get_gb_per_s": round(moved_gb / median(gets), 2),
    }
    print(json.dumps(found) if as_json else found)


if __name__ == "__main__":
    main()
