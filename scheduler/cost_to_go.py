"""What the rest of a job costs in expectation, by dynamic programming over time and work left.

The world of the model: spot is up or down, with a hazard that falls with the age of the spell
(``scheduler.survival``); sure capacity is always there at ``ratio`` times the price of spot; each
launch pays a changeover. In each slot a job waits, launches or trains on one of the two, and may
leave sure capacity for spot. The deadline is hard, so the value of progress rises by itself as the
slack shrinks. Money is in units of one slot on spot.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.survival import Spell, expected_changes

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

AGES_H = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 4.0, 6.0, 10.0, 16.0)
"""Lower edges of the age classes of a spell, hours; the last class is open."""
_AGES = len(AGES_H)
_NEVER = 1e12  # the cost of a missed deadline, in slots on spot
_LEAVES = 4  # a bit beside the action
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
    changeover: float  # in slots
    ratio: float  # price of sure capacity / price of spot


@dataclass(frozen=True, slots=True)
class Table:
    """The best actions, by [slots left, state of spot, spare slots among them].

    The low bits hold the action when nothing runs; ``_LEAVES`` is set where spot pays for leaving
    sure capacity.
    """

    best: Bytes

    def act(self, *, left: int, spare: int, spell: Spell) -> Action:
        """Give what to do when nothing runs."""
        return Action(int(self.best[self._at(left, spare, spell)]) & ~_LEAVES)

    def leave(self, *, left: int, spare: int, spell: Spell) -> bool:
        """Whether to leave sure capacity for spot."""
        return bool(self.best[self._at(left, spare, spell)] & _LEAVES)

    def acts(self, at: tuple[Ints, Ints, Ints]) -> Bytes:
        """Give what to do at several places when nothing runs."""
        found: Bytes = self.best[at] & ~np.uint8(_LEAVES)
        return found

    def leave_at(self, at: tuple[Ints, Ints, Ints]) -> NDArray[np.bool_]:
        """Give at which of several places to leave sure capacity."""
        return (self.best[at] & np.uint8(_LEAVES)) > 0

    def _at(self, left: int, spare: int, spell: Spell) -> tuple[int, int, int]:
        slots, _, spares = self.best.shape
        return min(left, slots - 1), state(spell), min(spare, spares - 1)


def state(spell: Spell) -> int:
    """Give the index of a spell's state: up by age, then down by age."""
    return max(0, bisect_right(AGES_H, spell.age_h) - 1) + (0 if spell.up else _AGES)


def states(ages_h: NDArray[np.floating[Any]], *, up: bool) -> NDArray[np.int64]:
    """Give the indices of a spell's state at several ages."""
    found = np.searchsorted(AGES_H, ages_h, side="right") - 1
    return np.maximum(0, found) + (0 if up else _AGES)


def chain(terms: Terms) -> tuple[Floats, Floats]:
    """Give the transition matrix over a slot, and that of up-time without a break in it."""
    rates = np.zeros((2 * _AGES, 2 * _AGES))
    for age, low in enumerate(AGES_H):
        last = age == _AGES - 1
        high = 2 * low if last else AGES_H[age + 1]
        usual = expected_changes(low, high) / (high - low)
        for base, other, factor in (
            (0, _AGES, terms.up_factor),
            (_AGES, 0, terms.down_factor),
        ):
            rates[base + age, other] = usual * factor
            if not last:
                rates[base + age, base + age + 1] = 1 / (high - low)
    rates -= np.diag(rates.sum(axis=1))
    step = np.eye(2 * _AGES) + rates * (terms.slot_h / 2**_FINE)
    whole: Floats = np.linalg.matrix_power(step, 2**_FINE)
    unbroken: Floats = np.linalg.matrix_power(step[:_AGES, :_AGES], 2**_FINE)
    return whole, unbroken


@lru_cache(maxsize=128)
def solve(terms: Terms, *, slots: int, slack: int) -> Table:
    """Solve backwards from the deadline, for up to so many slots left, of which so many spare.

    Vectors run over the spare slots k; with t slots left, t - k of work remain.
    """
    model = _Model(terms, slack=slack)
    best = np.zeros((slots + 1, 2 * _AGES, slack + 1), dtype=np.uint8)
    for left in range(1, slots + 1):
        options, stay = model.step(left)
        best[left] = _cheapest(options)
        pays = options[Action.SPOT, :_AGES] < stay[:_AGES]
        best[left, :_AGES] += pays.astype(np.uint8) * np.uint8(_LEAVES)
    return Table(best)


def _cheapest(options: Floats) -> Bytes:
    """Give the first of the cheapest actions; a general argmin takes twice as long."""
    wait, spot, sure = options
    found: Bytes = (spot < wait).astype(np.uint8)
    found[sure < np.minimum(wait, spot)] = Action.SURE
    return found


class _Model:
    """The costs to go of the last slots on the way backwards."""

    def __init__(self, terms: Terms, *, slack: int) -> None:
        self._terms = terms
        self._whole, self._unbroken = chain(terms)
        self._dies = 1 - self._unbroken.sum(axis=1, keepdims=True)
        self._launch = max(1, math.ceil(terms.changeover))  # slots that a launch takes
        self._part = self._launch - terms.changeover  # of a slot that trains in them
        self._boot = np.linalg.matrix_power(self._whole, self._launch)
        never = np.full((2 * _AGES, slack + 1), _NEVER)
        never[:, 0] = 0.0
        self._idle = never
        self._sure = [never] * self._launch
        # by slots until it trains; what does not train yet needs spare slots to do so
        self._spot = [never[:_AGES]] * (self._launch + 1)

    def step(self, left: int) -> tuple[Floats, Floats]:
        """Go back by one slot; give the costs of each action and of staying on sure capacity."""
        ratio, over = self._terms.ratio, slice(left, None)  # no work is left from there on
        spot = self._on_spot()
        options = np.full((3, *self._idle.shape), _NEVER)
        options[Action.WAIT] = _later(self._whole @ self._idle, 1)
        options[Action.SPOT, :_AGES] = spot[-1]
        options[Action.SURE] = self._launch * ratio + self._shifted(
            self._boot @ self._sure[-1], self._launch
        )
        options[:, :, over] = 0.0
        stay = ratio + self._whole @ self._sure[0]
        stay[:, over] = 0.0
        self._idle = options.min(axis=0)
        self._sure = [np.minimum(stay, self._idle), *self._sure[:-1]]
        spot[0] = np.minimum(spot[0], self._idle[:_AGES])
        for costs in spot:
            costs[:, over] = 0.0
        self._spot = spot
        return options, stay

    def _on_spot(self) -> list[Floats]:
        """Spend a slot on spot, by slots until it trains: it lives on, or the job waits anew."""
        lost = self._dies * self._idle[_AGES]
        lives = [self._unbroken @ self._spot[0]]
        lives += [self._unbroken @ costs for costs in self._spot[:-1]]
        found = [1 + lives[0] + lost]
        for until, costs in enumerate(lives[1:], start=1):
            goes_on = self._shifted(costs, 1) if until == 1 else _later(costs, 1)
            found.append(1 + goes_on + _later(lost, 1))
        return found

    def _shifted(self, costs: Floats, slots: int) -> Floats:
        """Spend the end of a launch: between the neighbouring amounts of work done in its slots."""
        whole = _later(costs, slots)
        if not self._part:
            return whole
        return (1 - self._part) * whole + self._part * _later(costs, slots - 1)


def _later(costs: Floats, slots: int) -> Floats:
    """Spend spare slots."""
    if not slots:
        return costs
    shifted = np.full_like(costs, _NEVER)
    shifted[:, slots:] = costs[:, :-slots]
    return shifted
