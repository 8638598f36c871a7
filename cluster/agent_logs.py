"""The output of ranks at the agent: kept on disk first, then forwarded to the server.

So logs outlive their node at once, and the server may be away. A file is deleted when its attempt
is over and the server has all of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

_CHUNK = 256 << 10


class LogSink(Protocol):
    """Where logs go in the end."""

    def send_log(self, attempt_id: str, *, rank: int, offset: int, data: bytes) -> int | None:
        """Hand on a piece; give how many bytes are there now, None to try again later."""


@dataclass(slots=True, kw_only=True)
class _Log:
    path: Path
    attempt_id: str
    rank: int
    sent: int = -1  # bytes that the server has; -1 = to be asked


class LogBook:
    """All logs under one folder; see the module. Any thread may call."""

    def __init__(self, folder: Path) -> None:
        """Find what an earlier life left."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._logs: dict[tuple[str, int], _Log] = {}
        for path in sorted(folder.glob("*.log")):
            name, _, rank = path.stem.rpartition(".")
            self._open(unquote(name), int(rank))

    def append(self, attempt_id: str, *, rank: int, offset: int, data: bytes) -> int:
        """Keep a piece; one that is here already is ignored. Gives the length that is kept."""
        with self._lock:
            path = self._open(attempt_id, rank).path
            with path.open("ab") as stream:
                have = stream.tell()
                fresh = data[max(0, have - offset) :] if offset <= have else b""
                stream.write(fresh)
        self._news.set()
        return have + len(fresh)

    def wait(self, timeout_s: float) -> None:
        """Block until there is more or the time is over."""
        self._news.wait(timeout_s)
        self._news.clear()

    def forward(self, sink: LogSink, *, is_over: Callable[[str], bool]) -> None:
        """Send everything that the server does not have, and drop what is done."""
        with self._lock:
            logs = list(self._logs.values())
        for log in logs:
            while self._send_piece(log, sink):
                pass
            if log.sent >= 0 and is_over(log.attempt_id):
                self._drop_if_sent(log)

    def _send_piece(self, log: _Log, sink: LogSink) -> bool:
        asking = log.sent < 0
        offset = max(0, log.sent)
        with log.path.open("rb") as stream:
            stream.seek(offset)
            data = b"" if asking else stream.read(_CHUNK)
        if not data and not asking:
            return False
        length = sink.send_log(log.attempt_id, rank=log.rank, offset=offset, data=data)
        if length is None or (length <= log.sent and not asking):
            return False
        log.sent = length
        return True

    def _drop_if_sent(self, log: _Log) -> None:
        with self._lock:
            if log.path.stat().st_size <= log.sent:
                log.path.unlink()
                del self._logs[log.attempt_id, log.rank]

    def _open(self, attempt_id: str, rank: int) -> _Log:
        key = (attempt_id, rank)
        if key not in self._logs:
            path = self._folder / f"{quote(attempt_id, safe='')}.{rank}.log"
            path.touch()
            self._logs[key] = _Log(path=path, attempt_id=attempt_id, rank=rank)
        return self._logs[key]
