"""Lower bounds on cost in hindsight: what nobody could have beaten on the recorded world.

One job: an exact dynamic program over time slot x remaining work x where it runs ("dp"), for a job
that is still known or for one from the ledger (``hindsight``). Several jobs: a linear program
(``scheduler.bound_lp``, "lp"). Both know every price and limit ahead. What they leave out only
makes them lower: budgets, egress, dependencies, failed probes.

Why the dynamic program is a lower bound although it only moves at slot edges: with prices and
limits constant inside a slot, the best plan is a vertex of a linear program over the edges of its
stays, so all edges but one lie on slot edges; dropping that one partial slot, and rounding work
and changeovers DOWN to slots, never makes it dearer. Inside a slot the lowest price and the
highest limit count, the first and last slots count whole, saves cost nothing, and a node may run
on through its notice. It assumes one set of nodes at a time (no node boots beside a live attempt).
A job without a deadline may also do its work after the last slot at the lowest price that its
windows can ever make.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.durations import US_PER_MS, US_PER_S
from jobs.ledger.split import US_PER_HOUR
from jobs.spec import NANOS_PER_USD, JobSpec
from scheduler.price_book import PriceBook, under
from scheduler.scenario import Arrival, Capacity, Scenario
from scheduler.windows import applies

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_SLOTS = 20_000  # each costs some microseconds, however little work there is
CELLS = 100_000_000  # slots x work x flavors that one bound may look at: about 0.5 s
_ROUND_S = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1_800, 3_600)
_RECURS_US = 14 * 86_400 * US_PER_S  # windows recur for ever: look this far past the last change
_SAFE, _FLOORS_USD = 1 - 1e-9, 1e-7  # floats; bills are floors of each stretch at a price


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What the work must cost at least; None when its deadlines cannot be met at all."""

    usd: float | None
    kind: str  # "dp" | "lp" | "floor" (work x the lowest price, where a solver ran out of time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """One flavor, slot by slot, for one job."""

    cost: Floats  # of its nodes for the slot, in dollars
    start: Bools  # a launch can succeed
    run: Bools  # nodes can be up (limit or notice)
    first: int  # slots from launch to useful work, first attempt
    again: int  # the same for later ones


def price_steps(book: PriceBook, flavor: str, *, start_us: int, end_us: int) -> StepSeries:
    """Give the price of a flavor in [start, end) as steps of nano-dollars per node-hour."""
    from_us, values = [start_us], [book.at(flavor, start_us).usd_nanos_per_hour]
    at_us = book.next_change_us(flavor, start_us)
    while at_us is not None and at_us < end_us:
        price = book.at(flavor, at_us).usd_nanos_per_hour
        if price != values[-1]:
            from_us.append(at_us)
            values.append(price)
        at_us = book.next_change_us(flavor, at_us)
    return StepSeries(tuple(from_us), tuple(values))


def extreme(steps: StepSeries, edges: Ints, *, back_us: int = 0, largest: bool = False) -> Ints:
    """Give the least (or largest) value in effect in each [edge - back, next edge)."""
    begin = max(0, bisect_right(steps.from_us, int(edges[0]) - back_us) - 1)
    end = max(begin + 1, bisect_left(steps.from_us, int(edges[-1])))
    times = np.array(steps.from_us[begin:end], dtype=np.int64)
    values = np.array(steps.values[begin:end], dtype=np.int64)
    first = np.maximum(np.searchsorted(times, edges[:-1] - back_us, side="right") - 1, 0)
    last = np.maximum(np.searchsorted(times, edges[1:], side="left") - 1, first)
    found: Ints = values[first].copy()
    pick = np.max if largest else np.min
    for slot in np.flatnonzero(last > first):
        found[slot] = pick(values[first[slot] : last[slot] + 1])
    return found


def last_change_us(scenario: Scenario) -> int:
    """Give when the world changes for the last time, recurring windows aside."""
    return _last_change_us(scenario.capacities, origin_us=scenario.start_us) + (
        _RECURS_US if scenario.windows else 0
    )


def _last_change_us(capacities: Iterable[Capacity], *, origin_us: int) -> int:
    series = [one for c in capacities for one in (c.limits, c.prices) if one]
    return max((one.from_us[-1] for one in series), default=origin_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The world as it turned out. A price or limit holds until its next change."""

    start_us: int  # slots are counted from here
    end_us: int  # nothing was done later
    capacities: tuple[Capacity, ...]
    prices: Mapping[str, StepSeries]  # by flavor, windows applied, up to ``end_us``
    floors: Mapping[str, int]  # lowest price that a window ever makes; empty without windows

    def lowest(self, flavor: str) -> int:
        """Give the lowest price that a flavor ever has."""
        return min([*self.prices[flavor].values, *([self.floors[flavor]] if self.floors else [])])


def past_of(scenario: Scenario, *, book: PriceBook, until_us: int | None = None) -> Past:
    """Give a scenario's world up to an instant (default: until nothing new can happen)."""
    longest_us = max(
        (_longest_us(a.spec, scenario.capacities) for a in scenario.arrivals), default=0
    )
    times_us = [one.at_us for one in scenario.arrivals]
    times_us += [end for one in scenario.arrivals if (end := _deadline_us(one)) is not None]
    last_us = max([last_change_us(scenario), *times_us]) + longest_us + US_PER_HOUR
    end_us = max(until_us or 0, min(last_us, scenario.end_us))
    return Past(
        start_us=scenario.start_us,
        end_us=end_us,
        capacities=scenario.capacities,
        prices={
            name: price_steps(book, name, start_us=scenario.start_us, end_us=end_us)
            for name in scenario.flavors
        },
        floors={c.flavor.name: _floor_nanos(scenario, c) for c in scenario.capacities}
        if scenario.windows
        else {},
    )


def _floor_nanos(scenario: Scenario, capacity: Capacity) -> int:
    """Give the lowest price of a flavor that any window can make."""
    base = min(capacity.prices.values if capacity.prices else [capacity.flavor.usd_nanos_per_hour])
    windows = [window for window in scenario.windows if applies(window, capacity.flavor)]
    return min([base, *(under((window,), base)[0] for window in windows)])


def _longest_us(spec: JobSpec, capacities: Iterable[Capacity]) -> int:
    """Give the time of one whole attempt with the slowest boot."""
    boots_ms = max((c.flavor.boot_ms for c in capacities), default=0)
    return ((spec.work or 0) + spec.setup + spec.restore + boots_ms) * US_PER_MS


def _deadline_us(arrival: Arrival) -> int | None:
    return arrival.spec.deadline_us(submitted_us=arrival.at_us)


def single_job(scenario: Scenario, arrival: Arrival, *, book: PriceBook) -> Bound:
    """Give the least cost of one job that has the world to itself, its deadline met."""
    end_us = _deadline_us(arrival)
    past = past_of(replace(scenario, arrivals=(arrival,)), book=book, until_us=end_us)
    return hindsight(arrival.spec, submitted_us=arrival.at_us, deadline_us=end_us, past=past)


def hindsight(
    spec: JobSpec,
    *,
    submitted_us: int,
    deadline_us: int | None,
    past: Past,
    alone: bool = True,
    cells: int = CELLS,
) -> Bound:
    """Give the least that one job could have cost by whoever knew all prices and limits ahead.

    Args:
        spec: the job; its own deadline does not count.
        submitted_us: when it came.
        deadline_us: by when it must be done, None = at some time.
        past: what could be had, and for how much.
        alone: it pays its nodes whole, from their boot on; else, as in a queue, the share that
            its GPUs are, and others may have booted them.
        cells: slots x work x flavors to look at; fewer make longer slots and a looser bound.
    """
    usable = [c for c in past.capacities if c.flavor.allows(spec)]
    origin_us = past.start_us
    end_us = open_end_us(spec, submitted_us, usable, past) if deadline_us is None else deadline_us
    span = (submitted_us - origin_us, end_us - origin_us)
    slot_us = choose_slot_us(spec, usable, start_us=origin_us, span=span, cells=cells)
    edges = slot_edges(origin_us, submitted_us, end_us, slot_us)
    places = [places_of(c, spec, edges, slot_us, past, alone=alone) for c in usable]
    later = np.inf
    if deadline_us is None and past.floors and end_us < past.end_us:
        later = min((_lowest(c, spec, slot_us, past, alone=alone) for c in usable), default=np.inf)
    work = (spec.work or 0) * US_PER_MS // slot_us
    usd = cheapest(places, work=work, slots=len(edges) - 1, later=later)
    return Bound(usd=None if np.isinf(usd) else max(0.0, usd * _SAFE - _FLOORS_USD), kind="dp")


def open_end_us(spec: JobSpec, submitted_us: int, usable: Iterable[Capacity], past: Past) -> int:
    """Give when a job without a deadline has seen all that can happen."""
    changed_us = _last_change_us(past.capacities, origin_us=past.start_us)
    changed_us += _RECURS_US if past.floors else 0
    seen_us = max(changed_us, submitted_us) + _longest_us(spec, usable)
    return max(submitted_us, min(seen_us, past.end_us))


def slot_edges(origin_us: int, start_us: int, end_us: int, slot_us: int) -> Ints:
    """Give slot edges on the world's own grid, the first and last slots whole."""
    first = (start_us - origin_us) // slot_us
    last = -(-(end_us - origin_us) // slot_us)
    return origin_us + np.arange(first, last + 1, dtype=np.int64) * slot_us


def places_of(
    capacity: Capacity, spec: JobSpec, edges: Ints, slot_us: int, past: Past, *, alone: bool
) -> Places:
    """Give what a flavor offers to a job in each slot; changeovers are rounded down."""
    flavor = capacity.flavor
    first_us = ((flavor.boot_ms if alone else 0) + spec.setup) * US_PER_MS
    notice_us = flavor.notice_ms * US_PER_MS
    per_slot = _per_slot(flavor, spec, slot_us, alone=alone)
    prices = extreme(past.prices[flavor.name], edges)
    return Places(
        cost=np.asarray(prices * per_slot, dtype=np.float64),
        start=extreme(capacity.limits, edges, largest=True) >= spec.nodes,
        run=extreme(capacity.limits, edges, back_us=notice_us, largest=True) >= spec.nodes,
        first=first_us // slot_us,
        again=(first_us + spec.restore * US_PER_MS) // slot_us,
    )


def _per_slot(flavor: Flavor, spec: JobSpec, slot_us: int, *, alone: bool) -> float:
    """Give dollars per slot for a price of a nano-dollar per node-hour."""
    nodes = spec.nodes * (1.0 if alone else share_of(flavor, spec))
    return nodes * slot_us / US_PER_HOUR / NANOS_PER_USD


def share_of(flavor: Flavor, spec: JobSpec) -> float:
    """Give the part of a node that a job holds, by GPUs, or by cores on a CPU node."""
    if flavor.gpu_milli:
        return spec.gpu_milli / flavor.gpu_milli
    return spec.cpus / max(1, flavor.cpus)


def _lowest(capacity: Capacity, spec: JobSpec, slot_us: int, past: Past, *, alone: bool) -> float:
    """Give the cost of a slot at the lowest price ever, infinity when it will never have room."""
    if capacity.limits.values[-1] < spec.nodes:
        return np.inf
    return past.floors[capacity.flavor.name] * _per_slot(
        capacity.flavor, spec, slot_us, alone=alone
    )


def choose_slot_us(
    spec: JobSpec,
    usable: Iterable[Capacity],
    *,
    start_us: int,
    span: tuple[int, int],
    cells: int = CELLS,
) -> int:
    """Pick the slot that rounds span, work, changeovers and trace steps least, in the budget."""
    flavors = list(usable)
    work_us = max(1, (spec.work or 0) * US_PER_MS)
    lengths = [(c.flavor.boot_ms + spec.setup) * US_PER_MS for c in flavors]
    lengths += [length + spec.restore * US_PER_MS for length in lengths]
    within = (start_us + span[0], start_us + span[1])
    steps = [step for c in flavors for step in _steps(c, span=within)]

    def size(slot_us: int) -> int:
        slots, work = (span[1] - span[0]) // slot_us + 2, work_us // slot_us + 1
        if slots > _SLOTS:
            return cells + 1
        return slots * max(1, min(work, slots - work)) * max(1, len(flavors))

    def loss(slot_us: int) -> float:
        rounded = sum(length % slot_us for length in (work_us, span[0], *lengths))
        rounded += -span[1] % slot_us
        blurred = sum(slot_us * weight for step, weight in steps if step % slot_us)
        return (rounded + blurred) / work_us

    candidates = {s * US_PER_S for s in _ROUND_S}
    candidates |= {
        step // k
        for step in [*(step for step, _ in steps), *lengths]
        for k in range(1, 6)
        if step % k == 0
    }
    fitting = [slot for slot in candidates if slot > 0 and size(slot) <= cells]
    coarsest = 3_600 * US_PER_S
    while size(coarsest) > cells:
        coarsest *= 2
    return min(fitting or [coarsest], key=lambda slot: (round(loss(slot), 3), -slot))


def _steps(capacity: Capacity, *, span: tuple[int, int]) -> list[tuple[int, float]]:
    """Give the longest step on which all changes of each series lie, and what blurring costs.

    The second number is how many slots of work a slot that is no divisor of the step may give
    away: a part of one for each change in the span.
    """
    found: list[tuple[int, float]] = []
    for series, weight in ((capacity.limits, 0.25), (capacity.prices, 0.02)):
        if series is not None and len(series.from_us) > 1:
            times = np.array(series.from_us, dtype=np.int64)
            first, last = np.searchsorted(times, span)
            found.append((int(np.gcd.reduce(np.diff(times))), weight * float(last - first)))
    return found


def cheapest(places: list[Places], *, work: int, slots: int, later: float = np.inf) -> float:
    """Give the least dollars for ``work`` slots of useful time, infinity when it does not fit.

    Backwards over time; vectors over the slots of work that remain, of which only those count
    that can have been reached by then and can still be finished. ``idle`` is the cost to go while
    nothing runs, a ring holds that of training on a flavor in the next slots. A slot of work after
    the last slot costs ``later``.
    """
    ends = np.isinf(later)  # all must be done in the slots
    never: Floats = np.full(work + 1, np.inf)
    if not ends:
        never = np.arange(work + 1, dtype=np.float64) * later
    never[0] = 0.0
    depth = max((place.again for place in places), default=0) + 1
    idle = never.copy()
    ahead = [_Ahead(place, slots, [never] * depth) for place in places]
    for slot in range(slots - 1, -1, -1):
        band = slice(max(1, work - slot), (min(work, slots - slot) if ends else work) + 1)
        staying = [one.stay(slot, band) for one in ahead]
        for one, stay in zip(ahead, staying, strict=True):
            one.launch(idle, slot, band, stay)
        for one, stay in zip(ahead, staying, strict=True):
            np.minimum(stay[band], idle[band], out=stay[band])
            one.ring.insert(0, stay)
            one.ring.pop()
    return float(idle[work])


class _Ahead:
    """One flavor on the way backwards: staying on it, and launching on it."""

    def __init__(self, place: Places, slots: int, ring: list[Floats]) -> None:
        self.ring = ring
        self._place = place
        self._spent = np.concatenate([[0.0], np.cumsum(place.cost)])
        gaps = np.where(place.run, slots, np.arange(slots))
        self._until = np.minimum.accumulate(gaps[::-1])[::-1] if slots else gaps
        self._slots = slots

    def stay(self, slot: int, band: slice) -> Floats:
        """Give the cost to go when it trains here in this slot."""
        later = self.ring[0]
        stay = np.full_like(later, np.inf)
        stay[0] = 0.0
        if self._place.run[slot]:
            stay[band] = later[band.start - 1 : band.stop - 1] + self._place.cost[slot]
        return stay

    def launch(self, idle: Floats, slot: int, band: slice, stay: Floats) -> None:
        """Lower ``idle`` where launching now is cheaper than what it holds."""
        if not self._place.start[slot]:
            return
        whole = len(idle) - 1  # nothing was done yet: the first attempt
        again = self._after(slot, self._place.again, slice(band.start, min(band.stop, whole)), stay)
        if again is not None:
            later = slice(band.start, min(band.stop, whole))
            np.minimum(idle[later], again, out=idle[later])
        first = self._after(slot, self._place.first, slice(whole, whole + 1), stay)
        if first is not None:
            idle[whole] = min(idle[whole], float(first[0]))

    def _after(self, slot: int, changeover: int, part: slice, stay: Floats) -> Floats | None:
        """Give the cost to go when the launch at ``slot`` trains after ``changeover`` slots."""
        if changeover == 0:
            return stay[part]
        ready = slot + changeover
        if ready > self._slots or self._until[slot] < ready:
            return None
        spent = self._spent[ready] - self._spent[slot]
        later: Floats = self.ring[changeover - 1][part] + spent
        return later
