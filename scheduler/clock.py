"""The one home of time. Everything else is given a Clock, or an instant."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time in integer microseconds since 1970 UTC."""

    def now_us(self) -> int:
        """Give the present instant."""


class SystemClock:
    """The machine's clock, made monotonic: it never runs backwards within a process."""

    def __init__(self) -> None:
        """Start at the present."""
        self._last_us = 0

    def now_us(self) -> int:
        """Give the present instant, never before the last one given."""
        self._last_us = max(self._last_us, time.time_ns() // 1_000)
        return self._last_us


class ManualClock:
    """A clock that is set by hand: the simulator's and the tests'."""

    def __init__(self, now_us: int = 0) -> None:
        """Start at ``now_us``."""
        self._now_us = now_us

    def now_us(self) -> int:
        """Give the instant that was set."""
        return self._now_us

    def advance_to(self, at_us: int) -> None:
        """Move forward; moving backwards is ignored."""
        self._now_us = max(self._now_us, at_us)
