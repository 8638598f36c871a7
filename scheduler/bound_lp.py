"""A lower bound on the cost of many jobs: a linear program over class x slot x flavor (HiGHS).

Jobs of the same shape, rules, release slot and deadline slot are one class. Everything that is
relaxed makes it cheaper: a job may use parts of nodes, of gangs and of slots; it pays the share of
a node that its GPUs are, its work and one set-up, no boot, no restore, no save, no idle time; in
a slot the lowest price counts, and every drop of a limit leaves the notice time usable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import highspy
import numpy as np
from highspy._core import _Highs

from jobs.durations import US_PER_MS, US_PER_S
from jobs.ledger.split import US_PER_HOUR
from jobs.spec import NANOS_PER_USD, JobSpec
from scheduler.bound import Bound, Floats, Ints, extreme, last_change_us, price_steps
from scheduler.price_book import PriceBook
from scheduler.scenario import Arrival, Capacity, Scenario

_VARIABLES = 400_000
_SAFE = 1 - 1e-6  # the solver's tolerance
_MIN_SLOT_US = 600 * US_PER_S


@dataclass(frozen=True, slots=True)
class _Class:
    """Jobs that the program cannot tell apart."""

    gpu_milli: int
    flavors: tuple[int, ...]
    release: int  # first slot
    end: int | None  # slot after the last; None = any later time will do


@dataclass(slots=True)
class _Demand:
    """What a class needs, and how much of its first and last slot lies outside its jobs' spans."""

    node_hours: float = 0.0
    nodes: int = 0
    head: float = 0.0  # node-hours of the first slot before the submissions
    tail: float = 0.0  # node-hours of the last slot after the deadlines


def several_jobs(scenario: Scenario, arrivals: Sequence[Arrival], *, book: PriceBook) -> Bound:
    """Give a lower bound on what all these jobs cost together, deadlines met."""
    edges = _edges(scenario, arrivals)
    classes = _classes(scenario, arrivals, edges)
    prices = np.stack([_prices(c, edges, book) for c in scenario.capacities])
    room = np.stack([_room(c, edges) for c in scenario.capacities])
    usd = _Program(scenario.capacities, classes, prices, room, edges).solve()
    return Bound(usd=None if usd is None else max(0.0, usd) * _SAFE, kind="lp")


def _edges(scenario: Scenario, arrivals: Sequence[Arrival]) -> Ints:
    start_us = min(arrival.at_us for arrival in arrivals)
    ends = [_deadline_us(arrival) for arrival in arrivals]
    last_us = max([end for end in ends if end is not None], default=start_us)
    if any(end is None for end in ends):
        work_us = max(arrival.spec.work or 0 for arrival in arrivals) * US_PER_MS
        last_us = max(last_us, last_change_us(scenario), *(a.at_us for a in arrivals)) + work_us
    slot_us = US_PER_HOUR
    shapes = len({(a.spec.nodes, a.spec.gpu_milli) for a in arrivals})
    groups = min(len(arrivals), 50 * shapes)
    while (last_us - start_us) // slot_us * groups * len(scenario.capacities) > _VARIABLES:
        slot_us *= 2
    slots = max(1, -(-(last_us - start_us) // slot_us))
    return start_us + np.arange(slots + 1, dtype=np.int64) * slot_us


def _deadline_us(arrival: Arrival) -> int | None:
    return arrival.spec.deadline_us(submitted_us=arrival.at_us)


def _classes(scenario: Scenario, arrivals: Sequence[Arrival], edges: Ints) -> dict[_Class, _Demand]:
    """Group the jobs; releases move down and deadlines up to slot edges."""
    classes: dict[_Class, _Demand] = defaultdict(_Demand)
    slot_us = int(edges[1] - edges[0])
    for arrival in arrivals:
        spec, deadline_us = arrival.spec, _deadline_us(arrival)
        end = None if deadline_us is None else -(-(deadline_us - int(edges[0])) // slot_us)
        flavors = (i for i, c in enumerate(scenario.capacities) if c.flavor.allows(spec))
        release = (arrival.at_us - int(edges[0])) // slot_us
        demand = classes[_Class(spec.gpu_milli, tuple(flavors), release, end)]
        demand.nodes += spec.nodes
        demand.node_hours += spec.nodes * _paid_ms(spec) / 3_600_000
        demand.head += spec.nodes * (arrival.at_us - int(edges[release])) / US_PER_HOUR
        if deadline_us is not None and end is not None:
            after_us = int(edges[0]) + end * slot_us - deadline_us
            demand.tail += spec.nodes * after_us / US_PER_HOUR
    return classes


def _paid_ms(spec: JobSpec) -> int:
    return (spec.work or 0) + spec.setup


def _prices(capacity: Capacity, edges: Ints, book: PriceBook) -> Floats:
    steps = price_steps(book, capacity.flavor.name, start_us=int(edges[0]), end_us=int(edges[-1]))
    return np.asarray(extreme(steps, edges) / NANOS_PER_USD, dtype=np.float64)


def _room(capacity: Capacity, edges: Ints) -> Floats:
    """Give node-hours that can be had in each slot: the limit's area, plus notices."""
    times = np.array([*capacity.limits.from_us, int(edges[-1]) + 1], dtype=np.int64)
    values = np.array(capacity.limits.values, dtype=np.int64)
    times[0] = min(times[0], edges[0])
    area = np.concatenate([[0], np.cumsum(np.diff(times).clip(min=0) * values)])
    index = np.searchsorted(times, edges, side="right") - 1
    index = np.minimum(index, len(values) - 1)
    upto = area[index] + (edges - times[index]) * values[index]
    drops = np.maximum(0, -np.diff(values))
    notice_us = capacity.flavor.notice_ms * US_PER_MS
    first = np.searchsorted(times[1:-1], edges[:-1] - notice_us, side="right")
    last = np.searchsorted(times[1:-1], edges[1:], side="left")
    before = np.concatenate([[0], np.cumsum(drops)])
    extra = (before[last] - before[np.minimum(first, last)]) * notice_us
    return np.asarray((np.diff(upto) + extra) / US_PER_HOUR, dtype=np.float64)


class _Program:
    """The linear program: node-hours of each class in each slot on each flavor."""

    def __init__(
        self,
        capacities: Sequence[Capacity],
        classes: dict[_Class, _Demand],
        prices: Floats,
        room: Floats,
        edges: Ints,
    ) -> None:
        self._flavors = [capacity.flavor for capacity in capacities]
        self._classes = classes
        self._prices = prices
        self._room = room
        self._slots = len(edges) - 1
        self._hours = int(edges[1] - edges[0]) / US_PER_HOUR
        self._cost: list[float] = []
        self._rows: list[dict[int, float]] = []
        self._lower: list[float] = []
        self._upper: list[float] = []

    def solve(self) -> float | None:
        """Give the optimum in dollars, None when the deadlines cannot be met."""
        used: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
        for key, demand in self._classes.items():
            self._add_class(key, demand, used)
        for (flavor, slot), row in used.items():
            self._add_row(row, -highspy.kHighsInf, float(self._room[flavor, slot]))
        return self._run()

    def _add_class(
        self, key: _Class, demand: _Demand, used: dict[tuple[int, int], dict[int, float]]
    ) -> None:
        done: dict[int, float] = {}
        for slot in range(key.release, self._slots if key.end is None else key.end):
            here: dict[int, float] = {}
            for flavor in key.flavors:
                share = self._share(key, flavor)
                column = len(self._cost)
                self._cost.append(float(self._prices[flavor, slot]) * share)
                used[flavor, slot][column] = share
                here[column] = done[column] = 1.0
            outside = demand.head * (slot == key.release)
            outside += demand.tail * (key.end is not None and slot == key.end - 1)
            self._add_row(here, -highspy.kHighsInf, demand.nodes * self._hours - outside)
        if key.end is None and key.flavors:  # later than the last slot, at the best price ever
            done[len(self._cost)] = 1.0
            self._cost.append(
                min(float(self._prices[f].min()) * self._share(key, f) for f in key.flavors)
            )
        self._add_row(done, demand.node_hours, highspy.kHighsInf)

    def _share(self, key: _Class, flavor: int) -> float:
        whole = self._flavors[flavor].gpu_milli
        return key.gpu_milli / whole if whole else 0.0

    def _add_row(self, row: dict[int, float], lower: float, upper: float) -> None:
        self._rows.append(row)
        self._lower.append(lower)
        self._upper.append(upper)

    def _run(self) -> float | None:
        solver = _Highs()  # highspy.Highs prints a banner on stdout before it can be silenced
        solver.setOptionValue("output_flag", False)  # noqa: FBT003 - the solver's own signature
        solver.setOptionValue("threads", 1)
        solver.passModel(self._model())
        solver.run()
        status = solver.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            return None
        assert status == highspy.HighsModelStatus.kOptimal, f"the solver says {status}"
        return float(solver.getInfo().objective_function_value)

    def _model(self) -> highspy.HighsLp:
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self._cost), len(self._rows)
        lp.col_cost_ = np.array(self._cost)
        lp.col_lower_ = np.zeros(len(self._cost))
        lp.col_upper_ = np.full(len(self._cost), highspy.kHighsInf)
        lp.row_lower_, lp.row_upper_ = np.array(self._lower), np.array(self._upper)
        lengths = [len(row) for row in self._rows]
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        lp.a_matrix_.index_ = np.array([c for row in self._rows for c in row], dtype=np.int32)
        lp.a_matrix_.value_ = np.array([v for row in self._rows for v in row.values()])
        return lp
