"""The one home of clocks in this package."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final

_STAT: Final = Path("/proc/self/stat")
_START_FIELD: Final = 19  # of those behind the process's name (proc(5): field 22)


def now_us() -> int:
    """Return the wall clock in microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


def monotonic_us() -> int:
    """Return a clock that never goes back, in microseconds; only differences mean something."""
    return time.monotonic_ns() // 1000


def process_started_us() -> int:
    """Return when this process was started, to 10 ms, as `now_us` counts; now where unknown."""
    if not _STAT.exists():
        return now_us()
    ticks = int(_STAT.read_bytes().rpartition(b")")[2].split()[_START_FIELD])
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return now_us() - int(age_s * 1_000_000)


def pause(seconds: float) -> None:
    """Sleep; only for polling loops that have a limit of their own."""
    threading.Event().wait(seconds)
