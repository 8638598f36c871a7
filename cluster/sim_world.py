"""The simulated world's ground: an agenda of events in virtual time and the way news leave it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from cluster.inbox import Inbox
from cluster.notices import Notice

Action = Callable[[int], None]
N = TypeVar("N", bound=Notice)


class Agenda:
    """Events ordered by (time, sequence): equal times keep the order in which they were set."""

    def __init__(self) -> None:
        """Start empty."""
        self._heap: list[tuple[int, int, Action]] = []
        self._sequence = 0

    def at(self, at_us: int, action: Action) -> None:
        """Do ``action(at_us)`` then."""
        self._sequence += 1
        heapq.heappush(self._heap, (at_us, self._sequence, action))

    @property
    def next_us(self) -> int | None:
        """When the next event is due, None when nothing is."""
        return self._heap[0][0] if self._heap else None

    def run_until(self, at_us: int) -> None:
        """Do everything that is due up to ``at_us``, what follows from it included."""
        while self._heap and self._heap[0][0] <= at_us:
            due_us, _, action = heapq.heappop(self._heap)
            action(due_us)


class Outbox:
    """Posts notices with ids of their own and keeps them until they are acknowledged."""

    def __init__(self, inbox: Inbox) -> None:
        """Post into ``inbox``."""
        self.inbox = inbox
        self._count = 0
        self._unacknowledged: list[Notice] = []

    def post(self, notice: Notice) -> None:
        """Give the notice an id and post it."""
        self._count += 1
        numbered = replace(notice, id=f"sim-{self._count:08d}")
        self._unacknowledged.append(numbered)
        self.inbox.post(numbered)

    def acknowledge(self) -> None:
        """Forget what was posted: the tick that drained it is committed."""
        self._unacknowledged.clear()

    def resend(self) -> None:
        """Post everything again that was never acknowledged, as an agent would."""
        for notice in self._unacknowledged:
            self.inbox.post(notice)
