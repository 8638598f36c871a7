"""What windows do now, what may be a mistake in them, and what others would change."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cluster.prices import FlatPrices
from jobs.durations import to_us
from jobs.errors import FileFormatError
from jobs.reasons import Reason
from scheduler.price_book import PriceBook
from scheduler.snapshot import Snapshot
from scheduler.window_files import parse_windows
from scheduler.window_report import changes, repriced, starts, warnings, windows_now
from scheduler.windows import PriceWindow
from tests.unit.scheduler.worlds import HOUR, USD, S, a_flavor, a_job, a_world, an_offer

SURE = a_flavor("sure", usd=4)
NOON = to_us(datetime(2026, 6, 1, 12, tzinfo=UTC))
NIGHT = PriceWindow(
    name="night", start_s=22 * 3_600, end_s=6 * 3_600, time_zone="Europe/Berlin", price_percent=50
)
IDLE = PriceWindow(
    name="idle", start_s=21 * 3_600, end_s=23 * 3_600, price_percent=0, rests_on="reserved-idle"
)


def world(*windows: PriceWindow) -> Snapshot:
    """Give noon, a job of 2 h that is due in 20 h, and these windows."""
    job = a_job("a", submitted_s=NOON // S, work="2h", deadline="20h")
    book = PriceBook(FlatPrices([SURE]), [SURE], windows)
    return repriced(a_world(job, now_s=NOON // S, offers=(an_offer(SURE),)), book)


def test_a_window_says_what_it_does_now_in_its_own_time() -> None:
    """Closed at noon; it opens at 22:00 in Berlin, at half the price, and the job waits for it."""
    snapshot = world(NIGHT)
    (night,) = windows_now(
        [NIGHT],
        flavors=[SURE],
        base={"sure": 4 * USD},
        waiting=starts(snapshot).values(),
        now_us=NOON,
    )
    assert (night.open, night.next_edge) == (False, "Mon 1 Jun 22:00 CEST")
    assert [(one.usd_nanos_per_hour, one.base_usd_nanos_per_hour) for one in night.prices] == [
        (2 * USD, 4 * USD)
    ]
    assert (night.rests_on, night.waiting) == ("tariff", ("a",))


def test_a_trial_says_who_would_start_when_and_the_money() -> None:
    """Without windows it starts at noon; with idle hours at 21:00 it waits and pays nothing."""
    before, after = starts(world()), starts(world(IDLE))
    assert (before["a"].start_us, before["a"].reason) == (NOON, None)
    assert after["a"].reason is Reason.WAITS_FOR_WINDOW
    (change,) = changes(before, after)
    assert (change.before_us, change.after_us) == (NOON, NOON + 9 * HOUR)
    assert change.saves_nanos == before["a"].cost_nanos - (after["a"].cost_nanos or 0)  # type: ignore[operator]
    assert not changes(after, after)


def test_overlaps_and_windows_without_effect_are_said() -> None:
    """An overlap is allowed and the lowest price wins; that is said, as is what does nothing."""
    other = PriceWindow(name="west", regions=("west",))
    gone, at = PriceWindow(name="gone", only_on=(0,)), "Mon 1 Jun 23:00 CEST"
    assert warnings([NIGHT, IDLE, other, gone], flavors=[SURE], now_us=NOON) == [
        "Window 'west' applies to no flavor that is configured.",
        "Window 'gone' never opens again.",
        f"Windows 'night' and 'idle' are both open for sure at {at}: the lowest price wins.",
    ]
    evening = PriceWindow(name="evening", start_s=18 * 3_600, end_s=20 * 3_600)
    assert not warnings([NIGHT, evening], flavors=[SURE], now_us=NOON)


def test_a_file_of_windows_is_checked_like_the_configuration() -> None:
    """Line and field are named, and nothing but windows and holidays is taken."""
    good = "price_windows:\n  - {name: w, price_percent: 50}\n"
    (window,) = parse_windows(good, source="w.yaml", flavors=[SURE]).windows
    assert window.price_percent == 50
    for bad, says in (
        ("price_windows:\n  - {name: w, price_percent: -1}\n", r"w.yaml, line 2.*price_percent"),
        ("price_windows:\n  - {name: w, flavors: [x], price_percent: 1}\n", "no flavor is called"),
        ("flavors: []\n", "price_windows"),
    ):
        with pytest.raises(FileFormatError, match=says):
            parse_windows(bad, source="w.yaml", flavors=[SURE])
