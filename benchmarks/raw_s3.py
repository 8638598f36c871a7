"""PUT and GET over plain sockets: the ceiling that every S3 client is measured against.

No library, no checksum, no retry: a request head, the body, an answer's head. Requests are signed
beforehand (in the URL), so a real server takes them too.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

IN_FLIGHT: Final = 4
"""Connections at once, for every client that can be told."""
_VALID_S: Final = 3600
_TIMEOUT_S: Final = 60.0


def client_of(environment: Mapping[str, str]) -> Any:  # noqa: ANN401 - made at run time
    """Return a boto3 client for the server that `environment` names; its checksums are off."""
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
        config=Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
        ),
    )


class RawS3:
    """One bucket, spoken to over plain sockets."""

    def __init__(self, environment: Mapping[str, str], *, bucket: str) -> None:
        """Take the server and the credentials from `environment`."""
        parts = urlsplit(environment["AWS_ENDPOINT_URL"])
        assert parts.hostname is not None
        assert parts.port is not None
        self._address = (parts.hostname, parts.port)
        self._bucket = bucket
        self._client = client_of(environment)

    def put_all(self, bodies: Mapping[str, memoryview], *, connections: int = IN_FLIGHT) -> float:
        """Store every body; return the seconds that took. Raises `OSError` where refused."""
        targets = self._signed("put_object", list(bodies))
        jobs = list(zip(targets, bodies.values(), strict=True))
        return self._timed(jobs, _put, connections)

    def get_all(self, targets: Mapping[str, memoryview], *, connections: int = IN_FLIGHT) -> float:
        """Fill every buffer with its object's first bytes, by a range; return the seconds."""
        urls = self._signed("get_object", list(targets))
        jobs = list(zip(urls, targets.values(), strict=True))
        return self._timed(jobs, _get, connections)

    def _signed(self, operation: str, keys: Sequence[str]) -> list[str]:
        return [
            self._client.generate_presigned_url(
                operation, Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=_VALID_S
            )
            for key in keys
        ]

    def _timed(
        self,
        jobs: Sequence[tuple[str, memoryview]],
        do: Callable[[socket.socket, str, memoryview], None],
        connections: int,
    ) -> float:
        queue = iter(jobs)  # shared: whoever is free takes the next one

        def work(_: int) -> None:
            with self._connected() as wire:
                for url, data in queue:
                    do(wire, url, data)

        with ThreadPoolExecutor(connections) as pool:
            began = perf_counter()
            list(pool.map(work, range(connections)))
            return perf_counter() - began

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.create_connection(self._address, timeout=_TIMEOUT_S) as wire:
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield wire


def _put(wire: socket.socket, url: str, body: memoryview) -> None:
    wire.sendall(_head("PUT", url, f"Content-Length: {body.nbytes}"))
    wire.sendall(body)
    _answer(wire, url)


def _get(wire: socket.socket, url: str, target: memoryview) -> None:
    wire.sendall(_head("GET", url, f"Range: bytes=0-{target.nbytes - 1}"))
    early = _answer(wire, url)
    target[: len(early)] = early
    filled = len(early)
    while filled < target.nbytes:
        count = wire.recv_into(target[filled:])
        if not count:
            raise ConnectionResetError(f"{url}: {filled} of {target.nbytes} bytes came")
        filled += count


def _head(method: str, url: str, more: str) -> bytes:
    parts = urlsplit(url)
    lines = (f"{method} {parts.path}?{parts.query} HTTP/1.1", f"Host: {parts.netloc}", more)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _answer(wire: socket.socket, url: str) -> bytes:
    """Read an answer's head; return what came of its body. Raises `OSError` for an error."""
    ahead = bytearray()
    while (end := ahead.find(b"\r\n\r\n")) < 0:
        more = wire.recv(2**16)
        if not more:
            raise ConnectionResetError(f"{url}: hung up before it answered")
        ahead += more
    status = bytes(ahead[:end]).split(b" ", 2)[1]
    if not status.startswith(b"2"):
        raise OSError(f"{url}: {bytes(ahead)!r}")
    return bytes(ahead[end + 4 :])
