"""The worker's connection to its agent: keeps trying, keeps what was not acknowledged."""

from __future__ import annotations

import base64
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cluster.agent_clock import monotonic_us
from cluster.lines import LineReader
from cluster.worker_wire import (
    Ack,
    Beat,
    FromAgent,
    Hello,
    Kept,
    News,
    Output,
    from_agent,
    to_line,
)

_RETRY_S = 0.3
_TICK_S = 0.1
_BEAT_US = 500_000
_CHUNK = 64 << 10
_WINDOW = 1 << 20  # bytes of a rank's output under way at most
_READ_BYTES = 65_536


class AgentLink:
    """One thread that speaks to the agent at ``(host, port)``."""

    def __init__(
        self, address: tuple[str, int], *, hello: Hello, heard: Callable[[FromAgent], None]
    ) -> None:
        """Start to connect; ``heard`` runs in the link's thread."""
        self._address = address
        self._hello = hello
        self._heard = heard
        self._lock = threading.Lock()
        self._news: deque[News] = deque()
        self._said_seq = 0  # newest news sent on this connection
        self._spools: dict[int, Path] = {}
        self._kept: dict[int, int] = {}  # bytes that the agent has, per rank
        self._sent: dict[int, int] = {}  # bytes sent on this connection, per rank
        self._beat_us = 0
        self._closing = threading.Event()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.settimeout(0)
        self._thread = threading.Thread(target=self._run, name="agent-link", daemon=True)
        self._thread.start()

    def tell(self, news: News) -> None:
        """Send news now or as soon as there is an agent; kept until acknowledged."""
        with self._lock:
            self._news.append(news)
        with suppress(BlockingIOError, OSError):
            self._wake_in.send(b"!")

    def follow(self, rank: int, *, spool: Path) -> None:
        """Send what is appended to a rank's spool."""
        with self._lock:
            self._spools[rank] = spool

    def flushed(self) -> bool:
        """Whether the agent has everything."""
        with self._lock:
            spools = dict(self._spools)
        return not self._news and all(
            self._kept.get(rank, 0) >= _size(path) for rank, path in spools.items()
        )

    def close(self) -> None:
        """End the thread and hang up."""
        self._closing.set()
        self._thread.join(2)
        self._wake_in.close()
        self._wake_out.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            with suppress(OSError, ValueError):
                self._connection()
            self._closing.wait(_RETRY_S)

    def _connection(self) -> None:
        with socket.create_connection(self._address, timeout=5) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.sendall(to_line(self._hello))
            self._said_seq, self._beat_us, self._sent = 0, 0, dict(self._kept)
            reader = LineReader()
            while not self._closing.is_set():
                self._send_all(link)
                ready, _, _ = select.select([link, self._wake_out], [], [], _TICK_S)
                if self._wake_out in ready:
                    self._wake_out.recv(_READ_BYTES)
                if link in ready and not self._read(link, reader):
                    return

    def _read(self, link: socket.socket, reader: LineReader) -> bool:
        data = link.recv(_READ_BYTES)
        for line in reader.feed(data):
            self._take(from_agent(line))
        return bool(data)

    def _take(self, message: FromAgent) -> None:
        match message:
            case Ack(seq=seq):
                with self._lock:
                    while self._news and self._news[0].seq <= seq:
                        self._news.popleft()
            case Kept(rank=rank, length=length):
                self._kept[rank] = max(length, self._kept.get(rank, 0))
                self._sent[rank] = max(length, self._sent.get(rank, 0))
            case _:
                self._heard(message)

    def _send_all(self, link: socket.socket) -> None:
        with self._lock:
            unsaid = [news for news in self._news if news.seq > self._said_seq]
            spools = dict(self._spools)
        for news in unsaid:
            link.sendall(to_line(news))
            self._said_seq = news.seq
        for rank, path in spools.items():
            self._send_output(link, rank, path)
        if monotonic_us() - self._beat_us >= _BEAT_US:
            link.sendall(to_line(Beat()))
            self._beat_us = monotonic_us()

    def _send_output(self, link: socket.socket, rank: int, path: Path) -> None:
        sent = self._sent.get(rank, 0)
        if sent - self._kept.get(rank, 0) >= _WINDOW or _size(path) <= sent:
            return
        with path.open("rb") as stream:
            stream.seek(sent)
            data = stream.read(_CHUNK)
        text = base64.b64encode(data).decode()
        link.sendall(to_line(Output(rank=rank, offset=sent, data=text)))
        self._sent[rank] = sent + len(data)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
