"""The belief about evictions: it moves the right way, and to the truth."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointing.cadence import DEFAULT_HAZARD_PPB_PER_S
from checkpointing.hazard_posterior import MILLION, HazardPosterior, Risk, is_news

S = 1_000_000
HOUR = 3_600 * S
BELIEFS = st.builds(HazardPosterior, st.integers(0, 10**9), st.integers(1, 10**15))


def test_nobody_said_anything() -> None:
    """The default is the rule's default: one eviction in three hours."""
    told = HazardPosterior.of(Risk())
    assert abs(told.hazard_ppb_per_s - DEFAULT_HAZARD_PPB_PER_S) <= 1


@given(BELIEFS, st.integers(0, 10**12), st.integers(0, 10**12))
def test_living_calms_and_an_eviction_alarms(
    belief: HazardPosterior, one_us: int, more_us: int
) -> None:
    """Longer lives never raise the hazard, and the order of what was seen does not matter."""
    lived = belief.lived(one_us)
    assert lived.lived(more_us).hazard_ppb_per_s <= lived.hazard_ppb_per_s
    assert belief.evicted().hazard_ppb_per_s >= belief.hazard_ppb_per_s
    assert belief.evicted().lived(one_us) == belief.lived(one_us).evicted()
    assert lived.lived(more_us) == belief.lived(one_us + more_us)


@pytest.mark.parametrize("mean_h", [0.5, 3, 40])
def test_it_converges_to_the_truth(mean_h: float) -> None:
    """After 400 exponential lives the prior is forgotten: within 15 %."""
    dice = random.Random(5)
    belief = HazardPosterior.of(Risk())
    for _ in range(400):
        belief = belief.lived(int(dice.expovariate(1 / mean_h) * HOUR)).evicted()
    truth = 10**9 / (mean_h * 3_600)
    assert belief.hazard_ppb_per_s == pytest.approx(truth, rel=0.15)


def test_a_heavy_tail_is_the_same_formula() -> None:
    """0.8 / (age + 0.4 h), the hazard of public spot spells, at any age."""
    young = HazardPosterior(800_000, int(0.4 * HOUR))
    for age_h in (0, 1, 10):
        expected = 0.8 / (age_h + 0.4) / 3_600 * 1e9
        assert young.lived(age_h * HOUR).hazard_ppb_per_s == pytest.approx(expected, rel=1e-4)


def test_only_what_changed_is_news() -> None:
    """A fifth of hazard, price or share of notices, or any other notice; nothing below it."""
    told = Risk(usd_nanos_per_hour=10**9, noticed_ppm=900_000, notice_ms=120_000)
    assert is_news(None, present=told)
    assert not is_news(told, present=told)
    assert not is_news(told, present=replace(told, exposure_ms=told.exposure_ms * 11 // 10))
    assert is_news(told, present=replace(told, evictions_ppm=2 * MILLION))
    assert is_news(told, present=replace(told, exposure_ms=told.exposure_ms * 2))
    assert is_news(told, present=replace(told, usd_nanos_per_hour=2 * 10**9))
    assert is_news(told, present=replace(told, noticed_ppm=0))
    assert is_news(told, present=replace(told, notice_ms=30_000))
