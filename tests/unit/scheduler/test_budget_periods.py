"""Periods and hours of budgets: months, leap days, DST, and hours over midnight."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.budget import Budget, Hours, Period
from jobs.durations import to_us
from scheduler.budget_periods import next_until_us, open_until_us, opens_us, period_of

HOUR = 3_600_000_000


def us(text: str) -> int:
    """Read an instant with its offset."""
    return to_us(datetime.fromisoformat(text).astimezone(UTC))


def a_budget(period: Period, zone: str = "Europe/Berlin", **fields: Any) -> Budget:
    """Give a budget of everybody."""
    known: dict[str, Any] = {"name": "b", "owner": (), "limit_usd_nanos": 1}
    return Budget(**{**known, "period": period, "time_zone": zone, **fields})


@pytest.mark.parametrize(
    ("period", "at", "begins", "ends"),
    [
        ("day", "2026-03-29T12:00+02:00", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"),
        ("day", "2026-10-25T12:00+01:00", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"),
        ("week", "2026-01-01T00:00+01:00", "2025-12-29T00:00+01:00", "2026-01-05T00:00+01:00"),
        ("month", "2026-03-31T23:59+02:00", "2026-03-01T00:00+01:00", "2026-04-01T00:00+02:00"),
        ("month", "2028-02-29T23:59+01:00", "2028-02-01T00:00+01:00", "2028-03-01T00:00+01:00"),
        ("month", "2026-12-31T23:59+01:00", "2026-12-01T00:00+01:00", "2027-01-01T00:00+01:00"),
    ],
)
def test_a_period_is_that_of_the_calendar_on_the_wall(
    period: str, at: str, begins: str, ends: str
) -> None:
    """A day of a DST change has 23 or 25 hours, February 29 days in a leap year."""
    assert period_of(a_budget(Period(period)), us(at)) == (us(begins), us(ends))


def test_a_midnight_that_a_zone_skips_is_the_moment_of_the_change() -> None:
    """In Santiago clocks go from 23:59:59 to 01:00 on 6 September 2026."""
    day = a_budget(Period.DAY, "America/Santiago")
    begins, ends = period_of(day, us("2026-09-06T12:00-03:00"))
    assert begins == us("2026-09-06T00:00-04:00") == us("2026-09-06T01:00-03:00")
    assert ends is not None
    assert ends - begins == 23 * HOUR


@given(
    st.sampled_from([Period.DAY, Period.WEEK, Period.MONTH]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe"]),
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_periods_follow_each_other_without_a_gap(period: Period, zone: str, at: datetime) -> None:
    """Every instant is in one period, which begins at a midnight; the next begins as it ends."""
    budget = a_budget(period, zone)
    begins, ends = period_of(budget, to_us(at))
    assert ends is not None
    assert begins <= to_us(at) < ends
    assert period_of(budget, begins) == (begins, ends)
    assert period_of(budget, ends - 1) == (begins, ends)
    assert period_of(budget, ends) == (ends, next_until_us(budget, ends))
    local = datetime.fromtimestamp(begins // 10**6, tz=ZoneInfo(zone))
    assert local.hour * 60 + local.minute in {0, 30, 60}


def test_total_and_once_have_one_period() -> None:
    """Nothing follows them."""
    once = a_budget(Period.ONCE, from_us=5, until_us=9)
    assert period_of(once, 100) == (5, 9)
    assert period_of(a_budget(Period.TOTAL), 100) == (0, None)
    assert next_until_us(once, 9) is None


NIGHT = a_budget(Period.TOTAL, hours=(Hours(start_s=22 * 3_600, end_s=6 * 3_600),))


@pytest.mark.parametrize(
    ("at", "opens", "closes"),
    [
        ("2026-06-01T12:00+02:00", "2026-06-01T22:00+02:00", None),
        ("2026-06-01T22:00+02:00", "2026-06-01T22:00+02:00", "2026-06-02T06:00+02:00"),
        ("2026-06-02T05:59+02:00", "2026-06-02T05:59+02:00", "2026-06-02T06:00+02:00"),
        ("2026-03-28T23:00+01:00", "2026-03-28T23:00+01:00", "2026-03-29T06:00+02:00"),
    ],
)
def test_hours_over_midnight(at: str, opens: str, closes: str | None) -> None:
    """The night of a DST change keeps its hours on the wall."""
    assert opens_us(NIGHT, us(at)) == us(opens)
    assert open_until_us(NIGHT, us(at)) == us(closes or at)


def test_hours_that_touch_are_one_stretch() -> None:
    """From 22:00 to 24:00 and from 00:00 to 06:00 is one night; no hours bind nobody."""
    two = a_budget(Period.TOTAL, hours=(Hours(start_s=22 * 3_600), Hours(end_s=6 * 3_600)))
    at = us("2026-06-01T23:00+02:00")
    assert open_until_us(two, at) == at + 7 * HOUR
    assert open_until_us(a_budget(Period.TOTAL), at) is None
    weekend = a_budget(Period.TOTAL, hours=(Hours(days=(5,), start_s=8 * 3_600, end_s=9 * 3_600),))
    assert opens_us(weekend, at) == us("2026-06-06T08:00+02:00")
    assert timedelta(microseconds=opens_us(weekend, at) - at) < timedelta(days=7)
