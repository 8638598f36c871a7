"""Windows as people write them: holidays, tables by hour, mistakes with the nearest name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.durations import to_us
from jobs.errors import FileFormatError
from scheduler.scenario import load_scenario
from scheduler.settings import Settings, parse_settings
from scheduler.windows import PriceWindow, next_edge_us, open_at
from tests.unit.scheduler.worlds import HOUR, USD

BASE = """\
clusters:
  - name: c
    provider: local
    flavors:
      - {name: h100, market: on-demand, region: us-east4, zone: us-east4-b, accelerator: H100,
         price_usd_per_hour: 4, max_nodes: 1}
holidays: {bank: [2026-12-25, 2026-12-28]}
price_windows:
"""
FRIDAY = to_us(datetime(2026, 12, 25, tzinfo=UTC))  # Christmas
DAY = 24 * HOUR


def parsed(*windows: str) -> Settings:
    """Read a configuration with these windows."""
    return parse_settings(BASE + "".join(f"  - {one}\n" for one in windows), source="lowtide.yaml")


def only(text: str) -> PriceWindow:
    """Give the one window."""
    (window,) = parsed(text).windows
    return window


def test_a_window_may_be_closed_on_holidays() -> None:
    """Friday and Monday are holidays: it is shut from Thursday's end until Tuesday."""
    window = only(
        "{name: w, days: [mon, tue, wed, thu, fri], start: '08:00', end: '18:00', "
        "not_on: [bank], price_percent: 50}"
    )
    assert not open_at(window, FRIDAY + 9 * HOUR)
    assert next_edge_us(window, FRIDAY - 6 * HOUR) == FRIDAY + 4 * DAY + 8 * HOUR


def test_a_window_may_be_open_on_named_days_alone() -> None:
    """It is open on each date of the list and never again, however far the next one is."""
    window = only("{name: w, only_on: [bank, '2027-12-24'], price_percent: 0}")
    assert open_at(window, FRIDAY)
    assert next_edge_us(window, FRIDAY) == FRIDAY + DAY
    far = to_us(datetime(2027, 12, 24, tzinfo=UTC))
    assert next_edge_us(window, FRIDAY + 10 * DAY) == far
    assert next_edge_us(window, far + 2 * DAY) is None


def test_a_holiday_is_a_date_of_the_windows_own_zone() -> None:
    """25 December begins in Tokyo nine hours before it does in Greenwich."""
    window = only("{name: w, only_on: ['2026-12-25'], time_zone: Asia/Tokyo, price_percent: 10}")
    assert open_at(window, FRIDAY - 9 * HOUR)
    assert not open_at(window, FRIDAY + 15 * HOUR)


def test_a_holiday_that_closes_weeks_on_end_hides_no_edge() -> None:
    """A weekly window that is closed for three Fridays opens on the fourth."""
    dates = ", ".join(f"'2026-12-{day}'" for day in (11, 18, 25))
    window = only(f"{{name: w, days: [fri], not_on: [{dates}], price_percent: 10}}")
    assert next_edge_us(window, FRIDAY - 20 * DAY) == FRIDAY + 7 * DAY


def test_a_table_by_hour_becomes_a_window_for_each_step() -> None:
    """Equal neighbours are one window, and each hour has the price of the table."""
    table = [3] * 6 + [1] * 4 + [2] * 14
    windows = parsed(f"{{name: t, price_usd_per_hour_by_hour: {table}}}").windows
    assert [one.name for one in windows] == ["t 00:00", "t 06:00", "t 10:00"]
    for hour, usd in enumerate(table):
        (now,) = (one for one in windows if open_at(one, FRIDAY + hour * HOUR))
        assert now.tariff_usd_nanos_per_hour == usd * USD


@pytest.mark.parametrize(
    ("window", "field", "says"),
    [
        ("{name: w, zones: [us-east4-c], price_percent: 1}", "zones", "Did you mean 'us-east4-b'"),
        ("{name: w, regions: [us-est4], price_percent: 1}", "regions", "Did you mean 'us-east4'"),
        ("{name: w, flavors: [a100], price_percent: 1}", "flavors", "Did you mean 'h100'"),
        ("{name: w, not_on: [banks], price_percent: 1}", "not_on", "Did you mean 'bank'"),
        ("{name: w, only_on: ['2026-02-30'], price_percent: 1}", "only_on", "Write a date"),
        ("{name: w, time_zone: Europe/Berlim, price_percent: 1}", "time_zone", "got 'Europe/Berl"),
        ("{name: w, price_usd_per_hour: -1}", "price_usd_per_hour", "got -1"),
        ("{name: w, price_percent_by_hour: [1, 2]}", "price_percent_by_hour", "Correct it"),
        ("{name: w, start: '06:00', end: '06:00', price_percent: 1}", "0", "Correct it"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_nearest_name(
    window: str, field: str, says: str
) -> None:
    """File, line and field are in the cause, and what to write instead in the remedy."""
    with pytest.raises(FileFormatError) as caught:
        parsed(window)
    assert "lowtide.yaml, line 9" in caught.value.cause
    assert field in caught.value.cause
    assert says in caught.value.remedy


def test_a_bad_date_in_the_holidays_is_named() -> None:
    """A number would be taken for seconds since 1970, so only dates are dates."""
    with pytest.raises(FileFormatError, match=r"holidays.*is not a date; write it like 2026-12-25"):
        parse_settings(BASE.replace("2026-12-28", "20261328") + "  []", source="lowtide.yaml")


def test_a_scenario_may_publish_its_prices_ahead(tmp_path: Path) -> None:
    """A shape with negative hours becomes a price of that mean, none below 0, known ahead."""
    (tmp_path / "p.csv").write_text("usd\n-10\n30\n60\n", encoding="utf-8")
    text = (
        "start: 2026-12-25T00:00:00Z\n"
        "flavors: [{name: f, market: on-demand, nodes: 1, price_usd_per_hour: "
        "{file: p.csv, column: usd, step_s: 3600, known_ahead_s: 7200, mean_usd_per_hour: 3}}]\n"
        "jobs: [{work_s: 60}]\n"
    )
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    scenario = load_scenario(tmp_path / "s.yaml")
    assert scenario.price_series["f"].values == (0, 3 * USD, 6 * USD)
    assert scenario.known_ahead_us == {"f": 2 * HOUR}
    (tmp_path / "s.yaml").write_text(text.replace(", mean_usd_per_hour: 3", ""), encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"p.csv, line 2, field 'usd': '-10'"):
        load_scenario(tmp_path / "s.yaml")
