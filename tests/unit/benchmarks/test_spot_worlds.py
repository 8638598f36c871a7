"""The worlds and the table of the spot benchmark, on made traces."""

from __future__ import annotations

import pytest

from benchmarks.spot_policy import table
from benchmarks.spot_worlds import Setting, cases, drawn, spell_h
from scheduler.survival import YOUNG_H, expected_changes

SETTING = Setting(
    name="made",
    zones={"a": [1, 1, 0, 1] * 600},
    step_s=600,
    nodes=1,
    work_s=3_600,
    deadline_s=7_200,
    changeover_s=600,
    spot_usd=1,
    sure_usd=3,
)


def test_starts_spread_over_the_trace_and_see_their_deadline() -> None:
    """The first begins with the trace, the halves are halves, and each world spans its job."""
    listed = list(cases(SETTING, "a", starts=4))
    assert [one.late for one in listed] == [False, False, True, True]
    limits = listed[0].scenario.capacities[0].limits
    assert limits.values[:3] == (1, 0, 1)
    assert all(one.scenario.arrivals[0].spec.deadline == 7_200_000 for one in listed)


def test_a_drawn_spell_is_a_quantile_of_the_law() -> None:
    """Half of the young ones are over after a0; a doubled hazard expects twice the changes."""
    assert spell_h(0.5, factor=1.0, age_h=0.0) == pytest.approx(YOUNG_H)
    lasts_h = spell_h(0.9, factor=2.0, age_h=1.0)
    assert 2 * expected_changes(1.0, 1.0 + lasts_h) == pytest.approx(2.302585)


def test_drawn_worlds_are_the_same_each_time() -> None:
    """The seed is fixed by setting and zone, and worlds differ among themselves."""
    first, second = (list(drawn(SETTING, "a", starts=6)) for _ in range(2))
    assert first == second
    assert len({one.scenario.capacities[0].limits for one in first}) > 1


def test_the_table_has_a_row_for_each_policy() -> None:
    """Missing halves stay empty."""
    found = {"cost": 2.0, "misses": 0, "evictions": 3, "of_means": 1.5, "regret": 1.25}
    text = table({"made": {"cases": 1, "bar": 1.05, "bound": 1.6, "lowtide": found}})
    assert "| made | hindsight optimum, bar 1.05 | 1.600 |" in text
    assert "| | lowtide | 2.000 | 1.2500 |  |  |  |  | 1.5000 | 0 | 3 |" in text
