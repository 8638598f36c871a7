"""The one home of clocks in the processes beside a cluster."""

from __future__ import annotations

import time


def now_us() -> int:
    """Give the wall clock in microseconds since the epoch, UTC."""
    return time.time_ns() // 1_000


def monotonic_us() -> int:
    """Give a clock that never goes back, in microseconds; only differences mean something."""
    return time.monotonic_ns() // 1_000
