"""The eviction rate: a prior that own experience outweighs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.hazard import MS_PER_HOUR, hazard_per_million_hours
from jobs.spec import Market


def test_a_new_flavor_is_neither_free_nor_feared() -> None:
    """Spot starts at one eviction a day and node; bought capacity next to none."""
    assert hazard_per_million_hours(Market.SPOT, evictions=0, exposure_ms=0) == 10**6 // 24
    for market in (Market.ON_DEMAND, Market.RESERVED):
        assert hazard_per_million_hours(market, evictions=0, exposure_ms=0) == 20


def test_experience_outweighs_the_prior() -> None:
    """After 10,000 node-hours with an eviction every four, the estimate is near a quarter."""
    seen = hazard_per_million_hours(Market.SPOT, evictions=2_500, exposure_ms=10_000 * MS_PER_HOUR)
    assert abs(seen - 250_000) < 1_000


@given(
    st.sampled_from(list(Market)), st.integers(0, 10**6), st.integers(0, 10**15), st.integers(1, 50)
)
def test_evictions_raise_it_and_quiet_hours_lower_it(
    market: Market, evictions: int, exposure_ms: int, more: int
) -> None:
    """It moves the right way, and is never negative."""
    now = hazard_per_million_hours(market, evictions=evictions, exposure_ms=exposure_ms)
    worse = hazard_per_million_hours(market, evictions=evictions + more, exposure_ms=exposure_ms)
    quiet = exposure_ms + more * MS_PER_HOUR
    better = hazard_per_million_hours(market, evictions=evictions, exposure_ms=quiet)
    assert 0 <= better <= now <= worse
