"""The program of the plan ahead, from what a cycle can know: pure, and it never sees a trace.

Prices are those of now, with the known edges of windows; beyond those, the last known day comes
again. Capacity that stays ours is as large as its limit. The room on spot is what is up now while
the spell lasts, by the survival of such spells, and the flavor's own long-run mean after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cluster.offers import Offer
from jobs.durations import US_PER_MS
from jobs.rows import JobRow
from jobs.spec import NANOS_PER_USD
from scheduler.horizon import Horizon, Place, Worth
from scheduler.horizon_inflow import Inflow
from scheduler.horizon_model import (
    Demand,
    Floats,
    Group,
    Ints,
    Program,
    Solution,
    Supply,
    build,
    shadows,
    shares,
    worths,
)
from scheduler.market import MS_PER_HOUR, Market
from scheduler.needs import at_risk_ms, guarded_ms, is_sure, overhead_ms, work_if_lost_ms
from scheduler.snapshot import LiveAttempt, Snapshot
from scheduler.survival import HAZARD, US_PER_HOUR, YOUNG_H, present

_FIRST_H, _GROWTH = 0.25, 8  # a slot is this long, or this part of the time until it begins
_LONGEST_H = 60 * 24.0  # later deadlines are as good as none
_KNOWN_H, _DAY_H = 48.0, 24.0  # how far prices are known, and what repeats after that
_MEAN_AFTER_H = 6.0  # hours of its own history that weigh as much as the prior of a flavor
_INFLOW_H = 24.0  # how far ahead the rate of submissions says something
_ALONE_JOBS, _TIGHTS = 400, 8  # more jobs than this share rows, with so many grades of slack
_NEVER_USD = 10.0  # times the dearest price: what the program pays for work that finds no room


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What is left of a job, as the plan sees it."""

    job: JobRow
    hours: float  # of the gang, launch and set-up included if it waits
    changeover_h: float  # what an eviction costs
    until_us: int
    flavors: Group

    @property
    def gpus(self) -> float:
        """All GPUs of the gang."""
        return self.job.spec.nodes * self.job.spec.gpu_milli / 1_000

    @property
    def gpu_hours(self) -> float:
        """What the gang needs."""
        return self.gpus * self.hours


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A program, and what its rows stand for: classes of jobs, then what is still to come."""

    at_us: int
    classes: tuple[tuple[Rest, ...], ...]
    offers: tuple[Offer, ...]
    supply: Supply
    program: Program


def forecast(snapshot: Snapshot, *, inflow: Inflow | None = None) -> Forecast | None:
    """Write down the program of this instant; None when no two jobs have to share anything."""
    market = Market(snapshot)
    rests = tuple(_rests(snapshot, market))
    if len({rest.job.id for rest in rests if rest.job.deadline_us is not None}) < 2:  # noqa: PLR2004
        return None
    offers = snapshot.offers
    edges_us = _edges(snapshot.now_us, offers, until_us=max(rest.until_us for rest in rests))
    supply = _supply(market, rests, edges_us)
    never = float(supply.usd.max()) * _NEVER_USD
    classes = _classes(rests, edges_us)
    demands = [_demand(alike, edges_us, late_usd=never) for alike in classes]
    if inflow is not None:
        everything = tuple(i for i, offer in enumerate(offers) if offer.flavor.gpu_milli)
        demands += _expected(inflow, edges_us, everything, late_usd=never)
    return Forecast(
        at_us=snapshot.now_us,
        classes=classes,
        offers=offers,
        supply=supply,
        program=build(supply, demands),
    )


def read(given: Forecast, solution: Solution, *, again_us: int) -> Horizon:
    """Say in our units what the optimum says."""
    known = len(given.classes)
    parts = shares(given.program, solution)[:known]
    values = worths(given.program, solution)[:known]
    now = shadows(given.program, solution)[:, 0]
    return Horizon(
        at_us=given.at_us,
        again_us=again_us,
        worths=dict(
            worth
            for alike, value, part in zip(given.classes, values, parts, strict=True)
            for worth in _worths(alike, usd=float(value), part_usd=float(part))
        ),
        places={
            offer.flavor.name: Place(
                weight_permille=round(1_000 * weight),
                shadow_usd_nanos=_nanos(shadow * offer.flavor.gpu_milli / 1_000),
            )
            for offer, weight, shadow in zip(given.offers, given.supply.weight, now, strict=True)
        },
        bound_usd_nanos=_nanos(parts.sum()),
        variables=len(given.program.cost),
        iterations=solution.iterations,
    )


def _worths(alike: tuple[Rest, ...], *, usd: float, part_usd: float) -> Iterator[tuple[str, Worth]]:
    """Give each job of a class the class's price, and its part of the money by its hours."""
    total = max(1e-9, sum(rest.gpu_hours for rest in alike))
    for rest in alike:
        yield (
            rest.job.id,
            Worth(
                usd_nanos=_nanos(usd),
                rest_usd_nanos=_nanos(part_usd * rest.gpu_hours / total),
                gpu_ms=round(rest.gpu_hours * MS_PER_HOUR),
            ),
        )


def _nanos(usd: float) -> int:
    return round(float(usd) * NANOS_PER_USD)


# -- what has to be done ----------------------------------------------------------------------


def _rests(snapshot: Snapshot, market: Market) -> Iterator[Rest]:
    """Give every job that the plan is for.

    A job whose work nobody knows, or that uses no GPU, is left out; so is one that waits without
    a deadline, for it takes what others leave.
    """
    for job in snapshot.queued:
        if job.deadline_us is not None and not (job.held or job.cancel_requested):
            yield from _rest(job, market, ms=job.remaining_ms(), waits=True)
    for live in snapshot.live:
        yield from _rest(live.job, market, ms=_left_ms(live, snapshot.now_us), waits=False)


def _left_ms(live: LiveAttempt, now_us: int) -> int:
    job, attempt = live.job, live.attempt
    if attempt.training_us is None:
        return job.remaining_ms()
    return min(
        work_if_lost_ms(job, attempt, now_us=now_us),
        job.remaining_ms(step=max(job.step, attempt.first_step)),
    )


def _rest(job: JobRow, market: Market, *, ms: int, waits: bool) -> Iterator[Rest]:
    offers = market.allowed(job.spec)
    usable = [o for o in offers if is_sure(o.flavor) or not job.on_safety_net] or list(offers)
    if not job.work_ms or not job.spec.gpu_milli or not usable:
        return
    again_ms = max(overhead_ms(job, offer.flavor, restores=True) for offer in usable)
    again_ms += at_risk_ms(job.spec, ms) // 2
    needed_ms = guarded_ms(job.spec, ms, settings=market.settings)
    if waits:
        needed_ms += max(overhead_ms(job, o.flavor, restores=job.attempts > 0) for o in usable)
    at = {name: index for index, name in enumerate(market.offers)}
    until_us = job.deadline_us or market.now_us + needed_ms * US_PER_MS
    yield Rest(
        job=job,
        hours=needed_ms / MS_PER_HOUR,
        changeover_h=again_ms / MS_PER_HOUR,
        until_us=min(until_us, market.now_us + int(_LONGEST_H * US_PER_HOUR)),
        flavors=tuple(sorted(at[offer.flavor.name] for offer in usable)),
    )


def _classes(rests: tuple[Rest, ...], edges_us: Ints) -> tuple[tuple[Rest, ...], ...]:
    """Group jobs that are alike, where there are too many for a row each.

    Alike are jobs that may use the same flavors, are due in the same slot and need about the same
    part of the time until then.
    """
    if len(rests) <= _ALONE_JOBS:
        return tuple((rest,) for rest in rests)
    classes: dict[tuple[Group, int, int], list[Rest]] = {}
    for rest in rests:
        left_h = (rest.until_us - int(edges_us[0])) / US_PER_HOUR
        tight = min(_TIGHTS, int(_TIGHTS * rest.hours / max(left_h, 1e-9)))
        due = int(np.searchsorted(edges_us, rest.until_us))
        classes.setdefault((rest.flavors, due, tight), []).append(rest)
    return tuple(tuple(alike) for alike in classes.values())


def _demand(alike: tuple[Rest, ...], edges_us: Ints, *, late_usd: float) -> Demand:
    spans = np.array([rest.until_us for rest in alike])[:, None]
    hours = (np.minimum(edges_us[1:], spans) - edges_us[:-1]) / US_PER_HOUR
    most = np.array([rest.gpus for rest in alike]) @ np.maximum(0.0, hours)
    return Demand(
        group=alike[0].flavors,
        need=sum(rest.gpu_hours for rest in alike),
        first=0,
        most=most[most > 0],
        late_usd=late_usd,
    )


def _expected(inflow: Inflow, edges_us: Ints, group: Group, *, late_usd: float) -> list[Demand]:
    """Give a demand for what will be submitted in each slot of the next day."""
    hours = np.diff(edges_us) / US_PER_HOUR
    starts_h = (edges_us - edges_us[0]) / US_PER_HOUR
    found = []
    for slot in np.flatnonzero(starts_h[:-1] < _INFLOW_H).tolist():
        due_h = starts_h[slot] + inflow.span_h
        end = int(np.searchsorted(starts_h, due_h, side="right")) - 1
        if due_h > starts_h[-1] or end <= slot:
            break  # the program ends before this work could be done
        need = inflow.gpus * float(hours[slot])
        most = np.full(end - slot, need)
        found.append(Demand(group=group, need=need, first=slot, most=most, late_usd=late_usd))
    return found


# -- what there is ----------------------------------------------------------------------------


def _edges(now_us: int, offers: tuple[Offer, ...], *, until_us: int) -> Ints:
    """Give slots that grow with their distance, cut where a known price changes."""
    at_h, last_h = 0.0, max(_FIRST_H, (until_us - now_us) / US_PER_HOUR)
    found = [0.0]
    while at_h < last_h:
        at_h += max(_FIRST_H, at_h / _GROWTH)
        found.append(min(at_h, last_h))
    steps = {at_us for offer in offers for at_us, _ in offer.next_prices}
    grid = {now_us + round(one * US_PER_HOUR) for one in found}
    return np.array(sorted(grid | {one for one in steps if one < max(grid)}), dtype=np.int64)


def _supply(market: Market, rests: tuple[Rest, ...], edges_us: Ints) -> Supply:
    hours = np.diff(edges_us) / US_PER_HOUR
    listed = list(market.offers.values())
    gpus = np.array([offer.flavor.gpu_milli / 1_000 for offer in listed])
    weight = np.array([_weight(offer, rests) for offer in listed])
    prices = np.stack([_prices(market, offer, edges_us) for offer in listed])
    rooms = np.stack([_levels(offer, market.now_us, edges_us) for offer in listed])
    scale = np.divide(weight, gpus, out=np.zeros_like(gpus), where=gpus > 0)[:, None]
    return Supply(usd=prices * scale, room=rooms * hours * gpus[:, None], weight=weight)


def _weight(offer: Offer, rests: tuple[Rest, ...]) -> float:
    """Give the paid hours of a useful one: an eviction now and then costs a changeover."""
    total = sum(rest.hours for rest in rests)
    mean_h = sum(rest.hours * rest.changeover_h for rest in rests) / max(1e-9, total)
    return 1 + offer.hazard_per_million_hours / 1e6 * mean_h


def _prices(market: Market, offer: Offer, edges_us: Ints) -> Floats:
    """Give the mean price of a node in each slot, dollars per hour."""
    tape, found = market.tapes[offer.flavor.name], []
    for low, high in zip(edges_us[:-1].tolist(), edges_us[1:].tolist(), strict=True):
        back_us = _again_us(low - market.now_us)
        nanos = tape.cost(low - back_us, high - back_us)
        found.append(nanos * US_PER_HOUR / (high - low) / NANOS_PER_USD)
    return np.array(found)


def _again_us(ahead_us: int) -> int:
    """Give how far back the known price lies that stands for one so far ahead: whole days."""
    beyond_h = ahead_us / US_PER_HOUR - (_KNOWN_H - _DAY_H)
    return max(0, int(beyond_h // _DAY_H)) * int(_DAY_H) * US_PER_HOUR


def _levels(offer: Offer, now_us: int, edges_us: Ints) -> Floats:
    """Give how many nodes can be expected to be up in each slot."""
    if is_sure(offer.flavor):
        return np.full(len(edges_us) - 1, float(offer.limit))
    up = offer.limit > 0
    spell = present([offer.levels], nodes=max(1, offer.limit // 2), now_us=now_us, up=up)
    factor = spell.up_factor if up else spell.down_factor
    middles_h = ((edges_us[:-1] + edges_us[1:]) / 2 - now_us) / US_PER_HOUR
    young = spell.age_h + YOUNG_H
    lasts = (young / (young + middles_h)) ** (HAZARD * factor)
    found = np.asarray(lasts * offer.limit + (1 - lasts) * _mean_level(offer, now_us))
    found[0] = offer.limit  # the first slot is now
    return found


def _mean_level(offer: Offer, now_us: int) -> float:
    """Give the mean of the flavor's observed levels, over time, from half of the most on."""
    ends = [*(at_us for at_us, _ in offer.levels[1:]), now_us]
    seen_h = area = 0.0
    for (from_us, level), end_us in zip(offer.levels, ends, strict=False):
        hours = max(0, end_us - from_us) / US_PER_HOUR
        seen_h, area = seen_h + hours, area + hours * level
    prior = max(offer.flavor.max_nodes, offer.limit) / 2
    return (area + _MEAN_AFTER_H * prior) / (seen_h + _MEAN_AFTER_H)
