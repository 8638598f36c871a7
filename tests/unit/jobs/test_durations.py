"""Durations and instants as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.durations import (
    MAX_MS,
    format_duration,
    from_us,
    parse_deadline,
    parse_duration_ms,
    show_duration,
    to_us,
)


@given(st.integers(0, MAX_MS))
def test_written_durations_read_back_exactly(ms: int) -> None:
    """Formatting loses nothing, so a spec that is stored is the spec that was sent."""
    assert parse_duration_ms(format_duration(ms)) == ms


@given(st.integers(0, MAX_MS // 1_000))
def test_a_number_is_seconds(seconds: int) -> None:
    """As integer, text, float or timedelta."""
    for value in (seconds, str(seconds), float(seconds), timedelta(seconds=seconds)):
        assert parse_duration_ms(value) == seconds * 1_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("6h30m", 23_400_000),
        ("90s", 90_000),
        ("2.5h", 9_000_000),
        ("1d 2h", 93_600_000),
        ("500ms", 500),
        ("1M", 60_000),
        ("0", 0),
        (0.25, 250),
    ],
)
def test_forms(text: object, ms: int) -> None:
    """Every form that the documentation names."""
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize(
    "value",
    [
        *("", "soon", "5 parsecs", "-5s", "-5", "6h30", "h", "1h,2m", "1e3", "36526d"),
        *(-1, -0.5, True, None, float("inf"), float("nan"), "9" * 400, "9" * 400 + "h", 10**30),
    ],
)
def test_what_is_no_duration_is_a_value_error(value: object) -> None:
    """Never an OverflowError or a silent zero: the field is named to the user."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration_ms(value)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)))  # noqa: DTZ001
def test_instants_round_trip(moment: datetime) -> None:
    """Microseconds hold a datetime exactly, whatever its offset."""
    aware = moment.replace(tzinfo=UTC)
    assert from_us(to_us(aware)) == aware
    elsewhere = aware.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert to_us(elsewhere) == to_us(aware)


def test_a_deadline_is_an_instant_or_a_duration() -> None:
    """An instant keeps its offset; without one it is refused."""
    instant = parse_deadline("2026-12-01T06:00+01:00")
    assert isinstance(instant, datetime)
    assert to_us(instant) == to_us(datetime(2026, 12, 1, 5, tzinfo=UTC))
    assert parse_deadline("6h") == 21_600_000
    with pytest.raises(ValueError, match="time zone"):
        parse_deadline("2026-12-01T06:00")
    with pytest.raises(ValueError, match=r"[Ii]nvalid|month"):
        parse_deadline("2026-13-01T06:00+01:00")


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (0, "0 s"),
        (45_000, "45 s"),
        (720_000, "12 min"),
        (22_320_000, "6.2 h"),
        (267_840_000, "3.1 d"),
    ],
)
def test_shown_durations(ms: int, shown: str) -> None:
    """One unit, as a person would say it."""
    assert show_duration(ms) == shown
