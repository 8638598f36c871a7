"""The cheapest set of stretches for one job on a known tariff, by dynamic programming.

The world of the model: a price for each slot of time, work that must be done before the last slot
ends, and a changeover (boot, set-up, restore, the save before it) that each launch pays for in
money and in time. In each slot the job waits, launches or trains on. Solved backwards, exactly on
the slots; a changeover may be a fraction of one, then the work of the neighbouring slots is
interpolated. Floats: these are estimates and decide no deadline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEVER = 1e30
"""The cost of what cannot be finished in time."""
_IMPOSSIBLE = 1e24  # a mixture with ``NEVER`` in it


@dataclass(frozen=True, slots=True)
class Terms:
    """What the answer rests on; equal terms share one answer.

    ``prices`` is the cost of each slot; ``work`` whole slots of training are left. The next launch
    takes ``first`` slots (the broken slot of work is counted there), every later one ``again``.
    """

    prices: tuple[float, ...]
    work: int
    first: float
    again: float


@dataclass(frozen=True, slots=True)
class Course:
    """What the rest costs when, at each slot, the job first waits, launches or trains on.

    The work left is ``Terms.work`` at each of them; what cannot be finished costs ``NEVER``.
    """

    wait: Floats
    launch: Floats
    stay: Floats

    def resumes(self, slot: int) -> int | None:
        """Give the first slot from that one on at which launching is best, None when never."""
        good = (self.launch[slot:] <= self.wait[slot:]) & (self.launch[slot:] < _IMPOSSIBLE)
        found = np.flatnonzero(good)
        return slot + int(found[0]) if len(found) else None


@lru_cache(maxsize=4_096)
def solve(terms: Terms) -> Course:
    """Solve backwards from the end of the last slot; vectors run over the work that remains."""
    slots, model = len(terms.prices), _Model(terms)
    course = Course(*(np.full(slots, NEVER) for _ in range(3)))
    for slot in range(slots - 1, -1, -1):
        course.wait[slot], course.launch[slot], course.stay[slot] = model.back(slot)
    return course


class _Model:
    """The costs to go of the next slots on the way backwards."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._sums = np.concatenate([[0.0], np.cumsum(terms.prices)])
        self._off = np.full(terms.work + 1, NEVER)
        self._off[0] = 0.0
        depth = max(_slots(terms.first), _slots(terms.again))
        self._on = [self._off] * depth

    def back(self, slot: int) -> tuple[float, float, float]:
        """Go back by one slot; give the costs of waiting, launching and staying with all work."""
        waits = self._off
        launch = self._launched(slot, self._terms.again)
        if self._terms.first != self._terms.again:
            launch[-1] = self._launched(slot, self._terms.first)[-1]
        stay = np.empty_like(waits)
        stay[0] = 0.0
        stay[1:] = self._on[0][:-1] + self._terms.prices[slot]
        self._off = np.minimum(waits, launch)
        self._on = [np.minimum(stay, self._off), *self._on[:-1]]
        return float(waits[-1]), float(launch[-1]), float(stay[-1])

    def _launched(self, slot: int, changeover: float) -> Floats:
        """Give the costs of a launch: whole slots, of which the last one trains in part."""
        takes = _slots(changeover)
        if slot + takes > len(self._terms.prices):
            never = np.full_like(self._off, NEVER)
            never[0] = 0.0
            return never
        later, part = self._on[takes - 1], takes - changeover
        launched = later.copy()
        launched[1:] = (1 - part) * later[1:] + part * later[:-1]
        launched[1:] += self._sums[slot + takes] - self._sums[slot]
        return launched


def _slots(changeover: float) -> int:
    return max(1, math.ceil(changeover))


def cheapest_hours(steps: Iterable[tuple[int, int]], need_us: int) -> tuple[int, int]:
    """Give the least sum of price x time for that much time, and the dearest price in it.

    Args:
        steps: (length in us, price) of each step in which time may be bought.
        need_us: how much; what the steps do not hold is left out.

    It pays for no changeover, so no plan can cost less.
    """
    total, dearest = 0, 0
    for length_us, price in sorted(steps, key=lambda step: step[1]):
        if need_us <= 0:
            break
        taken_us = min(length_us, need_us)
        total, dearest, need_us = total + taken_us * price, price, need_us - taken_us
    return total, dearest
