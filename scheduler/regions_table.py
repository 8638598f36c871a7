"""What the rest of a job costs with two tiers of spot and sure capacity behind them.

The cheaper places are one tier, the dearer ones the other. Each tier is up or down, with a hazard
that falls with the age of the spell (``scheduler.survival``). In each slot a job waits, launches or
trains in one of the tiers or on sure capacity; a launch pays a changeover, and egress where the
restore point lies in the other tier. A place that dies may leave the rest of its tier up. The
deadline is hard. Money is in slots of the cheaper tier's price. Floats: estimates that order
choices; no deadline rests on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from scheduler.survival import hazard

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

AGES_H = (0.0, 0.5, 1.5, 4.0, 12.0)
"""Lower edges of the age classes of a spell, hours; the last class is open."""
_N = len(AGES_H)
_YOUNG, _OLDER = 0, 1  # the class of a spell that just began, and of another place that stayed up
_NEVER = 1e9  # the cost of a missed deadline
_FINE = 10  # a slot is cut into 2 ** _FINE steps to integrate the chain


class Act(IntEnum):
    """What to do in a slot."""

    WAIT = 0
    CHEAP = 1
    DEAR = 2
    SURE = 3


@dataclass(frozen=True, slots=True)
class Tier:
    """Places of about one price."""

    price: float  # per slot, in units of the cheaper tier's
    up_factor: float  # of the hazard that the last of them goes
    down_factor: float  # of the hazard that the first of them comes back
    own_factor: float  # of the hazard of the place that trains
    again: float  # chance that another one of them is up when that place dies


@dataclass(frozen=True, slots=True)
class Terms:
    """What a table rests on; equal terms share one table."""

    slot_h: float
    changeover: float  # in slots
    cheap: Tier
    dear: Tier
    sure: float  # price per slot
    egress: float  # of a move between the tiers


@dataclass(frozen=True, slots=True)
class Table:
    """The best acts, by [home, slots left, state of cheap, state of dear, spare slots]."""

    idle: Bytes  # nothing runs; home 0 = the restore point lies in the cheaper tier
    sure: Bytes  # trains on sure capacity; SURE = stay
    dear: Bytes  # trains in the dearer tier, which is up; DEAR = stay; without the home
    slack: NDArray[np.float32]  # what one spare slot less costs when nothing runs; without the home


def state(age_h: float, *, up: bool) -> int:
    """Give the index of a tier's state: up by age, then down by age."""
    found = int(np.searchsorted(AGES_H, age_h, side="right")) - 1
    return max(0, found) + (0 if up else _N)


@lru_cache(maxsize=64)
def solve(terms: Terms, *, slots: int, slack: int) -> Table:
    """Solve backwards from the deadline, for up to so many slots left, of which so many spare."""
    model = _Model(terms, spares=slack + 1)
    shape = (slots + 1, 2 * _N, 2 * _N, 2, slack + 1)
    idle, sure = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    dear = np.zeros((slots + 1, 2 * _N, _N, slack + 1), np.uint8)
    worth = np.zeros((slots + 1, 2 * _N, 2 * _N, slack + 1), np.float32)
    for left in range(1, slots + 1):
        options, best, stays = model.step(left)
        acts = _first(options, best)
        idle[left] = acts
        sure[left] = np.where(best < stays.sure, acts, Act.SURE)
        dear[left] = np.where(best[:, :_N, 1] < stays.dear, acts[:, :_N, 1], Act.DEAR)
        worth[left, :, :, 1:] = best[:, :, 0, :-1] - best[:, :, 0, 1:]
    return Table(idle=np.moveaxis(idle, 3, 0), sure=np.moveaxis(sure, 3, 0), dear=dear, slack=worth)


def _first(options: Floats, best: Floats) -> Bytes:
    """Give the first act that costs least: as argmin, which is slow along the first axis."""
    acts = np.full(best.shape, len(Act) - 1, np.uint8)
    for act in reversed(range(len(Act) - 1)):
        acts[options[act] == best] = act
    return acts


def chain(slot_h: float, *, up_factor: float, down_factor: float) -> tuple[Floats, Floats]:
    """Give the transition matrix over a slot, and that of up-time without a break in it."""
    rates = np.zeros((2 * _N, 2 * _N))
    for age, low in enumerate(AGES_H):
        last = age == _N - 1
        middle = 1.5 * low if last else (low + AGES_H[age + 1]) / 2
        for base, other, factor in ((0, _N, up_factor), (_N, 0, down_factor)):
            rates[base + age, other] = hazard(middle) * factor
            if not last:
                rates[base + age, base + age + 1] = 1 / (AGES_H[age + 1] - low)
    rates -= np.diag(rates.sum(axis=1))
    step = np.eye(2 * _N) + rates * (slot_h / 2**_FINE)
    whole: Floats = np.linalg.matrix_power(step, 2**_FINE)
    unbroken: Floats = np.linalg.matrix_power(step[:_N, :_N], 2**_FINE)
    return whole, unbroken


@dataclass(frozen=True, slots=True)
class _Stays:
    """The costs to go of staying where the job trains."""

    cheap: Floats
    dear: Floats
    sure: Floats  # with the axis of homes


class _Model:
    """The costs to go of the last slots on the way backwards.

    Axes: cheap, dear, home where it matters, spare slots. Who trains in a tier has its home there.
    """

    def __init__(self, terms: Terms, *, spares: int) -> None:
        self._terms = terms
        self._launch = max(1, math.ceil(terms.changeover - 1e-9))  # slots that a launch takes
        self._part = self._launch - terms.changeover  # of a slot that trains in them
        self._cheap, self._dear = (_Chains(tier, terms, self._launch) for tier in _tiers(terms))
        never = np.full((2 * _N, 2 * _N, 2, spares), _NEVER)
        never[..., 0] = 0.0
        self._idle = [never] * self._launch
        self._ring = [_Stays(never[:_N, :, 0], never[:, :_N, 1], never)] * self._launch
        self._egress = terms.egress * np.array([[0.0], [1.0]])  # to the cheaper tier, by home

    def step(self, left: int) -> tuple[Floats, Floats, _Stays]:
        """Go back by one slot; give the costs of each act, the least of them, and of staying."""
        options = self._options(left)
        idle: Floats = options.min(axis=0)
        stays = self._stay(left)
        best = _Stays(
            np.minimum(stays.cheap, idle[:_N, :, 0]),
            np.minimum(stays.dear, idle[:, :_N, 1]),
            np.minimum(stays.sure, idle),
        )
        self._idle = [idle, *self._idle[:-1]]
        self._ring = [best, *self._ring[:-1]]
        return options, idle, stays

    def _options(self, left: int) -> Floats:
        """Give the costs of the four acts when nothing runs."""
        later, idle, many, terms = self._ring[-1], self._idle[-1], self._launch, self._terms
        one, other = self._cheap.boot, self._dear.boot
        cheap = self._launched(_on_cheap(later.cheap, idle[:, :, 0], one, other))
        dear = self._launched(_on_dear(later.dear, idle[:, :, 1], one, other))
        sure = self._launched(_both(one.whole, other.whole, later.sure))
        waits = _both(self._cheap.slot.whole, self._dear.slot.whole, self._idle[0])
        options = np.full((len(Act), *idle.shape), _NEVER)
        options[Act.WAIT] = _spend(waits, 1)
        options[Act.CHEAP, :_N] = many * terms.cheap.price + cheap[:, :, None] + self._egress
        options[Act.DEAR, :, :_N] = many * terms.dear.price + dear[:, :, None] + self._egress[::-1]
        options[Act.SURE] = many * terms.sure + sure
        options[..., left:] = 0.0  # no work is left from there on
        return options

    def _stay(self, left: int) -> _Stays:
        """Give the costs of a slot where the job trains already, and of what follows."""
        later, idle, terms = self._ring[0], self._idle[0], self._terms
        one, other = self._cheap.slot, self._dear.slot
        stays = _Stays(
            terms.cheap.price + _on_cheap(later.cheap, idle[:, :, 0], one, other),
            terms.dear.price + _on_dear(later.dear, idle[:, :, 1], one, other),
            terms.sure + _both(one.whole, other.whole, later.sure),
        )
        for costs in (stays.cheap, stays.dear, stays.sure):
            costs[..., left:] = 0.0
        return stays

    def _launched(self, costs: Floats) -> Floats:
        """Spend a launch: between the neighbouring amounts of work that are done in its slots."""
        whole = _spend(costs, self._launch)
        if not self._part:
            return whole
        return (1 - self._part) * whole + self._part * _spend(costs, self._launch - 1)


@dataclass(frozen=True, slots=True)
class _Step:
    """A tier over a stretch of time: on its own, and while one of its places trains."""

    whole: Floats
    unbroken: Floats
    again: float

    def dead(self, idle: Floats) -> Floats:
        """Mix the costs to go after a death: all of the tier is down, or another place is up."""
        mixed: Floats = (1 - self.again) * idle[_N + _YOUNG] + self.again * idle[_OLDER]
        return mixed


class _Chains:
    """A tier over one slot, and over a launch."""

    def __init__(self, tier: Tier, terms: Terms, launch: int) -> None:
        whole, _ = chain(terms.slot_h, up_factor=tier.up_factor, down_factor=tier.down_factor)
        _, own = chain(terms.slot_h, up_factor=tier.own_factor, down_factor=1.0)
        power = np.linalg.matrix_power
        self.slot = _Step(whole, own, tier.again)
        self.boot = _Step(power(whole, launch), power(own, launch), tier.again)


def _tiers(terms: Terms) -> tuple[Tier, Tier]:
    return terms.cheap, terms.dear


def _both(cheap: Floats, dear: Floats, costs: Floats) -> Floats:
    """Expect over what both tiers do."""
    mixed = (cheap @ costs.reshape(len(costs), -1)).reshape(len(cheap), costs.shape[1], -1)
    found: Floats = (dear @ mixed).reshape(len(cheap), len(dear), *costs.shape[2:])
    return found


def _on_cheap(costs: Floats, idle: Floats, cheap: _Step, dear: _Step) -> Floats:
    """Expect over a stretch on the cheaper tier: its place lives, or the job is left with none."""
    dies = 1 - cheap.unbroken.sum(axis=1)
    left = dear.whole @ cheap.dead(idle)
    found: Floats = _both(cheap.unbroken, dear.whole, costs) + dies[:, None, None] * left
    return found


def _on_dear(costs: Floats, idle: Floats, cheap: _Step, dear: _Step) -> Floats:
    """Expect over a stretch on the dearer tier."""
    dies = 1 - dear.unbroken.sum(axis=1)
    left = cheap.whole @ dear.dead(idle.swapaxes(0, 1))
    found: Floats = _both(cheap.whole, dear.unbroken, costs) + dies[None, :, None] * left[:, None]
    return found


def _spend(costs: Floats, slots: int) -> Floats:
    """Spend spare slots."""
    if not slots:
        return costs
    shifted = np.full_like(costs, _NEVER)
    shifted[..., slots:] = costs[..., :-slots]
    return shifted
