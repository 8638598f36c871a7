"""A lower bound on the cost of many jobs in hindsight: a linear program over class, slot, flavor.

Jobs with the same rules, release slot and deadline slot are one class. Everything that is relaxed
makes it cheaper: a job may use parts of nodes, of gangs and of slots; it pays the share of a node
that its GPUs are, its work and one set-up, no boot, no restore, no save, no idle time; in a slot
the lowest price counts, and every drop of a limit leaves the notice time usable. Egress costs
nothing and budgets do not bind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from jobs.durations import US_PER_MS, US_PER_S
from jobs.ledger.split import US_PER_HOUR
from jobs.spec import NANOS_PER_USD, JobSpec
from scheduler.bound import Bound, Floats, Ints, extreme, last_change_us, price_steps
from scheduler.horizon_model import Demand, Group, Supply, build
from scheduler.horizon_solver import solve
from scheduler.price_book import PriceBook
from scheduler.scenario import Arrival, Capacity, Scenario

_VARIABLES = 120_000
_SAFE = 1 - 1e-6  # the solver's tolerance
_MIN_SLOT_US = 600 * US_PER_S


@dataclass(frozen=True, slots=True)
class _Class:
    """Jobs that the program cannot tell apart."""

    flavors: Group
    release: int  # first slot
    end: int | None  # slot after the last; None = any later time will do


@dataclass(slots=True)
class _Sum:
    """What a class needs, and which span each of its jobs has with how many GPUs."""

    gpu_hours: float = 0.0
    spans: list[tuple[int, int | None, float]] = field(default_factory=list)


def several_jobs(scenario: Scenario, arrivals: Sequence[Arrival], *, book: PriceBook) -> Bound:
    """Give a lower bound on what all these jobs cost together, deadlines met."""
    paying = [arrival for arrival in arrivals if arrival.spec.gpu_milli]
    if not paying:
        return Bound(usd=0.0, kind="lp")  # who shares CPU nodes pays by cores: not bounded here
    edges = _edges(scenario, paying)
    supply = _supply(scenario.capacities, edges, book)
    classes = _classes(scenario, paying, edges)
    demands = [_demand(key, one, supply, edges) for key, one in classes.items()]
    if any(not demand.group for demand in demands):
        return Bound(usd=None, kind="lp")
    found = solve(build(supply, demands))
    return Bound(usd=None if found is None else max(0.0, found.usd) * _SAFE, kind="lp")


def _edges(scenario: Scenario, arrivals: Sequence[Arrival]) -> Ints:
    """Give the slots: the shorter, the tighter, as far as the number of variables allows."""
    start_us = min(arrival.at_us for arrival in arrivals)
    ends = [_deadline_us(arrival) for arrival in arrivals]
    last_us = max([end for end in ends if end is not None], default=start_us)
    if any(end is None for end in ends):
        work_us = max(arrival.spec.work or 0 for arrival in arrivals) * US_PER_MS
        last_us = max(last_us, last_change_us(scenario), *(a.at_us for a in arrivals)) + work_us
    spans = [
        (last_us if end is None else end) - a.at_us for a, end in zip(arrivals, ends, strict=True)
    ]
    total_us = sum(spans) + (last_us - start_us) * len(scenario.capacities)
    slot_us = _MIN_SLOT_US
    while total_us // slot_us > _VARIABLES:
        slot_us *= 2
    slots = max(1, -(-(last_us - start_us) // slot_us))
    return start_us + np.arange(slots + 1, dtype=np.int64) * slot_us


def _deadline_us(arrival: Arrival) -> int | None:
    return arrival.spec.deadline_us(submitted_us=arrival.at_us)


def _classes(scenario: Scenario, arrivals: Sequence[Arrival], edges: Ints) -> dict[_Class, _Sum]:
    """Group the jobs; releases move down and deadlines up to slot edges."""
    classes: dict[_Class, _Sum] = defaultdict(_Sum)
    start_us, slot_us = int(edges[0]), int(edges[1] - edges[0])
    for arrival in arrivals:
        spec, deadline_us = arrival.spec, _deadline_us(arrival)
        end = None if deadline_us is None else -(-(deadline_us - start_us) // slot_us)
        flavors = (
            i
            for i, c in enumerate(scenario.capacities)
            if c.flavor.gpu_milli and c.flavor.allows(spec)
        )
        key = _Class(tuple(flavors), (arrival.at_us - start_us) // slot_us, end)
        gpus = spec.nodes * spec.gpu_milli / 1_000
        classes[key].gpu_hours += gpus * _paid_ms(spec) * US_PER_MS / US_PER_HOUR
        classes[key].spans.append((arrival.at_us, deadline_us, gpus))
    return classes


def _paid_ms(spec: JobSpec) -> int:
    return (spec.work or 0) + spec.setup


def _demand(key: _Class, one: _Sum, supply: Supply, edges: Ints) -> Demand:
    """In a slot, each job can use its GPUs for that part of it that lies in its span."""
    last = len(edges) - 1 if key.end is None else key.end
    low, high = edges[key.release : last], edges[key.release + 1 : last + 1]
    most = np.zeros(last - key.release)
    for from_us, until_us, gpus in one.spans:
        ends = high if until_us is None else np.minimum(high, until_us)
        most += gpus * np.maximum(0, ends - np.maximum(low, from_us)) / US_PER_HOUR
    late = None if key.end is not None else supply.usd[list(key.flavors)].min(initial=np.inf)
    return Demand(
        group=key.flavors, need=one.gpu_hours, first=key.release, most=most, late_usd=late
    )


def _supply(capacities: Sequence[Capacity], edges: Ints, book: PriceBook) -> Supply:
    gpus = np.array([capacity.flavor.gpu_milli / 1_000 for capacity in capacities])[:, None]
    prices = np.stack([_prices(capacity, edges, book) for capacity in capacities])
    return Supply(
        usd=np.divide(prices, gpus, out=np.zeros_like(prices), where=gpus > 0),
        room=np.stack([_room(capacity, edges) for capacity in capacities]) * gpus,
        weight=np.ones(len(capacities)),
    )


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
