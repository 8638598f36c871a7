"""Cron in a time zone: what crontab means, also when the clock is changed."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.durations import from_us, to_us
from jobs.errors import SpecError
from jobs.recurrence import ScheduleSpec
from scheduler.recurring import check, next_us, occurrences


def schedule(cron: str, *, zone: str = "UTC", **fields: Any) -> ScheduleSpec:
    """Give a schedule of a small job."""
    job = fields.pop("job", {"script": "train.py"})
    return ScheduleSpec.model_validate(
        {"name": "nightly", "cron": cron, "time_zone": zone, "job": job, **fields}
    )


def after(spec: ScheduleSpec, start: str, *, count: int = 3) -> list[str]:
    """Give the next occurrences in UTC, to the minute."""
    start_us = to_us(datetime.fromisoformat(start))
    found = islice(occurrences(spec, after_us=start_us, until_us=start_us + 10**16), count)
    return [f"{from_us(at_us):%m-%d %H:%M}" for at_us in found]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("30 2 * * *", ["12-01 02:30", "12-02 02:30", "12-03 02:30"]),
        ("0 */8 * * *", ["12-01 08:00", "12-01 16:00", "12-02 00:00"]),
        ("0 6 * * mon-fri", ["12-01 06:00", "12-02 06:00", "12-03 06:00"]),
        ("0 6 * * 0", ["12-06 06:00", "12-13 06:00", "12-20 06:00"]),
        ("0 6 * * 7", ["12-06 06:00", "12-13 06:00", "12-20 06:00"]),
        ("0 6 * * 5-7", ["12-04 06:00", "12-05 06:00", "12-06 06:00"]),
        ("0 6 * * sat-mon", ["12-05 06:00", "12-06 06:00", "12-07 06:00"]),
        ("0 6 1 * *", ["12-01 06:00", "01-01 06:00", "02-01 06:00"]),
        ("0 6 10 * wed", ["12-02 06:00", "12-09 06:00", "12-10 06:00"]),
        ("0 6 29 2 *", ["02-29 06:00", "02-29 06:00", "02-29 06:00"]),
    ],
)
def test_it_means_what_crontab_means(cron: str, expected: list[str]) -> None:
    """Sunday is 0 and 7; with a day of the month and one of the week either is enough."""
    assert after(schedule(cron), "2026-12-01T00:00+00:00") == expected


def test_a_time_that_spring_skips_is_the_moment_of_the_change() -> None:
    """2:30 does not exist on 29 March 2026 in Berlin: it occurs at 3:00 summer time, once."""
    spec = schedule("30 2 * * *", zone="Europe/Berlin")
    assert after(spec, "2026-03-28T00:00+00:00") == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]


def test_a_time_that_autumn_repeats_occurs_once() -> None:
    """2:30 comes twice on 25 October 2026 in Berlin: the first counts."""
    spec = schedule("30 2 * * *", zone="Europe/Berlin")
    assert after(spec, "2026-10-24T12:00+00:00") == ["10-25 00:30", "10-26 01:30", "10-27 01:30"]


def test_an_hourly_job_occurs_every_hour_also_when_the_clock_is_changed() -> None:
    """No hour is left out and none comes twice, in spring and in autumn."""
    spec = schedule("0 * * * *", zone="Europe/Berlin")
    spring = after(spec, "2026-03-28T23:30+00:00", count=4)
    assert spring == ["03-29 00:00", "03-29 01:00", "03-29 02:00", "03-29 03:00"]
    autumn = after(spec, "2026-10-24T23:30+00:00", count=4)
    assert autumn == ["10-25 00:00", "10-25 01:00", "10-25 02:00", "10-25 03:00"]


def test_it_occurs_between_its_start_and_its_end() -> None:
    """Both ends count."""
    spec = schedule("0 6 * * *", starts="2026-12-03T06:00+00:00", ends="2026-12-04T06:00+00:00")
    assert after(spec, "2026-12-01T00:00+00:00") == ["12-03 06:00", "12-04 06:00"]
    assert next_us(spec, to_us(datetime.fromisoformat("2026-12-04T06:00+00:00"))) is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"cron": "0 6 * *"}, "5 fields"),
        ({"time_zone": "Mars/Olympus"}, "no time zone"),
        ({"time_zone": "../etc/passwd"}, "no time zone"),
        ({"starts": "2026-12-01T00:00"}, "timezone"),
        ({"starts": "2026-12-02T00:00Z", "ends": "2026-12-01T00:00Z"}, "ends before it starts"),
        ({"job": {"script": "t.py", "deadline": "2026-12-01T06:00Z"}}, "must be a duration"),
        ({"overlap": "both"}, "overlap"),
        ({"name": "no/slash"}, "name"),
    ],
)
def test_a_wrong_schedule_is_refused(fields: dict[str, Any], says: str) -> None:
    """The cause names the field."""
    with pytest.raises(ValidationError) as refused:
        schedule(**{"cron": "0 6 * * *", **fields})
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "cron", ["61 6 * * *", "0 6 * * funday", "0 6 * * 8", "x 6 * * *", "0 6 30 2 *", "0 6 * * 1/x"]
)
def test_an_expression_that_never_occurs_is_refused(cron: str) -> None:
    """Whether it is wrong or names no day that exists."""
    with pytest.raises(SpecError):
        check(schedule(cron), now_us=to_us(datetime.fromisoformat("2026-12-01T00:00+00:00")))
