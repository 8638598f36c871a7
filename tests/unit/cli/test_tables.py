"""What is worked out for people from a job's row: waits, slack, and what comes next."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from jobs.codec import from_data
from jobs.reasons import Reason
from jobs.rows import AttemptRow, JobRow, RestorePoint
from jobs.states import AttemptState, JobState
from scheduler.cli import tables
from tests.unit.jobs_client.tiny_api import job_row

S = 1_000_000
HOUR = 3_600 * S


def job(**changes: Any) -> JobRow:
    """Build a job that was submitted at second 0 and knows its 100 steps and 2 hours of work."""
    made: JobRow = from_data(job_row(submitted_us=0, queued_us=0), into=JobRow)
    known = dataclasses.replace(made, total_steps=100, work_ms=7_200_000)
    return dataclasses.replace(known, **changes)


def attempt(**changes: Any) -> AttemptRow:
    """Build the job's live attempt."""
    made = AttemptRow(
        id="job-1/1",
        job_id="job-1",
        number=1,
        state=AttemptState.TRAINING,
        reason=Reason.CHEAPEST_NOW,
        cluster="local",
        flavor="spot",
        node_ids=("node-1",),
        gpu_milli=1_000,
        lease_id="lease-1",
        created_us=0,
    )
    return dataclasses.replace(made, **changes)


def test_the_present_stay_in_the_queue_counts_as_waiting() -> None:
    """Earlier stays are added; a job that runs waits no more."""
    waiting = job(waited_ms=5_000, queued_us=10 * S)
    assert tables.wait_ms(waiting, now_us=13 * S) == 8_000
    running = dataclasses.replace(waiting, state=JobState.RUNNING)
    assert tables.wait_ms(running, now_us=13 * S) == 5_000


def test_slack_is_what_the_remaining_work_leaves() -> None:
    """Waiting work is counted from the restore point, running work from the last step."""
    point = RestorePoint(step=50, snapshot_us=0, committed_us=0, manifest="", epoch=1)
    waiting = job(deadline_us=4 * HOUR, restore_point=point, step=75)
    assert tables.slack_ms(waiting, now_us=HOUR) == 2 * 3_600_000
    running = dataclasses.replace(waiting, state=JobState.RUNNING)
    assert tables.slack_ms(running, now_us=HOUR) == 9_000_000
    assert tables.slack_ms(job(), now_us=HOUR) is None


@pytest.mark.parametrize(
    ("ended_us", "told"), [(3 * HOUR, "met with 60 min to spare"), (5 * HOUR, "missed by 60 min")]
)
def test_a_deadline_was_met_or_missed(ended_us: int, told: str) -> None:
    """After the end it is no longer slack."""
    ended = job(state=JobState.SUCCEEDED, deadline_us=4 * HOUR, ended_us=ended_us)
    lines = dict(tables.job_lines(ended, attempts=(), now_us=9 * HOUR))
    assert told in lines["deadline"]


@pytest.mark.parametrize(
    ("row", "live", "told"),
    [
        (job(), None, "lowtide explain job-1"),
        (job(held=True), None, "lowtide resume job-1"),
        (job(cancel_requested=True), None, "then it is cancelled"),
        (job(state=JobState.ADMITTED, attempt_id="job-1/1"), attempt(), "get ready on node-1"),
        (
            job(state=JobState.RUNNING, attempt_id="job-1/1"),
            attempt(),
            "it trains on node-1 (spot)",
        ),
        (
            job(state=JobState.RUNNING, attempt_id="job-1/1"),
            attempt(state=AttemptState.DRAINING, drain_deadline_us=S),
            "it saves until 1970",
        ),
        (job(state=JobState.FAILED), None, "lowtide logs job-1"),
        (job(state=JobState.SUCCEEDED), None, "lowtide cost job-1"),
        (job(state=JobState.CANCELLED), None, "lowtide cost job-1"),
    ],
)
def test_there_is_always_a_next_step(row: JobRow, live: AttemptRow | None, told: str) -> None:
    """In every state the reader learns what will happen or what to do."""
    assert told in tables.next_step(row, attempts=[live] if live else [])


def test_progress_needs_a_total() -> None:
    """A share when the steps are known, else the step, else nothing."""
    assert tables.progress(job(step=33)) == "33 %"
    assert tables.progress(job(step=33), long=True) == "step 33 of 100 (33 %)"
    assert tables.progress(job(step=33, total_steps=0)) == "step 33"
    assert tables.progress(job(total_steps=0)) == "-"


def test_a_restore_point_says_how_old_it_is() -> None:
    """What an eviction would cost now."""
    point = RestorePoint(step=50, snapshot_us=0, committed_us=0, manifest="", epoch=1)
    row = job(restore_point=point)
    assert tables.restore_point(row, now_us=90 * S) == "step 50, saved 90 s ago"
    assert tables.restore_point(job(), now_us=0) == "none"
    assert "would lose" in tables.restore_point(job(state=JobState.RUNNING), now_us=0)


def test_the_start_of_an_attempt_is_told_phase_by_phase() -> None:
    """Only what was observed; whether its process stood ready is said."""
    first = attempt(state=AttemptState.LOST, started_us=S, silent_us=5 * S, ended_us=6 * S)
    second = attempt(
        id="job-1/2",
        number=2,
        created_us=6 * S,
        started_us=8 * S,
        process_us=8 * S,
        opened_us=8 * S + 40_000,
        standby=True,
    )
    assert list(tables.start_lines([first, second])) == [
        "start of attempt 1: 1.00 s: boot 1.00",
        (
            "start of attempt 2 (stood ready): 3.04 s: "
            "detect 1.00, place 0.00, boot 2.00, start 0.00, import 0.04"
        ),
    ]
