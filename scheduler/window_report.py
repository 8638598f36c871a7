"""What price windows do: open or not, at which price, who waits for them, what a change would do.

Pure: everything follows from the snapshot that the loop saw last and a price book. ``starts`` asks
the policy itself for each waiting job, so a trial answers as the loop would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import combinations
from zoneinfo import ZoneInfo

from cluster.flavors import Flavor
from cluster.offers import Offer
from jobs.durations import US_PER_MS, from_us, show_duration
from jobs.reasons import Reason
from jobs.rows import JobRow
from scheduler.lowtide import best_later
from scheduler.market import Market
from scheduler.price_book import PriceBook, under
from scheduler.sentences import show_instant
from scheduler.snapshot import Snapshot
from scheduler.spot_policy import case_of, nominate
from scheduler.suspension import choose
from scheduler.windows import PriceWindow, applies, next_edge_us, open_at
from scheduler.wishes import Later, Wish

AHEAD_US = 7 * 24 * 3_600_000_000
"""How far a trial looks into known prices: as far as the loop does."""
_EDGES = 40  # of a window that are looked at to find an overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """The price of a flavor inside a window, and outside of all windows."""

    flavor: str
    usd_nanos_per_hour: int
    base_usd_nanos_per_hour: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowNow:
    """A window as of an instant."""

    name: str
    rests_on: str
    open: bool
    next_edge_us: int | None  # None = it never changes
    next_edge: str  # the same in the window's own time, for people
    time_zone: str
    prices: tuple[Inside, ...]
    waiting: tuple[str, ...]  # jobs that wait to start in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """When a waiting job starts, as far as prices decide it, and what its rest costs then."""

    job_id: str
    start_us: int | None  # None = it waits for something else
    cost_nanos: int | None
    reason: Reason | None  # of its wait; None = it starts now
    flavor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of one waiting job under other windows."""

    job_id: str
    before_us: int | None
    after_us: int | None
    saves_nanos: int  # of the rest of the job; negative = dearer


def repriced(snapshot: Snapshot, book: PriceBook) -> Snapshot:
    """Give the same world with the prices of another book."""
    now_us = snapshot.now_us
    offers = tuple(
        replace(
            offer,
            usd_nanos_per_hour=book.at(offer.flavor.name, now_us).usd_nanos_per_hour,
            next_prices=book.ahead(offer.flavor.name, now_us, now_us + AHEAD_US),
            price_rests_on=book.rests_on(offer.flavor.name, at_us=now_us),
        )
        for offer in snapshot.offers
    )
    return replace(snapshot, offers=offers)


def starts(snapshot: Snapshot) -> dict[str, Start]:
    """Ask the policy about each job that waits and is not held, as if each were alone."""
    market = Market(snapshot)
    free = (job for job in snapshot.queued if not (job.held or job.cancel_requested))
    return {job.id: _start(job, market) for job in free if market.allowed(job.spec)}


def _start(job: JobRow, market: Market) -> Start:
    (answer,) = nominate([job], market=market)
    if isinstance(answer, Wish):
        best = min(answer.choices, key=lambda choice: choice.key, default=None)
        return Start(
            job_id=job.id,
            start_us=None if best is None else market.now_us,
            cost_nanos=None if best is None else best.cost_nanos,
            reason=None,
            flavor="" if best is None else best.flavor.name,
        )
    later = _later(job, market) if answer.reason is Reason.WAITS_FOR_WINDOW else None
    return Start(
        job_id=job.id,
        start_us=None if later is None else later.start_us,
        cost_nanos=None if later is None else later.cost_nanos,
        reason=answer.reason,
        flavor="" if later is None else later.choice.flavor.name,
    )


def _later(job: JobRow, market: Market) -> Later | None:
    case = case_of(job, market=market)
    everywhere = (*case.spots, *case.sures)
    return choose(case, everywhere, single=best_later(case, everywhere))


def changes(before: Mapping[str, Start], after: Mapping[str, Start]) -> list[Change]:
    """Give the jobs that start at another time or cost another amount, the most money first."""
    found = []
    for job_id, old in before.items():
        new = after.get(job_id)
        if new is None or (old.start_us, old.cost_nanos) == (new.start_us, new.cost_nanos):
            continue
        saves = 0
        if old.cost_nanos is not None and new.cost_nanos is not None:
            saves = old.cost_nanos - new.cost_nanos
        found.append(
            Change(job_id=job_id, before_us=old.start_us, after_us=new.start_us, saves_nanos=saves)
        )
    return sorted(found, key=lambda change: (-abs(change.saves_nanos), change.job_id))


def windows_now(
    windows: Iterable[PriceWindow],
    *,
    flavors: Iterable[Flavor],
    base: Mapping[str, int],
    waiting: Iterable[Start],
    now_us: int,
) -> list[WindowNow]:
    """Give each window as of now; ``base`` is each flavor's price outside of all windows."""
    kinds, waits = list(flavors), [one for one in waiting if one.reason is not None]
    return [_now(window, kinds, base, waits, now_us=now_us) for window in windows]


def _now(
    window: PriceWindow,
    flavors: list[Flavor],
    base: Mapping[str, int],
    waits: list[Start],
    *,
    now_us: int,
) -> WindowNow:
    mine = [flavor for flavor in flavors if applies(window, flavor)]
    names, edge_us = {flavor.name for flavor in mine}, next_edge_us(window, now_us)
    return WindowNow(
        name=window.name,
        rests_on=window.rests_on,
        open=open_at(window, now_us),
        next_edge_us=edge_us,
        next_edge="never" if edge_us is None else local(edge_us, window.time_zone),
        time_zone=window.time_zone,
        prices=tuple(
            Inside(
                flavor=flavor.name,
                usd_nanos_per_hour=under((window,), base[flavor.name])[0],
                base_usd_nanos_per_hour=base[flavor.name],
            )
            for flavor in mine
        ),
        waiting=tuple(
            one.job_id
            for one in waits
            if one.start_us is not None and one.flavor in names and open_at(window, one.start_us)
        ),
    )


def local(at_us: int, time_zone: str) -> str:
    """Write an instant in a zone's own time: ``Tue 24 Nov 22:00 CET``."""
    at: datetime = from_us(at_us).astimezone(ZoneInfo(time_zone))
    return f"{at:%a} {at.day} {at:%b %H:%M %Z}"


def stale(offers: Iterable[Offer], *, now_us: int) -> list[str]:
    """Say which prices are old because their feed has stopped."""
    return [
        f"The price of {one.flavor.name} was last heard {show_instant(one.price_heard_us)}, "
        f"{show_duration((now_us - one.price_heard_us) // US_PER_MS)} ago: decisions take it as "
        f"{one.price_doubt_permille / 10:g} % dearer."
        for one in offers
        if one.price_heard_us is not None
    ]


def warnings(
    windows: Iterable[PriceWindow], *, flavors: Iterable[Flavor], now_us: int
) -> list[str]:
    """Say what is allowed and may still be a mistake: windows that overlap, or do nothing."""
    listed, kinds, found = list(windows), list(flavors), []
    for window in listed:
        if not any(applies(window, flavor) for flavor in kinds):
            found.append(f"Window '{window.name}' applies to no flavor that is configured.")
        if not open_at(window, now_us) and next_edge_us(window, now_us) is None:
            found.append(f"Window '{window.name}' never opens again.")
    for one, other in combinations(listed, 2):
        shared = [f.name for f in kinds if applies(one, f) and applies(other, f)]
        at_us = _overlap_us(one, other, now_us=now_us) if shared else None
        if at_us is not None:
            found.append(
                f"Windows '{one.name}' and '{other.name}' are both open for {shared[0]} at "
                f"{local(at_us, one.time_zone)}: the lowest price wins."
            )
    return found


def _overlap_us(one: PriceWindow, other: PriceWindow, *, now_us: int) -> int | None:
    """Give the first instant at which both are open: now, or an edge of one of them."""
    edges = sorted({now_us, *_edges(one, now_us), *_edges(other, now_us)})
    return next((at for at in edges if open_at(one, at) and open_at(other, at)), None)


def _edges(window: PriceWindow, now_us: int) -> list[int]:
    found: list[int] = []
    at_us = next_edge_us(window, now_us)
    while at_us is not None and len(found) < _EDGES:
        found.append(at_us)
        at_us = next_edge_us(window, at_us)
    return found
