"""Lower bounds on cost in hindsight: what nobody could have beaten on the recorded world.

One job: an exact dynamic program over time slot x remaining work x where it runs ("dp"). Several
jobs: a linear program (``scheduler.bound_lp``, "lp"). Both know every price and limit ahead.

Why the dynamic program is a lower bound although it only moves at slot edges: with prices and
limits constant inside a slot, the best plan is a vertex of a linear program over the edges of its
stays, so all edges but one lie on slot edges; dropping that one partial slot, and rounding work
and changeovers DOWN to slots, never makes it dearer. Inside a slot the lowest price and the
highest limit count, the first and last slots count whole, saves cost nothing, and a node may run
on through its notice. It assumes one set of nodes at a time (no node boots beside a live attempt).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.prices import StepSeries
from jobs.durations import US_PER_MS, US_PER_S
from jobs.ledger.split import US_PER_HOUR
from jobs.spec import NANOS_PER_USD, JobSpec
from scheduler.price_book import PriceBook
from scheduler.scenario import Arrival, Capacity, Scenario

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_SLOTS = 20_000  # each costs some microseconds, however little work there is
_CELLS = 100_000_000  # slots x work x flavors that one bound may look at: about 0.5 s
_ROUND_S = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1_800, 3_600)
_RECURS_US = 14 * 86_400 * US_PER_S  # windows recur for ever: look this far past the last change
_SAFE, _FLOORS_USD = 1 - 1e-9, 1e-7  # floats; bills are floors of each stretch at a price


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What the work must cost at least; None when its deadlines cannot be met at all."""

    usd: float | None
    kind: str  # "dp" | "lp"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
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
    times = np.array(steps.from_us, dtype=np.int64)
    values = np.array(steps.values, dtype=np.int64)
    first = np.maximum(np.searchsorted(times, edges[:-1] - back_us, side="right") - 1, 0)
    last = np.maximum(np.searchsorted(times, edges[1:], side="left") - 1, first)
    found: Ints = values[first].copy()
    pick = np.max if largest else np.min
    for slot in np.flatnonzero(last > first):
        found[slot] = pick(values[first[slot] : last[slot] + 1])
    return found


def last_change_us(scenario: Scenario) -> int:
    """Give when the world changes for the last time, recurring windows aside."""
    series = [one for c in scenario.capacities for one in (c.limits, c.prices) if one]
    last = max((one.from_us[-1] for one in series), default=scenario.start_us)
    return last + (_RECURS_US if scenario.windows else 0)


def single_job(scenario: Scenario, arrival: Arrival, *, book: PriceBook) -> Bound:
    """Give the least cost of one job that has the world to itself, its deadline met."""
    spec = arrival.spec
    usable = [c for c in scenario.capacities if c.flavor.allows(spec)]
    end_us = spec.deadline_us(submitted_us=arrival.at_us)
    if end_us is None:
        longest_us = ((spec.work or 0) + spec.setup + spec.restore) * US_PER_MS
        boots_us = max((c.flavor.boot_ms for c in usable), default=0) * US_PER_MS
        end_us = max(last_change_us(scenario), arrival.at_us) + longest_us + boots_us
    span = (arrival.at_us - scenario.start_us, end_us - scenario.start_us)
    slot_us = choose_slot_us(spec, usable, start_us=scenario.start_us, span=span)
    edges = _edges(scenario.start_us, arrival.at_us, end_us, slot_us)
    places = [_places(c, spec, edges, slot_us, book) for c in usable]
    usd = cheapest(places, work=(spec.work or 0) * US_PER_MS // slot_us, slots=len(edges) - 1)
    return Bound(usd=None if np.isinf(usd) else max(0.0, usd * _SAFE - _FLOORS_USD), kind="dp")


def _edges(origin_us: int, start_us: int, end_us: int, slot_us: int) -> Ints:
    """Give slot edges on the world's own grid, the first and last slots whole."""
    first = (start_us - origin_us) // slot_us
    last = -(-(end_us - origin_us) // slot_us)
    return origin_us + np.arange(first, last + 1, dtype=np.int64) * slot_us


def _places(
    capacity: Capacity, spec: JobSpec, edges: Ints, slot_us: int, book: PriceBook
) -> _Places:
    flavor = capacity.flavor
    steps = price_steps(book, flavor.name, start_us=int(edges[0]), end_us=int(edges[-1]))
    per_slot = spec.nodes * slot_us / US_PER_HOUR / NANOS_PER_USD
    first_us = (flavor.boot_ms + spec.setup) * US_PER_MS
    notice_us = flavor.notice_ms * US_PER_MS
    return _Places(
        cost=np.asarray(extreme(steps, edges) * per_slot, dtype=np.float64),
        start=extreme(capacity.limits, edges, largest=True) >= spec.nodes,
        run=extreme(capacity.limits, edges, back_us=notice_us, largest=True) >= spec.nodes,
        first=first_us // slot_us,
        again=(first_us + spec.restore * US_PER_MS) // slot_us,
    )


def choose_slot_us(
    spec: JobSpec, usable: Iterable[Capacity], *, start_us: int, span: tuple[int, int]
) -> int:
    """Pick the slot that rounds span, work, changeovers and trace steps least, in the budget."""
    flavors = list(usable)
    work_us = max(1, (spec.work or 0) * US_PER_MS)
    lengths = [(c.flavor.boot_ms + spec.setup) * US_PER_MS for c in flavors]
    lengths += [length + spec.restore * US_PER_MS for length in lengths]
    within = (start_us + span[0], start_us + span[1])
    steps = [step for c in flavors for step in _steps(c, span=within)]

    def cells(slot_us: int) -> int:
        slots, work = (span[1] - span[0]) // slot_us + 2, work_us // slot_us + 1
        if slots > _SLOTS:
            return _CELLS + 1
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
    fitting = [slot for slot in candidates if slot > 0 and cells(slot) <= _CELLS]
    coarsest = 3_600 * US_PER_S
    while cells(coarsest) > _CELLS:
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


def cheapest(places: list[_Places], *, work: int, slots: int) -> float:
    """Give the least dollars for ``work`` slots of useful time, infinity when it does not fit.

    Backwards over time; vectors over the slots of work that remain, of which only those count
    that can have been reached by then and can still be finished. ``idle`` is the cost to go while
    nothing runs, a ring holds that of training on a flavor in the next slots.
    """
    never = np.full(work + 1, np.inf)
    never[0] = 0.0
    depth = max((place.again for place in places), default=0) + 1
    idle = never.copy()
    ahead = [_Ahead(place, slots, [never] * depth) for place in places]
    for slot in range(slots - 1, -1, -1):
        band = slice(max(1, work - slot), min(work, slots - slot) + 1)
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

    def __init__(self, place: _Places, slots: int, ring: list[Floats]) -> None:
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
