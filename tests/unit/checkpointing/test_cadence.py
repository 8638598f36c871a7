"""The interval rule: monotone where it must be, bounded on both sides, right where it is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointing.cadence import (
    MAX_INTERVAL_US,
    MIN_INTERVAL_US,
    OBJECT_STORE,
    Cadence,
    Tariff,
    ceiling_us,
    floor_us,
    interval_us,
    is_due,
    is_urgent,
    save_cost_us,
    save_fee_usd_nanos,
    whole_cost_us,
)

S = 1_000_000
HOUR = 3_600 * S
USD = 10**9

CADENCES = st.builds(
    Cadence,
    hazard_ppb_per_s=st.integers(0, 10**8),
    notice_ppm=st.integers(0, 10**6),
    cost_us=st.integers(0, 10**9),
    fee_usd_nanos=st.integers(0, 10**8),
    usd_nanos_per_hour=st.integers(0, 10**12),
)
MORE = st.integers(0, 10**9)


@pytest.mark.parametrize(
    ("hazard_per_h", "cost_s", "optimum_s"),
    [(1 / 3, 0.5, 104), (1, 2, 120), (4, 2, 60)],
)
def test_the_rule_is_young_and_daly(hazard_per_h: float, cost_s: float, optimum_s: int) -> None:
    """It becomes due at sqrt(2 C / hazard), Young's optimum."""
    cadence = Cadence(hazard_ppb_per_s=int(hazard_per_h / 3600 * 1e9), cost_us=int(cost_s * S))
    assert not is_due(cadence, unsaved_us=int(optimum_s * 0.98 * S))
    assert is_due(cadence, unsaved_us=int(optimum_s * 1.02 * S))


@given(CADENCES, st.integers(0, 10**12))
def test_the_interval_is_the_inequality(cadence: Cadence, unsaved_us: int) -> None:
    """Between floor and ceiling a save is due exactly where hazard x (1 - r) x t^2 / 2 >= C."""
    if not floor_us(cadence) <= unsaved_us < ceiling_us(cadence):
        return
    at_risk = cadence.hazard_ppb_per_s * (10**6 - cadence.notice_ppm) * unsaved_us**2
    holds = at_risk > 0 and at_risk >= 2 * whole_cost_us(cadence) * 10**21
    assert is_due(cadence, unsaved_us=unsaved_us) == holds


@given(CADENCES, MORE)
def test_a_higher_hazard_never_saves_later(cadence: Cadence, more: int) -> None:
    """Nor does a smaller chance of a notice."""
    worse = replace(cadence, hazard_ppb_per_s=cadence.hazard_ppb_per_s + more)
    assert interval_us(worse) <= interval_us(cadence)
    blind = replace(cadence, notice_ppm=cadence.notice_ppm // 2)
    assert interval_us(blind) <= interval_us(cadence)


@given(CADENCES, MORE)
def test_a_dearer_save_is_never_made_sooner(cadence: Cadence, more: int) -> None:
    """In training time or in money."""
    slower = replace(cadence, cost_us=cadence.cost_us + more)
    dearer = replace(cadence, fee_usd_nanos=cadence.fee_usd_nanos + more)
    assert interval_us(slower) >= interval_us(cadence)
    assert interval_us(dearer) >= interval_us(cadence)


@given(CADENCES, st.integers(1, 10**12))
def test_a_dearer_node_never_saves_later(cadence: Cadence, more: int) -> None:
    """What requests cost weighs less against the hours of a dear gang."""
    if not cadence.usd_nanos_per_hour:
        return
    dearer = replace(cadence, usd_nanos_per_hour=cadence.usd_nanos_per_hour + more)
    assert interval_us(dearer) <= interval_us(cadence)


@given(CADENCES, st.integers(1, 1_000))
def test_without_a_fee_the_price_decides_nothing(cadence: Cadence, times: int) -> None:
    """Work and stalls are hours at the same price: it cancels out."""
    free = replace(cadence, fee_usd_nanos=0)
    dear = replace(free, usd_nanos_per_hour=free.usd_nanos_per_hour * times)
    assert interval_us(dear) == interval_us(free)


@given(CADENCES)
def test_it_stays_between_floor_and_ceiling(cadence: Cadence) -> None:
    """Never twice a second, never more at risk than promised, never mostly saving."""
    assert floor_us(cadence) <= interval_us(cadence) <= ceiling_us(cadence)
    assert interval_us(cadence) >= MIN_INTERVAL_US
    assert cadence.cost_us <= interval_us(cadence)
    assert not is_due(cadence, unsaved_us=floor_us(cadence) - 1)
    assert is_due(cadence, unsaved_us=ceiling_us(cadence), rest_us=1)
    assert ceiling_us(cadence) == max(MAX_INTERVAL_US, 200 * cadence.cost_us)


@given(CADENCES)
def test_a_sure_notice_leaves_only_the_ceiling(cadence: Cadence) -> None:
    """If every eviction gives notice and a save fits it, only surprises are insured."""
    assert interval_us(replace(cadence, notice_ppm=10**6)) == ceiling_us(cadence)


@given(CADENCES, st.integers(0, 10**12), st.integers(0, 10**12))
def test_waiting_longer_never_makes_it_less_due(cadence: Cadence, one: int, other: int) -> None:
    """Due stays due."""
    first, second = sorted((one, other))
    assert is_due(cadence, unsaved_us=second) or not is_due(cadence, unsaved_us=first)


def test_the_final_commit_stands_in_for_a_save_before_it() -> None:
    """With less than half an interval to go, the end saves anyway; with more it is too far."""
    cadence = Cadence(hazard_ppb_per_s=10**9 // 10_800, cost_us=2 * S)
    due_us = interval_us(cadence)
    assert not is_due(cadence, unsaved_us=due_us, rest_us=due_us // 2 - 1)
    assert is_due(cadence, unsaved_us=due_us, rest_us=due_us // 2 + 1)


def test_a_fixed_interval_decides_alone() -> None:
    """The interval is kept whatever hazard, cost, end and ceiling say."""
    cadence = Cadence(interval_us=5 * S, hazard_ppb_per_s=0, cost_us=10**9)
    assert not is_due(cadence, unsaved_us=5 * S - 1)
    assert is_due(cadence, unsaved_us=5 * S, rest_us=0)
    assert interval_us(replace(cadence, interval_us=7 * HOUR)) == 7 * HOUR


def test_the_cost_is_what_training_feels() -> None:
    """A long upload counts by its interference, not by its duration."""
    assert save_cost_us(100, upload_us=1000, interference_ppm=220_000) == 320


def test_a_fee_is_requests_and_egress() -> None:
    """20 GB are 1,193 chunks at most and three records: 0.6 cents; each GB abroad costs 2 cents."""
    assert save_fee_usd_nanos(20 * 10**9, tariff=OBJECT_STORE) == 1_196 * 5_000
    abroad = Tariff(egress_usd_nanos_per_gb=USD // 50)
    assert save_fee_usd_nanos(20 * 10**9, tariff=abroad) == USD * 2 // 5
    assert save_fee_usd_nanos(10**9, tariff=Tariff()) == 0


def test_the_fee_is_hours_of_a_cheap_node() -> None:
    """0.6 cents are 22 s of a node at a dollar an hour, and half a second of a gang at 40."""
    cheap = Cadence(cost_us=S, fee_usd_nanos=6_000_000, usd_nanos_per_hour=USD)
    assert whole_cost_us(cheap) == S + 21_600_000
    assert whole_cost_us(replace(cheap, usd_nanos_per_hour=40 * USD)) == S + 540_000
    assert whole_cost_us(replace(cheap, usd_nanos_per_hour=0)) == S


@given(CADENCES, st.integers(0, 10**12))
def test_urgency_knows_only_what_a_save_costs(cadence: Cadence, unsaved_us: int) -> None:
    """With an eviction near, a save is worth it as soon as it costs less than the work."""
    least_us = max(MIN_INTERVAL_US, whole_cost_us(cadence))
    assert is_urgent(cadence, unsaved_us=unsaved_us) == (unsaved_us >= least_us)
