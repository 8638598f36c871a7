"""Limits of a job's own: each cause has its counter, and none is charged to another."""

from __future__ import annotations

import pytest

from cluster import notices as nt
from jobs.reasons import Reason
from jobs.states import AttemptState, JobState
from tests.unit.scheduler.bench import Bench, S


def training(**spec: object) -> tuple[Bench, str]:
    """Give a job that trains since second 6 on one node."""
    bench = Bench()
    bench.job(0, "a", **spec)
    bench.node(0)
    attempt = bench.lease(0)
    bench.notice(5, nt.NodeJoined, node_id="n1", address="x")
    bench.notice(6, nt.WorkersUp, attempt_id=attempt)
    bench.notice(6, nt.TrainingBegan, attempt_id=attempt, step=0, total_steps=100)
    return bench, attempt


@pytest.mark.parametrize(
    ("codes", "code", "state", "reason"),
    [
        ((), 3, JobState.QUEUED, Reason.RETRY_AFTER_FAILURE),
        ((3, 4), 3, JobState.QUEUED, Reason.RETRY_AFTER_FAILURE),
        ((4,), 3, JobState.FAILED, Reason.USER_ERROR),
        ((-9,), -9, JobState.QUEUED, Reason.RETRY_AFTER_FAILURE),
    ],
)
def test_only_exit_codes_that_were_named_are_retried(
    codes: tuple[int, ...], code: int, state: JobState, reason: Reason
) -> None:
    """Without a list any failure is; the last error is kept either way."""
    bench, attempt = training(max_failures=2, retry_on=codes)
    bench.over(20, attempt, nt.Outcome.FAILED, exit_code=code, detail="CUDA out of memory")
    job = bench.state.jobs["a"]
    assert (job.state, job.reason) == (state, reason)
    assert job.last_error == "CUDA out of memory"


@pytest.mark.parametrize(
    ("limit", "outcome", "reason"),
    [
        ("max_evictions", nt.Outcome.NODE_LOST, Reason.MAX_EVICTIONS),
        ("max_lost", nt.Outcome.HEARTBEAT_LOST, Reason.MAX_LOST),
    ],
)
def test_a_limit_ends_the_job_one_beyond_it(
    limit: str, outcome: nt.Outcome, reason: Reason
) -> None:
    """Up to the limit it goes on; the sentence names the limit."""
    bench, attempt = training(**{limit: 1})
    bench.over(20, attempt, outcome)
    assert bench.state.jobs["a"].state is JobState.QUEUED
    bench.over(30, bench.lease(21), outcome)
    job = bench.state.jobs["a"]
    assert (job.state, job.reason, job.failures) == (JobState.FAILED, reason, 0)
    assert f"{limit} allows 1" in job.sentence


def test_launches_that_fail_have_their_own_limit() -> None:
    """They are nobody's eviction; unlimited unless the job says otherwise."""
    bench = Bench()
    bench.job(0, "a", max_launch_failures=0, max_evictions=0)
    bench.node(1)
    bench.lease(1)
    bench.notice(2, nt.LaunchFailed, node_id="n1", detail="no capacity")
    job = bench.state.jobs["a"]
    assert (job.reason, job.evictions) == (Reason.MAX_LAUNCH_FAILURES, 0)


def test_the_longest_runtime_counts_over_all_attempts() -> None:
    """40 s of the first attempt are kept in mind, the wait is not; the second ends 20 s in."""
    bench, attempt = training(max_runtime="60s")
    bench.over(46, attempt, nt.Outcome.NODE_LOST)
    assert bench.state.jobs["a"].runtime_ms == 40_000
    second = bench.lease(500)
    bench.notice(500, nt.WorkersUp, attempt_id=second)
    bench.notice(501, nt.TrainingBegan, attempt_id=second, step=0, total_steps=100)
    bench.upkeep(519)
    assert bench.state.attempts[second].state is AttemptState.TRAINING
    bench.upkeep(520)
    drain = bench.state.attempts[second]
    assert (drain.state, drain.reason) == (AttemptState.DRAINING, Reason.MAX_RUNTIME)
    assert drain.drain_deadline_us == 550 * S, "it saves first"
    bench.over(525, second, nt.Outcome.STOPPED)
    job = bench.state.jobs["a"]
    assert (job.state, job.reason) == (JobState.FAILED, Reason.MAX_RUNTIME)
    assert "max_runtime" in job.sentence


def test_a_job_without_time_left_does_not_start_again() -> None:
    """An eviction at its last second would else cost a start for nothing."""
    bench, attempt = training(max_runtime="60s")
    bench.over(66, attempt, nt.Outcome.NODE_LOST)
    assert bench.state.jobs["a"].reason is Reason.MAX_RUNTIME
