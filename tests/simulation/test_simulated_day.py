"""A whole day of work under churn ends with clean books."""

from __future__ import annotations

import pytest

from benchmarks.simulated_day import measure

pytestmark = pytest.mark.simulation


def check(figures: dict, *, jobs: int, evictions: int) -> None:
    """What every such day must come to."""
    assert figures["findings"] == []
    assert figures["jobs"] == jobs
    assert figures["evictions"] >= evictions
    assert figures["unfinished"] == 0
    assert figures["deadline_misses"] == 0
    assert figures["cost_usd"] >= figures["bound_usd"] > 0


def test_a_short_day_ends_with_a_clean_audit() -> None:
    """150 jobs and more than 100 evictions: every share, bill and lease ties."""
    check(measure(jobs=150, seed=5), jobs=150, evictions=100)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_simulated_day_of_2000_jobs_ends_with_a_clean_audit() -> None:
    """2,000 jobs and at least 200 evictions: the bar of the first issue."""
    check(measure(jobs=2_000, seed=7), jobs=2_000, evictions=200)
