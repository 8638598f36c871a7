"""What a training learns about its saves, step by step, at instants that the test gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointing.cadence import (
    DEFAULT_INTERFERENCE_PPM,
    OBJECT_STORE,
    Cadence,
    Tariff,
    ceiling_us,
)
from checkpointing.hazard_posterior import Risk
from checkpointing.notice_budget import DrainPlan, SaveSample
from checkpointing.pacer import RETRY_US, Pacer, interference_ppm

S = 1_000_000
HOUR = 3_600 * S
USD = 10**9
SAMPLE = SaveSample(stall_us=S, upload_us=10 * S, state_bytes=10**10, new_bytes=10**10)


def a_pacer(tariff: Tariff | None = None, *, interval_us: int = 0) -> Pacer:
    """One that starts at instant 0."""
    return Pacer(Cadence(interval_us=interval_us), tariff=tariff or Tariff(), at_us=0)


def test_interference_is_what_an_upload_takes_from_steps() -> None:
    """Steps of 100 ms that take 125 ms meanwhile lose a fifth; one evaluation changes nothing."""
    quiet, busy = [100_000] * 9 + [60 * S], [125_000] * 9 + [90 * S]
    assert interference_ppm(quiet, busy_us=busy) == 200_000
    assert interference_ppm(busy, busy_us=quiet) == 0
    assert interference_ppm(quiet, busy_us=busy[:4]) == DEFAULT_INTERFERENCE_PPM


def test_a_measured_save_sets_the_cost() -> None:
    """A second of stall and a fifth of ten seconds; before that the constants."""
    pacer = a_pacer()
    pacer.succeeded(SAMPLE)
    assert pacer.cadence(0).cost_us == S + 10 * DEFAULT_INTERFERENCE_PPM
    for _ in range(5):
        pacer.stepped(100_000, uploading=False)
        pacer.stepped(125_000, uploading=True)
    assert pacer.cadence(0).cost_us == 3 * S


def test_the_scheduler_is_heeded_and_what_is_lived_adds_to_it() -> None:
    """One eviction in an hour; after three hours without one it is one in four."""
    pacer = a_pacer()
    pacer.heed(Risk(exposure_ms=3_600_000), at_us=HOUR)
    assert pacer.cadence(HOUR).hazard_ppb_per_s == 10**9 // 3_600
    assert pacer.cadence(4 * HOUR).hazard_ppb_per_s == 10**9 // 14_400


def test_a_notice_counts_once_a_save_is_known_to_fit() -> None:
    """Nine of ten evictions announce themselves, and both saves of two would have fitted."""
    pacer = a_pacer()
    pacer.heed(Risk(notice_ms=120_000, noticed_ppm=900_000), at_us=0)
    assert pacer.cadence(0).notice_ppm == 0
    pacer.succeeded(SAMPLE)
    pacer.succeeded(SAMPLE)
    assert pacer.cadence(0).notice_ppm == 599_999
    pacer.heed(Risk(notice_ms=11_000, noticed_ppm=900_000), at_us=0)
    assert pacer.cadence(0).notice_ppm == 0


def test_dear_nodes_save_sooner() -> None:
    """The requests of a save weigh 3 s at a dollar an hour, and nothing at a hundred."""
    intervals = []
    for usd in (1, 100):
        pacer = a_pacer(OBJECT_STORE)
        pacer.heed(Risk(usd_nanos_per_hour=usd * USD), at_us=0)
        pacer.succeeded(SAMPLE)
        intervals.append(pacer.interval_us(0))
    assert intervals[0] > 1.5 * intervals[1]


def test_a_failed_save_protects_nothing() -> None:
    """The work since the last good one is at risk again: due at once, but not in a hurry."""
    pacer = a_pacer()
    at_us = pacer.interval_us(0) + S
    assert pacer.is_due(at_us)
    pacer.began(at_us)
    assert not pacer.is_due(at_us + S)
    pacer.failed(at_us + S)
    assert not pacer.is_due(at_us + RETRY_US)
    assert pacer.is_due(at_us + S + RETRY_US)
    pacer.began(at_us + S + RETRY_US)
    pacer.failed(at_us + S + RETRY_US)
    assert not pacer.is_due(at_us + 2 * S + 2 * RETRY_US)
    assert pacer.is_due(at_us + S + 3 * RETRY_US)


def test_a_save_counts_from_its_snapshot() -> None:
    """Not from its commit: what was trained during the upload is not in it."""
    pacer = a_pacer()
    pacer.began(100 * S)
    pacer.succeeded(SAMPLE)
    due_us = pacer.interval_us(100 * S)
    assert not pacer.is_due(100 * S + due_us - S)
    assert pacer.is_due(110 * S + due_us)  # the belief grew calmer meanwhile


def test_a_fixed_interval_is_kept_after_a_failure() -> None:
    """The user asked for it: neither sooner nor later."""
    pacer = a_pacer(interval_us=10 * S)
    pacer.began(10 * S)
    pacer.failed(11 * S)
    assert not pacer.is_due(19 * S)
    assert pacer.is_due(20 * S)
    pacer.set_interval(0)
    assert not pacer.is_due(15 * S)


def test_hurry_makes_the_next_boundary_due_once() -> None:
    """Unless hardly anything was done since the last save."""
    pacer = a_pacer()
    pacer.succeeded(SAMPLE)
    pacer.hurry()
    assert not pacer.is_due(S)
    assert pacer.is_due(4 * S)
    pacer.began(4 * S)
    assert not pacer.is_due(10 * S)


def test_the_end_is_a_save() -> None:
    """Known from the steps that are left and what a step takes."""
    pacer = a_pacer()
    for _ in range(9):
        pacer.stepped(S, uploading=False)
    at_us = pacer.interval_us(0) + S
    assert pacer.is_due(at_us, steps_left=10_000)
    assert not pacer.is_due(at_us, steps_left=5)


def test_a_drain_knows_what_is_in_flight() -> None:
    """An upload of ten seconds that began four ago has six to go."""
    pacer = a_pacer()
    for _ in range(4):
        pacer.succeeded(SAMPLE)
    plans = [
        pacer.plan_drain(budget * S, in_flight_since_us=0, at_us=4 * S) for budget in (18, 16, 0)
    ]
    assert plans == [DrainPlan.FRESH, DrainPlan.FINISH, DrainPlan.LEAVE]


@given(
    st.integers(0, 10**9),
    st.integers(1, 10**12),
    st.lists(st.sampled_from(["began", "succeeded", "failed", "hurry", "stepped"]), max_size=30),
)
def test_it_never_saves_more_often_than_the_floor(
    evictions_ppm: int, exposure_ms: int, happened: list[str]
) -> None:
    """Whatever it lived through: no save within a second of a snapshot, and one by the ceiling."""
    pacer = a_pacer()
    pacer.heed(Risk(evictions_ppm=evictions_ppm, exposure_ms=exposure_ms), at_us=0)
    acts = {
        "began": lambda: pacer.began(0),
        "succeeded": lambda: pacer.succeeded(SAMPLE),
        "failed": lambda: pacer.failed(0),
        "hurry": pacer.hurry,
        "stepped": lambda: pacer.stepped(S, uploading=True),
    }
    for name in happened:
        acts[name]()
    assert not pacer.is_due(S - 1)
    late_us = ceiling_us(pacer.cadence(HOUR)) + HOUR
    assert pacer.is_due(late_us)


@pytest.mark.parametrize("budget_s", [1, 5, 11, 12, 100])
def test_a_fresh_save_is_only_begun_when_expected_to_fit(budget_s: int) -> None:
    """By its own estimate."""
    pacer = a_pacer()
    pacer.succeeded(SAMPLE)
    expected_us = pacer.expected_save_us()
    assert expected_us is not None
    plan = pacer.plan_drain(budget_s * S, in_flight_since_us=None, at_us=0)
    assert (plan is DrainPlan.FRESH) == (expected_us <= budget_s * S)
