"""The one way in: adapters post notices here, the next tick drains them."""

from __future__ import annotations

import threading
from collections import deque

from cluster.notices import Notice


class Inbox:
    """A thread-safe queue of notices with a wake-up for the loop."""

    def __init__(self) -> None:
        """Start empty."""
        self._notices: deque[Notice] = deque()
        self._wake = threading.Event()

    def post(self, notice: Notice) -> None:
        """Add a notice and wake the loop. Safe from any thread."""
        self._notices.append(notice)
        self._wake.set()

    def wake(self) -> None:
        """Wake the loop without a notice (a command waits, or the loop should end)."""
        self._wake.set()

    def drain(self) -> list[Notice]:
        """Take all notices in the order in which they came."""
        taken = []
        while self._notices:
            taken.append(self._notices.popleft())
        return taken

    def wait(self, timeout_s: float) -> None:
        """Block until something is posted or the time is over.

        The wake-up is forgotten here and not when the inbox is drained: what comes in while a
        tick is under way, also after its drain, wakes the next ``wait``.
        """
        self._wake.wait(timeout_s)
        self._wake.clear()
