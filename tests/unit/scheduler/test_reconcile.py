"""Reconcile: notices become events once, and every end is charged to whoever caused it."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import notices as nt
from jobs import events as ev
from jobs.reasons import Reason
from jobs.states import AttemptState, JobState, NodeState
from tests.unit.scheduler.bench import Bench, S


def training(**spec: object) -> tuple[Bench, str]:
    """Give a bench with one job in training on node n1."""
    bench = Bench()
    bench.job(0, "a", **spec)
    bench.node(0)
    attempt = bench.lease(0)
    bench.notice(5, nt.NodeJoined, node_id="n1", address="x")
    bench.notice(6, nt.WorkersUp, attempt_id=attempt)
    bench.notice(7, nt.TrainingBegan, attempt_id=attempt, step=0, total_steps=100)
    return bench, attempt


def test_every_notice_is_idempotent() -> None:
    """A notice that comes again, or about something that is over, makes no event."""
    bench, attempt = training()
    notices: list[nt.Notice] = [
        nt.NodeBooted(id="1", at_us=0, node_id="n1"),
        nt.NodeJoined(id="2", at_us=0, node_id="n1", address="x"),
        nt.WorkersUp(id="3", at_us=0, attempt_id=attempt),
        nt.TrainingBegan(id="4", at_us=0, attempt_id=attempt, step=0, total_steps=100),
        nt.CapacitySeen(id="5", at_us=0, flavor="nothing", limit=10),
        nt.LaunchFailed(id="6", at_us=0, node_id="n1", detail=""),
        nt.AttemptOver(id="7", at_us=0, attempt_id="gone/1", outcome=nt.Outcome.FAILED),
        nt.NodeLost(id="8", at_us=0, node_id="unknown", noticed=False),
    ]
    assert [bench.post(10, notice) for notice in notices] == [0] * len(notices)
    done = nt.AttemptOver(id="9", at_us=S, attempt_id=attempt, outcome=nt.Outcome.SUCCEEDED)
    assert bench.post(20, done) == 2
    assert bench.post(21, done) == 0


def test_progress_measures_the_work_from_real_steps() -> None:
    """After a few steps the user's estimate gives way to time per step x total."""
    bench, attempt = training(work="1h", deadline="9h")
    assert bench.state.jobs["a"].work_ms == 3_600_000
    bench.notice(27, nt.Progressed, attempt_id=attempt, step=10, total_steps=100)
    assert bench.state.jobs["a"].work_ms == 200_000
    assert bench.state.jobs["a"].remaining_ms(step=10) == 180_000
    assert bench.notice(28, nt.Progressed, attempt_id=attempt, step=9, total_steps=100) == 0


@pytest.mark.parametrize(
    ("outcome", "state", "reason", "counter"),
    [
        (nt.Outcome.FAILED, JobState.FAILED, Reason.USER_ERROR, "failures"),
        (nt.Outcome.SUCCEEDED, JobState.SUCCEEDED, Reason.FINISHED, None),
        (nt.Outcome.NODE_LOST, JobState.QUEUED, Reason.NODE_LOST, "evictions"),
        (nt.Outcome.HEARTBEAT_LOST, JobState.QUEUED, Reason.HEARTBEAT_LOST, "lost"),
        (nt.Outcome.DRAINED, JobState.QUEUED, Reason.OPERATOR, "preemptions"),
    ],
)
def test_each_outcome_has_its_own_budget(
    outcome: nt.Outcome, state: JobState, reason: Reason, counter: str | None
) -> None:
    """The user's errors count as failures; the cloud's doing never does."""
    bench, attempt = training()
    bench.over(20, attempt, outcome, exit_code=1, detail="boom")
    job = bench.state.jobs["a"]
    assert (job.state, job.reason) == (state, reason)
    names = ("failures", "evictions", "preemptions", "lost")
    counts = {name: getattr(job, name) for name in names}
    assert counts == {name: int(name == counter) for name in counts}


def test_a_script_killed_by_an_eviction_is_not_the_users_error() -> None:
    """A non-zero exit inside the grace period is the cloud's doing."""
    bench, attempt = training()
    bench.notice(10, nt.EvictionNoticed, node_id="n1", deadline_us=40 * S)
    bench.over(12, attempt, nt.Outcome.FAILED, exit_code=1)
    assert bench.state.attempts[attempt].state is AttemptState.EVICTED
    assert bench.state.jobs["a"].failures == 0


def test_failures_are_retried_within_max_failures() -> None:
    """One retry is allowed, the second failure ends the job and says so."""
    bench, attempt = training(max_failures=1)
    bench.over(20, attempt, nt.Outcome.FAILED, exit_code=3, detail="boom")
    assert bench.state.jobs["a"].reason is Reason.RETRY_AFTER_FAILURE
    second = bench.lease(21)
    bench.over(30, second, nt.Outcome.FAILED, exit_code=3, detail="boom")
    job = bench.state.jobs["a"]
    assert (job.state, job.reason) == (JobState.FAILED, Reason.MAX_FAILURES)
    assert "boom" in job.sentence


def test_a_failed_launch_backs_off_and_requeues_without_blame() -> None:
    """The pause doubles with each failure in a row, and nobody's counter moves."""
    bench = Bench()
    bench.job(0)
    pauses = []
    for number, at_s in enumerate((1, 3, 6)):
        bench.node(at_s, f"n{number}")
        bench.node(at_s, f"twin{number}")
        bench.lease(at_s, nodes=(f"n{number}",))
        for node in (f"n{number}", f"twin{number}"):  # launches that fail together count once
            bench.notice(at_s, nt.LaunchFailed, node_id=node, detail="no capacity")
        pauses.append(bench.state.flavors["spot"].backoff_until_us - at_s * S)
    assert pauses == [S, 2 * S, 4 * S]
    job = bench.state.jobs["a"]
    assert (job.state, job.reason, job.evictions) == (JobState.QUEUED, Reason.LAUNCH_FAILED, 0)
    bench.node(9, "n9")
    bench.notice(9, nt.NodeJoined, node_id="n9", address="x")
    assert bench.state.flavors["spot"].launch_failures == 0


def test_a_dead_node_ends_the_whole_gang() -> None:
    """The lease on the surviving node is released too."""
    bench = Bench()
    bench.job(0, nodes=2)
    bench.node(0, "n1")
    bench.node(0, "n2")
    attempt = bench.lease(0, nodes=("n1", "n2"))
    for node in ("n1", "n2"):
        bench.notice(1, nt.NodeJoined, node_id=node, address=node)
    bench.notice(2, nt.TrainingBegan, attempt_id=attempt, step=0, total_steps=10)
    bench.notice(5, nt.NodeLost, node_id="n2", noticed=False, detail="raylet died")
    assert bench.state.attempts[attempt].state is AttemptState.LOST
    assert bench.state.held_milli("n1") == 0
    assert bench.state.nodes["n1"].idle_since_us == 5 * S


def test_a_notice_before_the_start_ends_the_attempt_at_once() -> None:
    """A gang that still waits for a node has nothing to save."""
    bench = Bench()
    bench.job(0, nodes=2)
    bench.node(0, "n1")
    bench.node(0, "n2")
    attempt = bench.lease(0, nodes=("n1", "n2"))
    bench.notice(1, nt.NodeJoined, node_id="n1", address="x")
    bench.notice(2, nt.EvictionNoticed, node_id="n1", deadline_us=9 * S)
    assert bench.state.attempts[attempt].state is AttemptState.EVICTED
    assert bench.state.jobs["a"].state is JobState.QUEUED


def test_cancel_stops_a_live_attempt_and_ends_a_queued_job() -> None:
    """Cancelling waits for the processes to be gone; a queued job ends at once."""
    bench, attempt = training()
    bench.job(8, "b")
    for job_id in ("a", "b"):
        bench.emit(9, ev.JobCancelRequested(at_us=9 * S, job_id=job_id))
    bench.upkeep(9)
    assert bench.state.jobs["b"].state is JobState.CANCELLED
    assert bench.state.attempts[attempt].state is AttemptState.DRAINING
    bench.over(11, attempt, nt.Outcome.STOPPED)
    assert bench.state.jobs["a"].state is JobState.CANCELLED


def test_pause_saves_first_and_holds_the_job() -> None:
    """A paused job is queued, held, and nobody's eviction."""
    bench, attempt = training()
    bench.emit(9, ev.JobHeld(at_us=9 * S, job_id="a", held=True))
    bench.upkeep(9)
    assert bench.state.attempts[attempt].reason is Reason.USER_PAUSED
    bench.over(11, attempt, nt.Outcome.DRAINED, exit_code=75)
    job = bench.state.jobs["a"]
    assert (job.state, job.reason, job.preemptions, job.evictions) == (
        JobState.QUEUED,
        Reason.PAUSED,
        1,
        0,
    )


def test_max_runtime_ends_the_job() -> None:
    """An attempt that runs too long is stopped and the job fails with that reason."""
    bench, attempt = training(max_runtime="60s")
    bench.upkeep(65)
    assert bench.state.attempts[attempt].state is AttemptState.TRAINING
    bench.upkeep(66)
    assert bench.state.attempts[attempt].reason is Reason.MAX_RUNTIME
    bench.over(67, attempt, nt.Outcome.STOPPED)
    job = bench.state.jobs["a"]
    assert (job.state, job.reason) == (JobState.FAILED, Reason.MAX_RUNTIME)


def test_a_node_that_nobody_asked_for_is_taken_in() -> None:
    """Somebody else's node joins with its flavor; one of an unknown flavor is left alone."""
    bench = Bench()
    facts: dict[str, Any] = {"address": "x", "cluster": "c", "gpu_milli": 1_000, "cpus": 4}
    assert bench.notice(1, nt.NodeJoined, node_id="theirs", flavor="spot", **facts) == 2
    assert bench.state.nodes["theirs"].state is NodeState.READY
    assert bench.notice(1, nt.NodeJoined, node_id="odd", flavor="unknown", **facts) == 0


def test_an_ended_attempt_cannot_move_the_restore_point() -> None:
    """News of an orphan that trains on are not believed."""
    bench, attempt = training()
    bench.notice(20, nt.NodeLost, node_id="n1", noticed=False)
    assert bench.committed(21, attempt, step=50, snap_s=20) == 0
    assert bench.state.jobs["a"].restore_point is None


def test_a_drain_before_the_start_was_heard_of_may_still_end_well() -> None:
    """Notice, then the end with exit code 0, and never a word that the workers were up."""
    bench = Bench()
    bench.job(0)
    bench.node(0)
    attempt = bench.lease(0)
    bench.notice(1, nt.NodeJoined, node_id="n1", address="x")
    bench.notice(2, nt.EvictionNoticed, node_id="n1", deadline_us=60 * S)
    assert bench.state.attempts[attempt].state is AttemptState.DRAINING
    bench.over(9, attempt, nt.Outcome.SUCCEEDED, exit_code=0)
    assert bench.state.jobs["a"].state is JobState.SUCCEEDED


def test_an_old_level_never_replaces_a_newer_one() -> None:
    """Capacity is a level: what was seen earlier says nothing, in whatever order it comes."""
    bench = Bench()
    bench.notice(10, nt.CapacitySeen, at_s=10, flavor="spot", limit=3)
    bench.notice(11, nt.CapacitySeen, at_s=11, flavor="spot", limit=3)
    assert bench.notice(12, nt.CapacitySeen, at_s=10.5, flavor="spot", limit=0) == 0
    assert bench.notice(12, nt.CapacitySeen, at_s=11, flavor="spot", limit=3) == 0
    assert bench.state.flavors["spot"].limit == 3
    bench.notice(13, nt.CapacitySeen, at_s=12, flavor="spot", limit=1)
    assert bench.state.flavors["spot"].limit == 1


def test_a_commit_counts_also_when_the_start_of_training_was_not_heard_of() -> None:
    """A drain that came first hides the start, never the restore point."""
    bench = Bench()
    bench.job(0)
    bench.node(0)
    attempt = bench.lease(0)
    bench.notice(1, nt.NodeJoined, node_id="n1", address="x")
    bench.notice(2, nt.EvictionNoticed, node_id="n1", deadline_us=60 * S)
    assert bench.committed(9, attempt, step=5, snap_s=8) == 1
    point = bench.state.jobs["a"].restore_point
    assert point is not None
    assert (point.step, point.snapshot_us) == (5, 8 * S)


def test_a_snapshot_from_the_future_is_moved_to_its_commit() -> None:
    """A child's clock that runs ahead cannot make later work safe."""
    bench, attempt = training()
    bench.committed(20, attempt, step=5, snap_s=500)
    point = bench.state.jobs["a"].restore_point
    assert point is not None
    assert point.snapshot_us == 20 * S


def test_notices_of_one_sender_are_taken_in_the_order_of_arrival() -> None:
    """A commit stamped after the end of its attempt, but told before it, is kept."""
    bench, attempt = training()
    bench.committed(21, attempt, step=5, snap_s=19)
    bench.notice(21, nt.AttemptOver, at_s=20, attempt_id=attempt, outcome=nt.Outcome.HEARTBEAT_LOST)
    assert bench.state.jobs["a"].restore_point is not None


def test_what_a_restart_took_is_kept_with_its_attempts() -> None:
    """First sign, end, process, imports and the step of before: each once, in the rows."""
    bench, first = training()
    bench.notice(30, nt.Progressed, attempt_id=first, step=40, total_steps=100)
    assert bench.notice(31, nt.WorkerSilent, attempt_id=first) == 1
    assert bench.post(32, nt.WorkerSilent(id="again", at_us=31 * S, attempt_id=first)) == 0
    bench.notice(33, nt.NodeLost, node_id="n1", noticed=False)
    bench.node(34, "n2")
    second = bench.lease(35, nodes=("n2",))
    bench.notice(36, nt.WorkersUp, attempt_id=second)
    opened: dict[str, Any] = {"attempt_id": second, "process_us": 37 * S, "standby": True}
    assert bench.notice(38, nt.ChildOpened, **opened) == 1
    assert bench.notice(39, nt.ChildOpened, **opened) == 0
    bench.notice(40, nt.TrainingBegan, attempt_id=second, step=30, total_steps=100)
    bench.notice(41, nt.Progressed, attempt_id=second, step=39, total_steps=100)
    assert bench.state.attempts[second].caught_up_us is None
    bench.notice(42, nt.Progressed, attempt_id=second, step=40, total_steps=100)
    old, row = bench.state.attempts[first], bench.state.attempts[second]
    assert (old.silent_us, row.reached, row.caught_up_us) == (31 * S, 40, 42 * S)
    assert (row.process_us, row.opened_us, row.standby) == (37 * S, 38 * S, True)
