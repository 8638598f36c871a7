"""The worker's end of the control sockets on which its training children report."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from checkpointing.control import (
    Beside,
    ControlError,
    Hello,
    Message,
    WorkerMessage,
    decode,
    encode,
)
from cluster.lines import LineReader

_READ_BYTES = 65_536


class ControlServer:
    """Listens on a unix socket; one thread per child, all owned by daemon threads."""

    def __init__(self, path: Path, *, heard: Callable[[int, Message], None]) -> None:
        """Listen at ``path`` (107 bytes at most); ``heard(rank, message)`` runs in any thread."""
        self.path = path
        self._heard = heard
        self._lock = threading.Lock()
        self._standing: list[WorkerMessage] = []
        self._links: dict[int, socket.socket] = {}
        self._readers: dict[int, threading.Thread] = {}
        self._beside: dict[int, list[threading.Thread]] = {}  # of uploaders, by rank
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def tell(self, message: WorkerMessage) -> None:
        """Tell every child, also those that connect later; the last word of a kind counts."""
        with self._lock:
            self._standing = [one for one in self._standing if one.kind != message.kind]
            self._standing.append(message)
            links = list(self._links.values())
        for link in links:
            with suppress(OSError):
                link.sendall(encode(message))

    def finish(self, rank: int, *, timeout_s: float) -> None:
        """Wait until all that a dead child said was heard."""
        reader = self._readers.get(rank)
        if reader is not None:
            reader.join(timeout_s)

    def uploads(self, rank: int) -> bool:
        """Whether an uploader of the rank is still at work."""
        with self._lock:
            return any(reader.is_alive() for reader in self._beside.get(rank, ()))

    def close(self) -> None:
        """Hang up."""
        for one in (self._listener, *self._links.values()):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # a mere close would not wake their threads
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                link, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        reader, rank = LineReader(), -1
        with suppress(OSError, ValueError), link:
            while data := link.recv(_READ_BYTES):
                for line in reader.feed(data):
                    rank = self._take(line, link, rank)

    def _take(self, line: bytes, link: socket.socket, rank: int) -> int:
        try:
            message = decode(line)
        except ControlError:
            return rank  # a newer child may say things that we do not know
        if isinstance(message, Hello):
            self._greet(message.rank, link)
            return message.rank
        if isinstance(message, Beside):
            with self._lock:
                self._beside.setdefault(message.rank, []).append(threading.current_thread())
            return message.rank
        if rank >= 0:
            self._heard(rank, message)
        return rank

    def _greet(self, rank: int, link: socket.socket) -> None:
        with self._lock:
            self._links[rank] = link
            self._readers[rank] = threading.current_thread()
            standing = list(self._standing)
        for message in standing:
            link.sendall(encode(message))
