"""Price windows by wall clock: over midnight, over DST changes, on chosen days."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.durations import from_us, to_us
from scheduler.windows import PriceWindow, applies, next_edge_us, open_at
from tests.unit.scheduler.worlds import HOUR, a_flavor

BERLIN = ZoneInfo("Europe/Berlin")
H = 3_600
NIGHT = PriceWindow(name="night", start_s=22 * H, end_s=6 * H, time_zone="Europe/Berlin")


def berlin(year: int, month: int, day: int, hour: int, minute: int = 0, fold: int = 0) -> int:
    """Give a Berlin wall-clock time in microseconds."""
    local = datetime(year, month, day, hour, minute, tzinfo=BERLIN, fold=fold)
    return to_us(local.astimezone(UTC))


def edges(window: PriceWindow, after_us: int, count: int) -> list[int]:
    """Give the next edges."""
    found = []
    for _ in range(count):
        edge = next_edge_us(window, after_us)
        assert edge is not None
        found.append(edge)
        after_us = edge
    return found


def test_a_window_runs_over_midnight() -> None:
    """It is open on both sides of midnight, its start inside and its end outside."""
    start, end = edges(NIGHT, berlin(2026, 6, 3, 12), 2)
    assert (start, end) == (berlin(2026, 6, 3, 22), berlin(2026, 6, 4, 6))
    assert open_at(NIGHT, start)
    assert open_at(NIGHT, berlin(2026, 6, 4, 3))
    assert open_at(NIGHT, end - 1)
    assert not open_at(NIGHT, end)
    assert not open_at(NIGHT, start - 1)


@pytest.mark.parametrize(
    ("day", "hours"), [((2026, 3, 28), 7), ((2026, 10, 24), 9), ((2026, 6, 3), 8)]
)
def test_a_window_keeps_its_local_hours_over_a_dst_change(
    day: tuple[int, int, int], hours: int
) -> None:
    """The night of the spring change is an hour shorter, that of autumn an hour longer."""
    start, end = edges(NIGHT, berlin(*day, 12), 2)
    assert from_us(start).astimezone(BERLIN).hour == 22
    assert from_us(end).astimezone(BERLIN).hour == 6
    assert end - start == hours * HOUR


def test_a_start_that_spring_skips_is_the_change_itself() -> None:
    """02:30 does not exist on that night, so the window opens at 03:00 summer time."""
    window = PriceWindow(name="w", start_s=9_000, end_s=4 * H, time_zone="Europe/Berlin")
    start, end = edges(window, berlin(2026, 3, 29, 0), 2)
    assert start == to_us(datetime(2026, 3, 29, 1, tzinfo=UTC))
    assert end - start == HOUR


def test_a_window_wholly_inside_the_skipped_hour_stays_shut() -> None:
    """It has no instant on that day and opens again on the next."""
    window = PriceWindow(name="w", start_s=7_500, end_s=9_900, time_zone="Europe/Berlin")
    assert edges(window, berlin(2026, 3, 29, 0), 1) == [berlin(2026, 3, 30, 2, 5)]


def test_a_repeated_hour_starts_once_and_ends_late() -> None:
    """In autumn 02:30 comes twice: the first opens the window, the second closes it."""
    opens = PriceWindow(name="w", start_s=9_000, end_s=4 * H, time_zone="Europe/Berlin")
    closes = PriceWindow(name="w", start_s=H, end_s=9_000, time_zone="Europe/Berlin")
    noon = berlin(2026, 10, 24, 12)
    assert edges(opens, noon, 1) == [berlin(2026, 10, 25, 2, 30, fold=0)]
    assert edges(closes, noon, 2)[1] == berlin(2026, 10, 25, 2, 30, fold=1)


def test_days_are_those_of_the_start() -> None:
    """A Friday window that runs over midnight is open on Saturday morning, not on Friday's."""
    window = PriceWindow(name="w", days=(4,), start_s=22 * H, end_s=6 * H)
    saturday = to_us(datetime(2026, 6, 6, 3, tzinfo=UTC))
    assert open_at(window, saturday)
    assert not open_at(window, saturday - 24 * HOUR)
    assert next_edge_us(window, saturday + 4 * HOUR) == to_us(datetime(2026, 6, 12, 22, tzinfo=UTC))


def test_a_window_that_is_always_open_has_no_edge_and_one_without_days_never_opens() -> None:
    """Midnight is no edge where one day's opening meets the next."""
    now = to_us(datetime(2026, 6, 6, 3, tzinfo=UTC))
    assert open_at(PriceWindow(name="all"), now)
    assert next_edge_us(PriceWindow(name="all"), now) is None
    assert not open_at(PriceWindow(name="none", days=()), now)
    assert next_edge_us(PriceWindow(name="none", days=()), now) is None


def test_filters_pick_flavors() -> None:
    """Every filter that is set must take the flavor; one that is empty takes any."""
    spot, sure = a_flavor("spot-a"), a_flavor("sure")
    assert applies(PriceWindow(name="any"), spot)
    assert applies(PriceWindow(name="spot", markets=("spot",)), spot)
    assert not applies(PriceWindow(name="spot", markets=("spot",)), sure)
    assert not applies(PriceWindow(name="w", markets=("spot",), regions=("west",)), spot)
    assert applies(PriceWindow(name="w", flavors=("sure",), accelerators=("V100",)), sure)


@given(
    days=st.lists(st.integers(0, 6), min_size=1, unique=True),
    start_s=st.integers(0, 24 * 60 - 1).map(lambda minute: minute * 60),
    end_s=st.integers(0, 24 * 60 - 1).map(lambda minute: minute * 60),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
    at=st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1)),  # noqa: DTZ001
)
def test_between_two_edges_a_window_does_not_change(
    days: list[int], start_s: int, end_s: int, zone: str, at: datetime
) -> None:
    """``open_at`` changes exactly at the edges that ``next_edge_us`` gives."""
    window = PriceWindow(name="w", days=tuple(days), start_s=start_s, end_s=end_s, time_zone=zone)
    now = to_us(at.replace(tzinfo=UTC))
    edge = next_edge_us(window, now)
    until = now + 8 * 24 * HOUR if edge is None else edge
    assert len({open_at(window, now + (until - now) * i // 40) for i in range(40)}) == 1
    assert edge is None or open_at(window, edge) != open_at(window, edge - 1)
