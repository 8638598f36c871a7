"""Price windows: recurring intervals, with a time zone, in which capacity is cheaper.

Times are wall-clock times of the zone, so a window keeps its local hours over a DST change: one
from 22:00 to 06:00 is an hour shorter in the night of the spring change and an hour longer in
autumn. A wall-clock time that spring skips counts as the moment of the change; of one that
autumn repeats, a start takes the first and an end the second occurrence. A window belongs to the
local day on which it starts, also when it runs over midnight; so does a holiday.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cluster.flavors import Flavor
from jobs.durations import US_PER_S, from_us, to_us

_DAY_US = 86_400 * US_PER_S
_SEARCH_DAYS = 16  # a weekly window, one of whose days the spring change may empty
_MOST_CLOSED_DAYS = 60  # holidays that may close it week after week


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceWindow:
    """A flavor filter, a schedule and what the price becomes inside it.

    ``start`` and ``end`` are seconds after local midnight; ``end <= start`` runs over midnight.
    ``price_percent`` multiplies the base price (60 = 40 % cheaper); a tariff replaces it. Hours
    of capacity that is paid for anyway (reserved-idle) cost 0, or what is charged back for them.
    """

    name: str
    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)  # Monday = 0, local day of the start
    only_on: tuple[int, ...] | None = None  # local days since 1970, ascending; None = any
    not_on: tuple[int, ...] = ()
    start_s: int = 0
    end_s: int = 0
    time_zone: str = "UTC"
    flavors: tuple[str, ...] = ()  # names; empty = any
    markets: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    price_percent: int = 100
    tariff_usd_nanos_per_hour: int | None = None  # per node; instead of the percentage
    rests_on: str = "tariff"  # tariff | reserved-idle | chargeback | availability


def applies(window: PriceWindow, flavor: Flavor) -> bool:
    """Say whether the window's filter takes the flavor; an empty filter takes any."""
    filters = (
        (window.flavors, flavor.name),
        (window.markets, flavor.market.value),
        (window.accelerators, flavor.accelerator),
        (window.regions, flavor.region),
        (window.zones, flavor.zone),
    )
    return all(not allowed or value in allowed for allowed, value in filters)


def open_at(window: PriceWindow, at_us: int) -> bool:
    """Say whether the window is open at an instant; its start is inside, its end is not."""
    return any(start <= at_us < end for start, end in _spans(window, at_us, days=1))


def next_edge_us(window: PriceWindow, after_us: int) -> int | None:
    """Give the first opening or closing strictly after an instant, None when it never opens.

    Where one opening of the window meets the next (open all day, every day) there is no edge.
    """
    days = _SEARCH_DAYS + 7 * min(len(window.not_on), _MOST_CLOSED_DAYS)
    for start, end in _joined(_spans(window, after_us, days=days)):
        if start > after_us:
            return start
        if end > after_us:
            ends = window.only_on is not None or end < after_us + (days - 2) * _DAY_US
            return end if ends else None
    return None


def _spans(window: PriceWindow, at_us: int, *, days: int) -> Iterator[tuple[int, int]]:
    """Give the openings of local days from two before ``at_us`` on, in order, none empty."""
    first = at_us // _DAY_US - 2  # zones are less than a day from UTC; a window may be a day long
    for day in _days(window, first=first, last=first + days + 2):
        span = _span(window, day)
        if span is not None and span[0] < span[1]:
            yield span


def _days(window: PriceWindow, *, first: int, last: int) -> Iterable[int]:
    """Give the days to look at; a list of dates is looked at to its end, however far it is."""
    if window.only_on is None:
        return range(first, last + 1)
    far = last - first > _SEARCH_DAYS
    return (day for day in window.only_on if day >= first and (far or day <= last))


def _joined(spans: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Make one of spans that touch or overlap."""
    held: tuple[int, int] | None = None
    for span in spans:
        if held is None or span[0] > held[1]:
            if held is not None:
                yield held
            held = span
        else:
            held = (held[0], max(held[1], span[1]))
    if held is not None:
        yield held


@lru_cache(maxsize=65_536)
def _span(window: PriceWindow, day: int) -> tuple[int, int] | None:
    """Give (start_us, end_us) of the opening that begins on a local day (days since 1970)."""
    local = date(1970, 1, 1) + timedelta(days=day)
    if local.weekday() not in window.days or day in window.not_on:
        return None
    last = local if window.end_s > window.start_s else local + timedelta(days=1)
    zone = ZoneInfo(window.time_zone)
    start = instant_us(local, window.start_s, zone=zone, fold=0)
    return start, instant_us(last, window.end_s, zone=zone, fold=1)


def instant_us(day: date, second: int, *, zone: ZoneInfo, fold: int) -> int:
    """Turn a wall-clock time into an instant; a time that does not exist is the change itself."""
    naive = datetime(day.year, day.month, day.day) + timedelta(seconds=second)  # noqa: DTZ001
    local = naive.replace(tzinfo=zone, fold=fold)
    at_us = to_us(local.astimezone(UTC))
    if from_us(at_us).astimezone(zone).replace(tzinfo=None) == naive:
        return at_us
    bounds = sorted(to_us(local.replace(fold=one).astimezone(UTC)) for one in (0, 1))
    return _change_us(zone, low_us=bounds[0], high_us=bounds[1])


def _change_us(zone: ZoneInfo, *, low_us: int, high_us: int) -> int:
    """Find the first second with the later offset, between two instants around one change."""
    before = from_us(low_us).astimezone(zone).utcoffset()
    while high_us - low_us > US_PER_S:
        middle = (low_us + high_us) // 2 // US_PER_S * US_PER_S
        if from_us(middle).astimezone(zone).utcoffset() == before:
            low_us = middle
        else:
            high_us = middle
    return high_us
