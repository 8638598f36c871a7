"""What the rest of a job costs in expectation, by dynamic programming over time and work left.

The world of the model: spot is up or down, with a hazard that falls with the age of the spell
(``scheduler.survival``); sure capacity is always there at ``ratio`` times the price of spot; each
launch pays a changeover. In each slot a job waits, launches or trains on one of the two, and may
leave sure capacity for spot. The deadline is hard, so the value of progress rises by itself as the
slack shrinks. Money is in units of one slot on spot.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from scheduler.survival import Spell, hazard

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

AGES_H = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Lower edges of the age classes of a spell, hours; the last class is open."""
_AGES = len(AGES_H)
_NEVER = 1e12  # the cost of a missed deadline, in slots on spot
_FINE = 10  # a slot is cut into 2 ** _FINE steps to integrate the chain


class Action(IntEnum):
    """What to do in a slot."""

    WAIT = 0
    SPOT = 1
    SURE = 2


@dataclass(frozen=True, slots=True)
class Terms:
    """What a table rests on; equal terms share one table."""

    slot_h: float
    up_factor: float
    down_factor: float
    changeover: float  # as a share of a slot, 0..1
    ratio: float  # price of sure capacity / price of spot


@dataclass(frozen=True, slots=True)
class Table:
    """The best actions, by [slots left, state of spot, slots of work left]."""

    idle: Bytes  # nothing runs
    leaves: NDArray[np.bool_]  # trains on sure capacity: whether spot pays for the move

    def act(self, *, left: int, work: int, spell: Spell) -> Action:
        """Give what to do when nothing runs."""
        return Action(int(self.idle[self._at(left, work, spell)]))

    def leave(self, *, left: int, work: int, spell: Spell) -> bool:
        """Whether to leave sure capacity for spot."""
        return bool(self.leaves[self._at(left, work, spell)])

    def _at(self, left: int, work: int, spell: Spell) -> tuple[int, int, int]:
        slots, _, works = self.idle.shape
        return min(left, slots - 1), state(spell), min(work, works - 1)


def state(spell: Spell) -> int:
    """Give the index of a spell's state: up by age, then down by age."""
    age = int(np.searchsorted(AGES_H, spell.age_h, side="right")) - 1
    return max(0, age) + (0 if spell.up else _AGES)


def chain(terms: Terms) -> tuple[Floats, Floats]:
    """Give the transition matrix over a slot, and that of up-time without a break in it."""
    rates = np.zeros((2 * _AGES, 2 * _AGES))
    for age, low in enumerate(AGES_H):
        last = age == _AGES - 1
        middle = 1.5 * low if last else (low + AGES_H[age + 1]) / 2
        for base, other, factor in (
            (0, _AGES, terms.up_factor),
            (_AGES, 0, terms.down_factor),
        ):
            rates[base + age, other] = hazard(middle) * factor
            if not last:
                rates[base + age, base + age + 1] = 1 / (AGES_H[age + 1] - low)
    rates -= np.diag(rates.sum(axis=1))
    step = np.eye(2 * _AGES) + rates * (terms.slot_h / 2**_FINE)
    whole: Floats = np.linalg.matrix_power(step, 2**_FINE)
    unbroken: Floats = np.linalg.matrix_power(step[:_AGES, :_AGES], 2**_FINE)
    return whole, unbroken


@lru_cache(maxsize=64)
def solve(terms: Terms, *, slots: int, work: int) -> Table:
    """Solve backwards from the deadline, for up to so many slots left and slots of work left."""
    whole, unbroken = chain(terms)
    dies = 1 - unbroken.sum(axis=1, keepdims=True)
    idle = np.full((2 * _AGES, work + 1), _NEVER)
    idle[:, 0] = 0.0
    sure, spot = idle.copy(), idle[:_AGES].copy()
    table = Table(
        np.zeros((slots + 1, 2 * _AGES, work + 1), dtype=np.uint8),
        np.zeros((slots + 1, 2 * _AGES, work + 1), dtype=np.bool_),
    )
    for left in range(1, slots + 1):
        on_sure, on_spot = whole @ sure, unbroken @ spot + dies * idle[_AGES]
        options = np.full((3, 2 * _AGES, work + 1), _NEVER)
        options[Action.WAIT] = whole @ idle
        options[Action.SPOT, :_AGES] = 1 + _launched(on_spot, terms.changeover)
        options[Action.SURE] = terms.ratio + _launched(on_sure, terms.changeover)
        options[:, :, 0] = 0.0
        stay = terms.ratio + _done(on_sure)
        stay[:, 0] = 0.0
        idle = options.min(axis=0)
        table.idle[left] = options.argmin(axis=0)
        table.leaves[left, :_AGES] = options[Action.SPOT, :_AGES] < stay[:_AGES]
        sure = np.minimum(stay, idle)
        spot = np.minimum(1 + _done(on_spot), idle[:_AGES])
        spot[:, 0] = 0.0
    return table


def _done(costs: Floats) -> Floats:
    """Shift by one slot of work."""
    shifted = np.empty_like(costs)
    shifted[:, 1:], shifted[:, 0] = costs[:, :-1], 0.0
    return shifted


def _launched(costs: Floats, changeover: float) -> Floats:
    """Work of a slot whose first part is a changeover, between the neighbouring amounts."""
    return changeover * costs + (1 - changeover) * _done(costs)
