"""The time-shifting replay on a small tariff: bounds below costs, no deadline missed."""

from __future__ import annotations

from decimal import Decimal

from benchmarks.time_shift import START_US, Setting, compare, table
from jobs.spec import JobSpec
from scheduler.scenario import Arrival

DAY = [60, 40, 40, 60, 80, 100, 140, 160, 140, 120, 100, 80] * 2
PRICES = tuple(Decimal(cents) for cents in DAY * 3)


def test_no_policy_is_below_the_bound_and_stops_pay() -> None:
    """Cheapest hours <= exact bound <= ours <= one stretch <= at once, on jobs that may wait."""
    hour = 3_600
    jobs = tuple(
        Arrival(
            at_us=START_US + index * 5 * hour * 1_000_000,
            spec=JobSpec(
                work=float(work_h * hour),
                restore=60.0,
                deadline=float(120 + (work_h + 24) * hour),
                checkpoint_interval=0,
            ),
        )
        for index, work_h in enumerate((8, 10))
    )
    row = compare(Setting(region="US-CAL-CISO", period="early", cents=PRICES), jobs)
    costs = [row[name]["cost"] for name in ("lowtide", "lowest-window", "on-demand")]
    assert row["hours"] <= row["bound"] <= costs[0] < costs[1] < costs[2]
    assert costs[0] <= 1.03 * row["bound"]
    assert row["lowtide"]["stops"] >= 1
    assert not any(row[name]["misses"] for name in ("lowtide", "lowest-window", "on-demand"))
    figures = {"rows": [row], "means": {}}
    assert "US-CAL-CISO early" in table(figures)
