"""When a budget's periods and hours begin and end: calendar arithmetic in a time zone.

A day begins at local midnight, a week on Monday, a month on its first; so the day of a DST change
has 23 or 25 hours, and February what it has. A midnight that a zone skips is the moment of the
change; of one that it repeats, the first one counts.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from jobs.budget import Budget, Hours, Period
from jobs.durations import from_us, to_us

_WEEK = 7
_AHEAD = 15  # days in which weekly hours must open again, one of them lost to a DST change
_DECEMBER = 12


def period_of(budget: Budget, at_us: int) -> tuple[int, int | None]:
    """Give [from, until) of the period that an instant lies in; until None = for ever.

    ``once`` has one period; an instant outside of it lies in it all the same.
    """
    if budget.period is Period.TOTAL:
        return 0, None
    if budget.period is Period.ONCE:
        assert budget.from_us is not None, f"{budget.name} has no beginning"
        return budget.from_us, budget.until_us
    zone = ZoneInfo(budget.time_zone)
    first = _first_day(budget.period, from_us(at_us).astimezone(zone).date())
    begins_us = midnight_us(first, zone)
    if begins_us > at_us:  # a midnight that is repeated later in the night
        first = _first_day(budget.period, first - timedelta(days=1))
        begins_us = midnight_us(first, zone)
    return begins_us, midnight_us(_next_first(budget.period, first), zone)


def next_until_us(budget: Budget, from_us_: int) -> int | None:
    """Give the end of the period that begins at an instant, None where none follows."""
    if budget.period in {Period.TOTAL, Period.ONCE}:
        return None
    return period_of(budget, from_us_)[1]


def midnight_us(day: date, zone: ZoneInfo) -> int:
    """Give the instant at which a local day begins."""
    return _wall_us(day, 0, zone)


def _first_day(period: Period, day: date) -> date:
    if period is Period.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period is Period.MONTH else day


def _next_first(period: Period, first: date) -> date:
    if period is Period.MONTH:
        year, month = divmod(first.year * _DECEMBER + first.month, _DECEMBER)
        return date(year, month + 1, 1)
    return first + timedelta(days=_WEEK if period is Period.WEEK else 1)


def _wall_us(day: date, second: int, zone: ZoneInfo) -> int:
    naive = datetime(day.year, day.month, day.day) + timedelta(seconds=second)  # noqa: DTZ001
    return to_us(naive.replace(tzinfo=zone).astimezone(UTC))


def open_until_us(budget: Budget, at_us: int) -> int | None:
    """Give until when money may be spent without a break; None = no hours bind it.

    Equal to ``at_us`` while the hours are closed. Hours that touch count as one stretch.
    """
    if not budget.hours:
        return None
    end_us = at_us
    for begins_us, ends_us in _openings(budget, at_us):
        if begins_us <= end_us < ends_us:
            end_us = ends_us
    return end_us


def opens_us(budget: Budget, at_us: int) -> int:
    """Give when the hours are open next: ``at_us`` itself if they are open, or bind nobody."""
    if not budget.hours or open_until_us(budget, at_us) != at_us:
        return at_us
    later = [begins for begins, _ in _openings(budget, at_us) if begins > at_us]
    assert later, f"the hours of {budget.name} never open"
    return later[0]


def _openings(budget: Budget, at_us: int) -> list[tuple[int, int]]:
    """Give the openings around and after an instant, by their beginnings, none empty."""
    zone = ZoneInfo(budget.time_zone)
    today = from_us(at_us).astimezone(zone).date()
    days = [today + timedelta(days=offset) for offset in range(-1, _AHEAD + 1)]
    spans = [_span(hours, day, zone) for day in days for hours in budget.hours]
    return sorted(span for span in spans if span is not None and span[0] < span[1])


def _span(hours: Hours, day: date, zone: ZoneInfo) -> tuple[int, int] | None:
    if day.weekday() not in hours.days:
        return None
    last = day if hours.end_s > hours.start_s else day + timedelta(days=1)
    return _wall_us(day, hours.start_s, zone), _wall_us(last, hours.end_s, zone)
