"""How attempts end, what becomes of their jobs, and what time and owners bring about.

Generators of events, as in ``scheduler.reconcile``: the caller applies each event before it
asks for the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jobs import events as ev
from jobs.arrays import members
from jobs.durations import show_duration
from jobs.reasons import Reason
from jobs.rows import AttemptRow, JobRow
from jobs.state import State
from jobs.states import AttemptState, JobState, NodeState
from jobs.wants import OnFailure, When
from scheduler.waiting_sentences import after_failure, max_runtime

_NEVER_US = 1 << 62
_OWNER_GRACE_MS = 30_000  # a paused job may save


def is_started(state: State, attempt: AttemptRow) -> bool:
    """Whether the order to start the attempt may have been given."""
    if attempt.state is not AttemptState.LEASED:
        return True
    return all(state.nodes[node_id].state is NodeState.READY for node_id in attempt.node_ids)


def end_attempt(
    state: State,
    attempt: AttemptRow,
    *,
    at_us: int,
    outcome: AttemptState,
    reason: Reason,
    exit_code: int | None = None,
    detail: str = "",
) -> Iterator[ev.Event]:
    """End an attempt and say what becomes of its job."""
    end = ev.AttemptEnded(
        at_us=at_us,
        attempt_id=attempt.id,
        state=outcome,
        reason=reason,
        exit_code=exit_code,
        detail=detail,
    )
    yield end
    yield _job_after(state.jobs[attempt.job_id], attempt, end)


def _job_after(job: JobRow, attempt: AttemptRow, end: ev.AttemptEnded) -> ev.Event:
    verdict = _final_verdict(job, end)
    if verdict is not None:
        to, why, sentence = verdict
        return ev.JobEnded(at_us=end.at_us, job_id=job.id, state=to, reason=why, sentence=sentence)
    why = Reason.RETRY_AFTER_FAILURE if end.state is AttemptState.FAILED else end.reason
    why = Reason.PAUSED if job.held else why
    sentence = _requeue_sentence(job, attempt, why)
    return ev.JobRequeued(at_us=end.at_us, job_id=job.id, reason=why, sentence=sentence)


def _final_verdict(job: JobRow, end: ev.AttemptEnded) -> tuple[JobState, Reason, str] | None:
    """Give the job's end, or None when it is to be tried again."""
    if end.state is AttemptState.SUCCEEDED:
        return JobState.SUCCEEDED, end.reason, "Finished."
    if job.cancel_requested:
        return JobState.CANCELLED, Reason.USER_CANCELLED, "Cancelled by its owner."
    if end.reason is Reason.MAX_RUNTIME or _runtime_left_ms(job) <= 0:
        return JobState.FAILED, Reason.MAX_RUNTIME, max_runtime(job)
    if end.state is AttemptState.FAILED and not _is_retried(job, end):
        why = Reason.MAX_FAILURES if job.failures > job.spec.max_failures > 0 else Reason.USER_ERROR
        return JobState.FAILED, why, f"The script failed: {end.detail or 'no output'}"
    return _used_up(job)


def _is_retried(job: JobRow, end: ev.AttemptEnded) -> bool:
    """Whether a failure of the script is worth another try."""
    codes = job.spec.retry_on
    return job.failures <= job.spec.max_failures and (not codes or end.exit_code in codes)


def _used_up(job: JobRow) -> tuple[JobState, Reason, str] | None:
    """Give the end of a job that has used up one of its own limits, None while it has not."""
    spec = job.spec
    limits = (
        (job.evictions, spec.max_evictions, Reason.MAX_EVICTIONS, "evicted"),
        (job.lost, spec.max_lost, Reason.MAX_LOST, "lost by its worker"),
        (
            job.launch_failures,
            spec.max_launch_failures,
            Reason.MAX_LAUNCH_FAILURES,
            "left without its nodes",
        ),
    )
    for count, limit, reason, what in limits:
        if limit is not None and count > limit:
            sentence = f"It was {what} {count} times; {reason.replace('-', '_')} allows {limit}."
            return JobState.FAILED, reason, sentence
    return None


def _requeue_sentence(job: JobRow, attempt: AttemptRow, reason: Reason) -> str:
    point = job.restore_point
    start = "from the beginning" if point is None else f"at step {point.step}"
    left = f", {show_duration(job.remaining_ms())} of work left" if job.work_ms else ""
    return f"Attempt {attempt.number} ended ({reason}); resumes {start}{left}."


def upkeep(state: State, *, now_us: int) -> Iterator[ev.Event]:
    """Give the events that need no notice: cancels and pauses asked for, runtimes used up."""
    yield from _queue_upkeep(state, now_us)
    live = list(state.live_attempts)
    for attempt_id in live:
        attempt = state.attempts[attempt_id]
        reason = _unwanted(state.jobs[attempt.job_id], attempt, now_us)
        if reason is not None and attempt.state is not AttemptState.DRAINING:
            yield from take_back(
                state, attempt, at_us=now_us, reason=reason, grace_ms=_OWNER_GRACE_MS
            )
    if len(state.live_attempts) < len(live):  # one that never started ended at once
        yield from _queue_upkeep(state, now_us)


def _queue_upkeep(state: State, now_us: int) -> Iterator[ev.Event]:
    """End waiting jobs that are not to start any more, and then those that come after them."""
    ended = True
    while ended:
        ended = False
        for job_id in list(state.queued):
            verdict = _not_to_start(state, state.jobs[job_id])
            if verdict is not None:
                ended = True
                to, why, sentence = verdict
                yield ev.JobEnded(
                    at_us=now_us, job_id=job_id, state=to, reason=why, sentence=sentence
                )


def _not_to_start(state: State, job: JobRow) -> tuple[JobState, Reason, str] | None:
    if job.cancel_requested:
        return JobState.CANCELLED, Reason.USER_CANCELLED, "Cancelled by its owner."
    if job.spec.on_failure is OnFailure.CANCEL:
        failed = _failed_before(state, job)
        if failed is not None:
            return JobState.CANCELLED, Reason.DEPENDENCY_FAILED, after_failure(failed)
    return None


def _failed_before(state: State, job: JobRow) -> JobRow | None:
    """Give the first predecessor that had to succeed and did not."""
    for one in job.spec.after:
        if one.when is When.SUCCEEDED:
            for before in members(state.jobs, one.job):
                if before.ended and before.state is not JobState.SUCCEEDED:
                    return before
    return None


def _unwanted(job: JobRow, attempt: AttemptRow, now_us: int) -> Reason | None:
    if job.cancel_requested:
        return Reason.USER_CANCELLED
    if job.held:
        return Reason.USER_PAUSED
    if _runtime_end_us(job, attempt) <= now_us:
        return Reason.MAX_RUNTIME
    return None


def _runtime_end_us(job: JobRow, attempt: AttemptRow) -> int:
    """Give when the job's time on capacity, earlier attempts included, is used up."""
    if job.spec.max_runtime is None or attempt.started_us is None:
        return _NEVER_US
    return attempt.started_us + _runtime_left_ms(job) * 1_000


def _runtime_left_ms(job: JobRow) -> int:
    limit_ms = job.spec.max_runtime
    return _NEVER_US if limit_ms is None else limit_ms - job.runtime_ms


def next_upkeep_us(state: State, attempt_ids: Iterable[str]) -> int | None:
    """Give the first instant at which ``upkeep`` has something to do by itself."""
    ends = [
        _runtime_end_us(state.jobs[state.attempts[attempt_id].job_id], state.attempts[attempt_id])
        for attempt_id in attempt_ids
        if state.attempts[attempt_id].state is not AttemptState.DRAINING
    ]
    first = min(ends, default=_NEVER_US)
    return None if first == _NEVER_US else first


def take_back(
    state: State, attempt: AttemptRow, *, at_us: int, reason: Reason, grace_ms: int
) -> Iterator[ev.Event]:
    """Take an attempt's capacity back: drain it, or just end it when it never started."""
    if is_started(state, attempt):
        yield ev.AttemptMoved(
            at_us=at_us,
            attempt_id=attempt.id,
            state=AttemptState.DRAINING,
            reason=reason,
            deadline_us=at_us + grace_ms * 1_000,
        )
    else:
        yield from end_attempt(
            state, attempt, at_us=at_us, outcome=AttemptState.PREEMPTED, reason=reason
        )
