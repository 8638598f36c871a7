"""The agent's end of the connections from its attempt workers.

A worker proves itself by its attempt's token. A closed connection is told at once.
"""

from __future__ import annotations

import base64
import hmac
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from cluster.lines import LineReader
from cluster.worker_wire import FromAgent, FromWorker, Hello, Kept, Output, from_worker, to_line

_READ_BYTES = 65_536
_HELLO_S = 5.0
_SEND_S = 2.0


class LogKeeper(Protocol):
    """Where the output of ranks goes."""

    def append(self, attempt_id: str, *, rank: int, offset: int, data: bytes) -> int:
        """Keep a piece of output; give how many bytes of it are kept now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A worker said something; None = its connection closed."""

    attempt_id: str
    index: int
    message: FromWorker | None


class WorkerServer:
    """Listens for workers; what they say goes to ``heard`` from many threads."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        token_of: Callable[[str], str | None],
        heard: Callable[[Heard], None],
        logs: LogKeeper,
    ) -> None:
        """Listen; port 0 takes a free one. ``token_of`` gives a live attempt's token."""
        self._token_of = token_of
        self._heard = heard
        self._logs = logs
        self._lock = threading.Lock()
        self._links: dict[tuple[str, int], socket.socket] = {}
        self._listener = socket.create_server((host, port), reuse_port=False)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="worker-server", daemon=True).start()

    def send(self, attempt_id: str, index: int, *, message: FromAgent) -> None:
        """Tell a worker something; lost if it is not connected."""
        with self._lock:
            link = self._links.get((attempt_id, index))
        if link is not None:
            with suppress(OSError):
                link.sendall(to_line(message))

    def connected(self, attempt_id: str) -> list[int]:
        """Give the workers of an attempt that are connected."""
        with self._lock:
            return [index for one, index in self._links if one == attempt_id]

    def close(self) -> None:
        """Hang up; workers try to come back."""
        with self._lock:
            links = list(self._links.values())
        for one in (self._listener, *links):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # a mere close would not wake their threads
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                link, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        reader = LineReader()
        with suppress(OSError, ValueError), link:
            link.settimeout(_HELLO_S)
            hello, lines = self._greeted(link, reader)
            link.settimeout(None)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_SEND_S))
            key = (hello.attempt_id, hello.index)
            with self._lock:
                self._links[key] = link
            self._tell(hello, hello)
            try:
                self._listen(link, reader, hello, lines)
            finally:
                self._forget(key, link, hello)

    def _greeted(self, link: socket.socket, reader: LineReader) -> tuple[Hello, list[bytes]]:
        lines: list[bytes] = []
        while not lines:
            data = link.recv(_READ_BYTES)
            if not data:
                raise ConnectionError("closed before a word")
            lines = reader.feed(data)
        hello = from_worker(lines[0])
        if not isinstance(hello, Hello) or not self._knows(hello):
            raise ConnectionError("not one of our workers")
        return hello, lines[1:]

    def _knows(self, hello: Hello) -> bool:
        token = self._token_of(hello.attempt_id)
        return token is not None and hmac.compare_digest(token, hello.token)

    def _listen(
        self, link: socket.socket, reader: LineReader, hello: Hello, lines: list[bytes]
    ) -> None:
        while True:
            for line in lines:
                self._take(hello, link, from_worker(line))
            data = link.recv(_READ_BYTES)
            if not data:
                return
            lines = reader.feed(data)

    def _take(self, hello: Hello, link: socket.socket, message: FromWorker) -> None:
        if not isinstance(message, Output):
            self._tell(hello, message)
            return
        data = base64.b64decode(message.data)
        length = self._logs.append(
            hello.attempt_id, rank=message.rank, offset=message.offset, data=data
        )
        link.sendall(to_line(Kept(rank=message.rank, length=length)))

    def _tell(self, hello: Hello, message: FromWorker | None) -> None:
        self._heard(Heard(attempt_id=hello.attempt_id, index=hello.index, message=message))

    def _forget(self, key: tuple[str, int], link: socket.socket, hello: Hello) -> None:
        with self._lock:
            ours = self._links.get(key) is link  # else it came back before we noticed
            if ours:
                del self._links[key]
        if ours:
            self._tell(hello, None)


def _timeval(seconds: float) -> bytes:
    return int(seconds).to_bytes(8, "little") + int(seconds % 1 * 1e6).to_bytes(8, "little")
