"""The linear program of a whole queue over time: who trains when, and on what.

It works in GPU-hours. Jobs of a GROUP may use the same flavors, so the program need not say which
of them is where: a DEMAND spreads its hours over slots, its group spreads the sum of a slot over
flavors. That takes jobs x slots + groups x slots x flavors variables, not jobs x slots x flavors,
and gives away nothing, because a GPU-hour on a flavor costs each job of the group the same.

    least   usd[f, s] y[g, f, s] + late_usd[j] late[j]
    so that each demand      sum over s of x[j, s] + late[j] >= need[j]
            each group, slot sum of its x[j, s] <= sum over f of y[g, f, s]
            each flavor      sum over g of y[g, f, s] weight[f] <= room[f, s]
            0 <= x[j, s] <= most[j, s]

Two uses share it: the bound in hindsight (``scheduler.bound_lp``), where prices and room are
those that the world then had, and the plan ahead (``scheduler.horizon_forecast``), where they are
what can be known or expected now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Group = tuple[int, ...]
"""The flavors that are open to a demand, as indices, ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What there is. Arrays are [flavors, slots]."""

    usd: Floats  # dollars per useful GPU-hour
    room: Floats  # GPU-hours that can be had
    weight: Floats  # [flavors]: GPU-hours of room that a useful one takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a job, or several that are alike, must have."""

    group: Group
    need: float  # GPU-hours
    first: int  # slot of the first of ``most``
    most: Floats  # GPU-hours that it can use in each slot from the first on; none after those
    late_usd: float | None  # dollars per GPU-hour outside all of these; None = not allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The program in the solver's terms: columns of at most two entries each.

    Rows are the demands, then the groups by slot, then the flavors by slot.
    """

    cost: Floats
    upper: Floats  # of the columns; all begin at zero
    row_lower: Floats
    row_upper: Floats
    starts: Ints  # of the columns in the two below
    rows: Ints
    values: Floats
    demands: int
    groups: int
    slots: int
    of_demand: Ints  # by column: its demand, -1 for the y
    slot: Ints  # by column, -1 for what is late


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """An optimum: its dollars, the columns and the prices of the rows."""

    usd: float
    columns: Floats
    duals: Floats
    iterations: int


def build(supply: Supply, demands: Sequence[Demand]) -> Program:
    """Write the program down."""
    groups = sorted({demand.group for demand in demands})
    slots, count = supply.usd.shape[1], len(demands)
    place = {group: index for index, group in enumerate(groups)}
    sheet = _Sheet()
    for index, demand in enumerate(demands):
        at = demand.first + np.arange(len(demand.most))
        sums = count + place[demand.group] * slots + at
        sheet.add(0.0, demand.most, (index, 1.0), (sums, 1.0), of=index, slot=at)
        if demand.late_usd is not None:
            sheet.add(demand.late_usd, np.array([np.inf]), (index, 1.0), of=index, slot=_NONE)
    rooms = count + len(groups) * slots
    for group in groups:
        for flavor in group:
            at = np.arange(slots)
            sums, room = count + place[group] * slots + at, rooms + flavor * slots + at
            weight = float(supply.weight[flavor])
            full = np.full(slots, np.inf)
            sheet.add(supply.usd[flavor], full, (sums, -1.0), (room, weight), of=-1, slot=at)
    return sheet.program(supply, demands, groups=len(groups))


_NONE: Ints = np.array([-1])
_Entry = tuple[int | Ints, float]


class _Sheet:
    """The columns as they come."""

    def __init__(self) -> None:
        self._cost: list[Floats] = []
        self._upper: list[Floats] = []
        self._rows: list[Ints] = []
        self._values: list[Floats] = []
        self._lengths: list[Ints] = []
        self._of: list[Ints] = []
        self._slot: list[Ints] = []

    def add(
        self, cost: float | Floats, upper: Floats, *entries: _Entry, of: int, slot: Ints
    ) -> None:
        """Add as many columns as there are upper bounds, each with these entries."""
        width, depth = len(upper), len(entries)
        self._cost.append(np.broadcast_to(np.asarray(cost, dtype=np.float64), width))
        self._upper.append(upper)
        rows = np.empty((width, depth), dtype=np.int64)
        values = np.empty((width, depth))
        for index, (row, value) in enumerate(entries):
            rows[:, index], values[:, index] = row, value
        self._rows.append(rows.ravel())
        self._values.append(values.ravel())
        self._lengths.append(np.full(width, depth))
        self._of.append(np.full(width, of))
        self._slot.append(slot)

    def program(self, supply: Supply, demands: Sequence[Demand], *, groups: int) -> Program:
        """Give the whole of it."""
        slots = supply.usd.shape[1]
        needs = np.array([demand.need for demand in demands])
        flows, rooms = np.zeros(groups * slots), supply.room.ravel()
        never = np.full(len(flows) + len(rooms), -np.inf)
        return Program(
            cost=np.concatenate(self._cost),
            upper=np.concatenate(self._upper),
            row_lower=np.concatenate([needs, never]),
            row_upper=np.concatenate([np.full(len(needs), np.inf), flows, rooms]),
            starts=np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))]),
            rows=np.concatenate(self._rows),
            values=np.concatenate(self._values),
            demands=len(demands),
            groups=groups,
            slots=slots,
            of_demand=np.concatenate(self._of),
            slot=np.concatenate(self._slot),
        )


def worths(program: Program, solution: Solution) -> Floats:
    """Give what one more GPU-hour of each demand costs, dollars."""
    return np.maximum(0.0, solution.duals[: program.demands])


def shadows(program: Program, solution: Solution) -> Floats:
    """Give what one more GPU-hour of room is worth, dollars, by [flavor, slot]."""
    found = -solution.duals[program.demands + program.groups * program.slots :]
    return np.maximum(0.0, found).reshape(-1, program.slots)


def shares(program: Program, solution: Solution) -> Floats:
    """Give each demand's part of the dollars; they add up to all of them.

    In a slot, the demands of a group pay the mean of what their group pays there.
    """
    mine = program.of_demand >= 0
    late = mine & (program.slot < 0)
    hours = np.where(mine & ~late, solution.columns, 0.0)
    sums = program.rows[program.starts[:-1] + np.where(mine & ~late, 1, 0)]
    size = program.demands + program.groups * program.slots
    spent = np.where(mine, 0.0, solution.columns * program.cost)
    paid = np.bincount(np.where(mine, 0, sums), weights=spent, minlength=size)
    used = np.bincount(np.where(mine, sums, 0), weights=hours, minlength=size)
    mean = np.divide(paid, used, out=np.zeros(size), where=used > 0)
    dollars = np.where(late, solution.columns * program.cost, hours * mean[np.where(mine, sums, 0)])
    total = np.bincount(
        np.where(mine, program.of_demand, 0),
        weights=np.where(mine, dollars, 0.0),
        minlength=program.demands,
    )
    return np.asarray(total, dtype=np.float64)
