"""What a restart took: each phase from observed instants, and nothing that was not observed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobs.phases import PHASES, phases_by_attempt, restart_phases
from jobs.reasons import Reason
from jobs.rows import AttemptRow
from jobs.states import AttemptState

FIRST = AttemptRow(
    id="j/1",
    job_id="j",
    number=1,
    state=AttemptState.LOST,
    reason=Reason.NODE_LOST,
    cluster="here",
    flavor="spot",
    node_ids=("n1",),
    gpu_milli=1_000,
    lease_id="l1",
    created_us=0,
    silent_us=100,
    ended_us=130,
)
SECOND = replace(
    FIRST,
    id="j/2",
    number=2,
    state=AttemptState.TRAINING,
    silent_us=None,
    ended_us=None,
    created_us=150,
    started_us=200,
    process_us=260,
    opened_us=330,
    training_us=410,
    caught_up_us=500,
)


def test_each_phase_lies_between_two_observed_instants() -> None:
    """All seven add up to the time from the first sign of the death to new work."""
    found = restart_phases(SECOND, before=FIRST)
    assert found == dict(zip(PHASES, (30, 20, 50, 60, 70, 80, 90), strict=True))
    assert sum(found.values()) == 500 - 100


def test_a_first_attempt_has_nothing_to_detect() -> None:
    """And what has not happened yet is left out."""
    found = phases_by_attempt([replace(FIRST, started_us=40), SECOND])
    assert found["j/1"] == {"boot": 40}
    assert list(found["j/2"]) == list(PHASES)


def test_a_failure_of_the_script_is_not_a_detection() -> None:
    """The wait between a user's error and its retry is no phase of a restart."""
    failed = replace(FIRST, state=AttemptState.FAILED)
    assert "detect" not in restart_phases(SECOND, before=failed)
    assert "place" not in restart_phases(SECOND, before=failed)


@given(st.lists(st.none() | st.integers(0, 1_000), min_size=6, max_size=6))
def test_clocks_that_differ_never_make_a_phase_negative(instants: list[int | None]) -> None:
    """Instants come from several machines."""
    names = ("started_us", "process_us", "opened_us", "training_us", "caught_up_us", "ended_us")
    changed: dict[str, Any] = dict(zip(names, instants, strict=True))
    row = replace(SECOND, **changed)
    assert all(us >= 0 for us in restart_phases(row, before=FIRST).values())


def test_a_job_without_attempts_has_no_phases() -> None:
    """A job that only waits is shown like any other."""
    assert phases_by_attempt([]) == {}
    assert list(phases_by_attempt([FIRST])) == [FIRST.id]
