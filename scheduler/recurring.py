"""When a schedule occurs: cron expressions in the wall-clock time of a zone.

APScheduler's ``CronTrigger`` walks the wall clock (it is asked in UTC, so it never meets a change);
``scheduler.windows`` turns wall-clock times into instants:

- a time that spring skips counts as the moment of the change;
- of a time that autumn repeats, the first counts; with ``*`` or ``*/n`` as the hour, both do, so an
  hourly job occurs every hour.

The fields are those of crontab: Sunday is 0 or 7, and where both the day of the month and the day
of the week are given, either is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from jobs.durations import from_us
from jobs.errors import SpecError
from jobs.recurrence import ScheduleSpec
from scheduler.windows import instant_us

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_AROUND = timedelta(hours=3)  # more than any change of the clock
_FAR = timedelta(days=366 * 9)  # longer than from one 29 February to the next
_STEP = timedelta(seconds=1)


def next_us(spec: ScheduleSpec, after_us: int) -> int | None:
    """Give the first occurrence strictly after an instant, None when there is none.

    Raises:
        SpecError: the cron expression is not one.
    """
    if spec.starts_us is not None:
        after_us = max(after_us, spec.starts_us - 1)
    found = _next(spec.cron, spec.time_zone, after_us)
    beyond = found is not None and spec.ends_us is not None and found > spec.ends_us
    return None if beyond else found


def check(spec: ScheduleSpec, *, now_us: int) -> int:
    """Give the first occurrence from now on.

    Raises:
        SpecError: the cron expression is not one, or nothing is left of the schedule.
    """
    first_us = next_us(spec, now_us)
    if first_us is None:
        raise SpecError(
            f"The schedule '{spec.name}' never occurs: '{spec.cron}' has no instant "
            "between now, `starts` and `ends`.",
            remedy="Correct `cron`, `starts` or `ends`.",
        )
    return first_us


def occurrences(spec: ScheduleSpec, *, after_us: int, until_us: int) -> Iterator[int]:
    """Give all occurrences after an instant, up to and with another one."""
    at_us = next_us(spec, after_us)
    while at_us is not None and at_us <= until_us:
        yield at_us
        at_us = next_us(spec, at_us)


@lru_cache(maxsize=4_096)
def _next(cron: str, time_zone: str, after_us: int) -> int | None:
    """Look at wall-clock times around the instant: near a change their order is not time's."""
    zone = ZoneInfo(time_zone)
    folds = (0, 1) if cron.split()[1].startswith("*") else (0,)
    wall = from_us(after_us).astimezone(zone).replace(tzinfo=UTC) - _AROUND
    limit, best = wall + _FAR, None
    while (found := _next_wall(cron, wall)) is not None and found <= limit:
        midnight = datetime(found.year, found.month, found.day, tzinfo=UTC)
        second = int((found - midnight).total_seconds())
        for fold in folds:
            at_us = instant_us(found.date(), second, zone=zone, fold=fold)
            if at_us > after_us and (best is None or at_us < best):
                best, limit = at_us, min(limit, found + _AROUND)
        wall = found + _STEP
    return best


def _next_wall(cron: str, wall: datetime) -> datetime | None:
    found = [trigger.get_next_fire_time(None, wall) for trigger in _triggers(cron)]
    return min((one for one in found if one is not None), default=None)


@lru_cache(maxsize=1_024)
def _triggers(cron: str) -> tuple[CronTrigger, ...]:
    minute, hour, day, month, week_day = cron.split()
    either = not day.startswith("*") and not week_day.startswith("*")
    pairs = ((day, "*"), ("*", week_day)) if either else ((day, week_day),)
    try:
        return tuple(
            CronTrigger(
                minute=minute,
                hour=hour,
                day=one_day,
                month=month.lower(),
                day_of_week=_week_days(one_week_day),
                timezone=UTC,
                end_date=datetime(2200, 1, 1, tzinfo=UTC),
            )
            for one_day, one_week_day in pairs
        )
    except ValueError as error:
        raise SpecError(
            f"Field 'cron': '{cron}' is not a cron expression: {error}.",
            remedy="Write minute, hour, day of the month, month and day of the week: "
            "'30 2 * * mon-fri'.",
        ) from error


def _week_days(text: str) -> str:
    """Write crontab's days of the week, Sunday being 0 and 7, as names."""
    if text == "*":
        return text
    days = [name for part in text.lower().split(",") for name in _part(part)]
    return ",".join(dict.fromkeys(days))


def _part(text: str) -> list[str]:
    span, _, step = text.partition("/")
    first, dash, last = span.partition("-")
    begin = 0 if span == "*" else _day(first)
    end = 6 if span == "*" or (step and not dash) else _day(last) if dash else begin
    if end < begin:  # fri-mon
        end += 7
    width = int(step) if step.isdecimal() and int(step) else 1
    if step and not step.isdecimal():
        msg = f"'{text}' has a step that is no number"
        raise ValueError(msg)
    return [_DAYS[day % 7] for day in range(begin, end + 1, width)]


def _day(text: str) -> int:
    if text in _DAYS:
        return _DAYS.index(text)
    if text.isdecimal() and int(text) <= len(_DAYS):
        return int(text)
    msg = f"'{text}' is no day of the week"
    raise ValueError(msg)
