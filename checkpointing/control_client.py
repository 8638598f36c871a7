"""The child's end of the control socket: never blocks training, never breaks it.

One daemon thread connects, sends what is queued and reads what comes. If the worker is gone it
tries again quietly; progress is dropped meanwhile, and the messages that matter wait in a bounded
queue.
"""

from __future__ import annotations

import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from checkpointing.clock import monotonic_us, now_us, pause, process_started_us
from checkpointing.control import (
    ControlError,
    Drain,
    Hello,
    Hurry,
    Message,
    Opened,
    SetCadence,
    Step,
    decode,
    encode,
)
from checkpointing.environment import Environment
from checkpointing.hazard_posterior import Risk

_QUEUE_LIMIT: Final = 1000
_RETRY_S: Final = 0.2
_IDLE_S: Final = 0.5
_READ_BYTES: Final = 65536


def opened(environment: Environment) -> Opened:
    """Say that this process's imports are done, and when it began."""
    adopted_us = environment.adopted_us
    return Opened(
        at_us=now_us(),
        process_us=adopted_us or process_started_us(),
        standby=int(adopted_us > 0),
    )


class Control(Protocol):
    """What a session needs to tell and to be told."""

    def send(self, message: Message) -> None:
        """Queue a message; returns at once, always."""

    @property
    def drain_deadline_us(self) -> int | None:
        """Instant by which this process must have left, once it was asked to."""

    @property
    def interval_ms(self) -> int | None:
        """Interval between saves that the worker asked for, if it did."""

    @property
    def risk(self) -> Risk | None:
        """What the scheduler knows of this attempt's evictions and price, once it told."""

    @property
    def hurries(self) -> int:
        """How often the worker warned that an eviction is near."""

    def close(self, *, flush_s: float) -> None:
        """Send what is queued, for at most `flush_s`, and hang up."""


class SilentControl:
    """Nobody listens: outside Lowtide."""

    drain_deadline_us: int | None = None
    interval_ms: int | None = None
    risk: Risk | None = None
    hurries: int = 0

    def send(self, message: Message) -> None:
        """Drop it."""

    def close(self, *, flush_s: float) -> None:
        """Nothing to close."""


class ControlClient:
    """Speaks to the worker whose socket is at `path`."""

    def __init__(self, path: str, *, hello: Hello) -> None:
        """Start the thread; the worker need not be there yet."""
        self.drain_deadline_us: int | None = None
        self.interval_ms: int | None = None
        self.risk: Risk | None = None
        self.hurries = 0
        self._path = path
        self._hello = hello
        self._queue: deque[Message] = deque(maxlen=_QUEUE_LIMIT)
        self._lock = threading.Lock()
        self._connected = False
        self._closing = threading.Event()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.settimeout(0)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, message: Message) -> None:
        """Queue `message`; progress is dropped while nobody listens."""
        if isinstance(message, Step) and not self._connected:
            return
        with self._lock:
            self._queue.append(message)
        self._wake()

    def close(self, *, flush_s: float) -> None:
        """Wait until the queue is sent, at most `flush_s`, and end the thread."""
        until_us = monotonic_us() + int(flush_s * 1_000_000)
        while self._queue and monotonic_us() < until_us:
            pause(0.005)
        self._closing.set()
        self._wake()
        self._thread.join(max(flush_s, _IDLE_S))
        self._wake_in.close()
        self._wake_out.close()

    def _wake(self) -> None:
        with suppress(BlockingIOError, OSError):  # full: it is being woken; closed: it is over
            self._wake_in.send(b"!")

    def _serve(self) -> None:
        while not self._closing.is_set():
            with suppress(OSError):
                self._connection()
            self._connected = False
            self._closing.wait(_RETRY_S)

    def _connection(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.connect(self._path)
            link.sendall(encode(self._hello))
            self._connected = True
            reader = _Lines(self._take)
            while not self._closing.is_set():
                self._send_queued(link)
                ready = _readable(link, self._wake_out, timeout_s=_IDLE_S)
                if self._wake_out in ready:
                    self._wake_out.recv(_READ_BYTES)
                if link in ready and not reader.feed(link.recv(_READ_BYTES)):
                    return

    def _send_queued(self, link: socket.socket) -> None:
        while self._queue:
            # Peek first: what a broken connection refused is sent on the next one.
            message = self._queue[0]
            link.sendall(encode(message))
            with self._lock:
                if self._queue and self._queue[0] is message:  # a full queue drops its oldest
                    self._queue.popleft()

    def _take(self, line: bytes) -> None:
        try:
            message = decode(line)
        except ControlError:
            return  # a newer worker may say things that we do not know
        if isinstance(message, Drain):
            self.drain_deadline_us = message.deadline_us
        elif isinstance(message, SetCadence):
            self.interval_ms = message.interval_ms
        elif isinstance(message, Risk):
            self.risk = message
        elif isinstance(message, Hurry):
            self.hurries += 1


def _readable(*links: socket.socket, timeout_s: float) -> list[socket.socket]:
    # Not select(): a training may well have more than the 1,024 descriptors that it can tell.
    poll = select.poll()
    for link in links:
        poll.register(link, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll(timeout_s * 1000)}
    return [link for link in links if link.fileno() in ready]


class _Lines:
    """Cuts a stream of bytes into lines."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> bool:
        """Hand on complete lines; return False at the end of the stream."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        return bool(data)
