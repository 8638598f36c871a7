"""How long a request to S3 may take, and how often it is tried again.

The numbers are constants and not settings: whoever tunes them in an outage makes it worse.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from checkpointing.clock import monotonic_us, pause

_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits of one operation and of the requests that it is tried with."""

    connect_s: float = 5.0
    """For TCP and TLS: three lost SYNs, at 1 and 3 s, are survived."""
    stall_s: float = 30.0
    """Without a byte of progress the connection counts as dead; S3 answers within seconds."""
    slowest_bytes_per_s: int = 2**19
    """A request slower than this on average is given up: 32 MiB get 30 s + 64 s."""
    attempts: int = 8
    """Requests of one operation, the first included: 13 s of waiting at the most, 25 s at 10."""
    damaged_attempts: int = 3
    """The same where the body arrived damaged: twice is chance, three times is our own memory."""
    total_s: float = 180.0
    """For an operation, beside what its bytes take. A longer outage costs a save, no more."""
    first_wait_s: float = 0.2
    longest_wait_s: float = 10.0

    def request_s(self, length_bytes: int) -> float:
        """Return what one request may take that moves `length_bytes`, seconds."""
        return self.stall_s + length_bytes / self.slowest_bytes_per_s

    def wait_s(self, failed: int) -> float:
        """Return the wait after the `failed`-th failure, seconds: exponential, full jitter.

        Drawn from the whole of [0, limit), so that the ranks of a gang that fail together do not
        come back together (M. Brooker, "Exponential Backoff and Jitter", AWS, 2015).
        """
        limit_s = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (failed - 1))
        return random.uniform(0.0, limit_s)


IMPATIENT = Patience(attempts=3, total_s=30.0)
"""For opening a store: somebody waits, and a wrong address does not get better."""


class Timer:
    """The deadline of one request."""

    def __init__(self, limit_s: float, *, stall_s: float) -> None:
        """Start now."""
        self._end_us = monotonic_us() + int(limit_s * _US)
        self._stall_s = stall_s

    def left_s(self) -> float:
        """Return how long the next step may take, seconds; raise `TimeoutError` at the end."""
        left_s = (self._end_us - monotonic_us()) / _US
        if left_s <= 0:
            raise TimeoutError("the request took longer than it may")
        return min(left_s, self._stall_s)


class Tries:
    """The tries of one operation."""

    def __init__(self, patience: Patience, *, length_bytes: int = 0) -> None:
        """Begin the first try now, of an operation that moves `length_bytes`."""
        total_s = patience.total_s + length_bytes / patience.slowest_bytes_per_s
        self._patience = patience
        self._length_bytes = length_bytes
        self._end_us = monotonic_us() + int(total_s * _US)
        self.failed = 0
        """How many tries may or may not have taken effect."""

    def timer(self) -> Timer:
        """Return the deadline of a request that begins now.

        Where nobody knows how much it moves, it is the operation's.
        """
        left_s = (self._end_us - monotonic_us()) / _US
        request_s = self._patience.request_s(self._length_bytes)
        limit_s = min(request_s, left_s) if self._length_bytes else left_s
        return Timer(limit_s, stall_s=self._patience.stall_s)

    def again(self, *, damaged: bool = False) -> bool:
        """Count a failure; wait and return True, or return False when it is time to give up."""
        self.failed += 1
        wait_s = self._patience.wait_s(self.failed)
        late = monotonic_us() + int(wait_s * _US) >= self._end_us
        most = self._patience.damaged_attempts if damaged else self._patience.attempts
        if late or self.failed >= most:
            return False
        pause(wait_s)
        return True
