"""The budget of a notice: nothing is begun that does not fit by its own estimate."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from checkpointing.notice_budget import (
    MARGIN_US,
    DrainPlan,
    SaveSample,
    expected_save_us,
    expected_stall_us,
    expected_upload_us,
    fit_ppm,
    plan_drain,
)

S = 1_000_000
MB = 10**6
SAMPLE = SaveSample(stall_us=S, upload_us=10 * S, state_bytes=1_000 * MB, new_bytes=1_000 * MB)
TIMES = st.integers(0, 10**9)
SAMPLES = st.lists(
    st.builds(
        SaveSample,
        stall_us=TIMES,
        upload_us=TIMES,
        state_bytes=st.integers(0, 10**12),
        new_bytes=st.integers(0, 10**12),
    ),
    min_size=1,
    max_size=8,
)
MAYBE = st.none() | TIMES


def test_a_steady_history_is_expected_to_go_on() -> None:
    """Eleven seconds and the margin, as always."""
    assert expected_save_us([SAMPLE] * 4) == 11 * S + MARGIN_US
    assert expected_save_us([]) is None


def test_few_dirty_bytes_are_quick() -> None:
    """After one full save, nine of a tenth: what counts is the speed, and what is dirty."""
    tenth = replace(SAMPLE, upload_us=S, new_bytes=100 * MB)
    assert expected_upload_us([SAMPLE, *[tenth] * 7]) == S


def test_a_growing_state_takes_longer() -> None:
    """Twice the state at the same speed is twice the time."""
    assert expected_upload_us([SAMPLE, replace(SAMPLE, state_bytes=2_000 * MB)]) == 20 * S


def test_one_slow_save_of_many_is_not_the_rule_but_a_quarter_is() -> None:
    """The upper quartile: one of eight is an accident, three of eight are a warning."""
    slow = replace(SAMPLE, stall_us=5 * S, upload_us=50 * S)
    assert expected_save_us([slow, *[SAMPLE] * 7]) == 11 * S + MARGIN_US
    assert expected_save_us([*[slow] * 3, *[SAMPLE] * 5]) == 55 * S + MARGIN_US


def test_latency_says_nothing_about_speed() -> None:
    """A save of one byte in a second does not make the next gigabyte a matter of years."""
    empty = replace(SAMPLE, upload_us=S, new_bytes=1)
    assert expected_upload_us([empty, SAMPLE, empty, SAMPLE]) == 10 * S


@given(SAMPLES)
def test_an_estimate_is_never_better_than_anything_seen(samples: list[SaveSample]) -> None:
    """At least the quickest stall and the quickest upload."""
    assert expected_stall_us(samples) >= min(sample.stall_us for sample in samples)
    assert expected_upload_us(samples) >= min(sample.upload_us for sample in samples)


@given(st.integers(-S, 10**9), MAYBE, MAYBE)
def test_nothing_is_begun_that_cannot_fit(
    budget_us: int, expected_us: int | None, in_flight_us: int | None
) -> None:
    """A fresh save only within the budget, after what is in flight; a notice is never ignored."""
    plan = plan_drain(budget_us, expected_us=expected_us, in_flight_us=in_flight_us)
    if plan is DrainPlan.FRESH:
        assert budget_us > 0
        assert (expected_us is None) or (in_flight_us or 0) + expected_us <= budget_us
    if plan is DrainPlan.FINISH:
        assert in_flight_us is not None


@given(st.integers(-S, 10**9), st.integers(0, 10**9), MAYBE, MAYBE)
def test_a_longer_budget_never_does_less(
    budget_us: int, more_us: int, expected_us: int | None, in_flight_us: int | None
) -> None:
    """Plans are ordered: fresh, finish, leave."""
    order = [DrainPlan.LEAVE, DrainPlan.FINISH, DrainPlan.FRESH]
    short, long = (
        plan_drain(budget, expected_us=expected_us, in_flight_us=in_flight_us)
        for budget in (budget_us, budget_us + more_us)
    )
    assert order.index(long) >= order.index(short)


def test_what_is_in_flight_may_be_all_that_fits() -> None:
    """The three cases in seconds: 11 s for a fresh one, 4 s until the upload has ended."""
    expected = expected_save_us([SAMPLE])
    assert plan_drain(16 * S, expected_us=expected, in_flight_us=4 * S) is DrainPlan.FRESH
    assert plan_drain(12 * S, expected_us=expected, in_flight_us=4 * S) is DrainPlan.FINISH
    assert plan_drain(9 * S, expected_us=expected, in_flight_us=None) is DrainPlan.LEAVE
    assert plan_drain(9 * S, expected_us=None, in_flight_us=None) is DrainPlan.FRESH


def test_the_chance_to_fit_is_never_certain() -> None:
    """Eight good saves of eight: 8 in 9. Too slow, or never measured: none."""
    assert fit_ppm([SAMPLE] * 8, notice_us=120 * S, boundary_us=S) == 888_888
    assert fit_ppm([SAMPLE] * 8, notice_us=11 * S, boundary_us=S) == 0
    assert fit_ppm([], notice_us=120 * S, boundary_us=0) == 0
