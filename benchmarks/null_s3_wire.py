"""The wire of `benchmarks.null_s3`: HTTP/1.1 with the framings that S3 clients use, on one socket.

A body that is not kept is received into one reused buffer, so it costs one copy by the kernel.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote

SINK_BYTES: Final = 2**20
_HEAD_BYTES: Final = 2**16


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request. Header names are in lower case; `key` is empty for a bucket's own."""

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]


class Wire:
    """One connection: requests in, answers out."""

    def __init__(self, connection: socket.socket) -> None:
        """Speak over `connection`, which stays the caller's."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._ahead = bytearray()
        self._sink = memoryview(bytearray(SINK_BYTES))

    def request(self) -> Request | None:
        """Read a head; None when the client has hung up."""
        while (end := self._ahead.find(b"\r\n\r\n")) < 0:
            if not self._more():
                return None
        text = bytes(self._ahead[:end]).decode("latin-1")
        del self._ahead[: end + 4]
        first, *lines = text.split("\r\n")
        method, target, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        path, _, query = target.partition("?")
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        asked = {name: found[0] for name, found in parse_qs(query, keep_blank_values=True).items()}
        if "100-continue" in headers.get("expect", "").lower():
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Request(method, bucket, key, asked, headers)

    def body(self, request: Request, *, keep_below: int) -> tuple[int, memoryview | None]:
        """Read a body; return its length without its framing, and its bytes if they are kept."""
        headers = request.headers
        framed = "aws-chunked" in headers.get("content-encoding", "")
        if "chunked" in headers.get("transfer-encoding", ""):
            data = self._unframed()
            data = _unchunked(data) if framed else data
            return data.nbytes, data if data.nbytes < keep_below else None
        length = int(headers.get("content-length", 0))
        inner = int(headers.get("x-amz-decoded-content-length", length))
        if inner >= keep_below:
            self._discard(length)
            return inner, None
        data = self._take(length)
        return inner, _unchunked(data) if framed else data

    def answer(self, status: str, *, headers: dict[str, str], length: int = 0) -> None:
        """Send a head; `length` bytes are to follow."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}", "Server: null"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def send(self, data: bytes | memoryview) -> None:
        """Send a part of an answer's body."""
        self._socket.sendall(data)

    def _more(self) -> int:
        count = self._socket.recv_into(self._sink, _HEAD_BYTES)
        self._ahead += self._sink[:count]
        return count

    def _discard(self, length: int) -> None:
        left = length - min(length, len(self._ahead))
        del self._ahead[:length]
        while left:
            left -= self._received(self._sink[: min(left, SINK_BYTES)])

    def _take(self, length: int) -> memoryview:
        data = memoryview(bytearray(length))
        filled = min(length, len(self._ahead))
        data[:filled] = self._ahead[:filled]
        del self._ahead[:filled]
        while filled < length:
            filled += self._received(data[filled : filled + SINK_BYTES])
        return data.toreadonly()

    def _received(self, target: memoryview) -> int:
        count = self._socket.recv_into(target)
        if not count:
            raise ConnectionResetError("the client hung up in the middle of a body")
        return count

    def _line(self) -> bytes:
        while (end := self._ahead.find(b"\r\n")) < 0:
            if not self._more():
                raise ConnectionResetError("the client hung up in the middle of a body")
        line = bytes(self._ahead[:end])
        del self._ahead[: end + 2]
        return line

    def _unframed(self) -> memoryview:
        """Read HTTP chunks, and take their framing off."""
        parts: list[memoryview] = []
        while size := int(self._line().partition(b";")[0], 16):
            parts.append(self._take(size))
            self._line()
        while self._line():
            pass
        return memoryview(b"".join(parts))


def _unchunked(data: memoryview) -> memoryview:
    """Take the chunk heads and the trailer of `aws-chunked` off a body."""
    raw, parts, at = bytes(data), list[bytes](), 0
    while True:
        end = raw.index(b"\r\n", at)
        size = int(raw[at:end].partition(b";")[0], 16)
        if not size:
            return memoryview(b"".join(parts))
        parts.append(raw[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
