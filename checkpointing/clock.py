"""The one home of clocks in this package."""

from __future__ import annotations

import threading
import time


def now_us() -> int:
    """Return the wall clock in microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


def monotonic_us() -> int:
    """Return a clock that never goes back, in microseconds; only differences mean something."""
    return time.monotonic_ns() // 1000


def pause(seconds: float) -> None:
    """Sleep; only for polling loops that have a limit of their own."""
    threading.Event().wait(seconds)
