"""Which jobs of a simulation did not get what they asked for, why, and what was possible at all."""

from __future__ import annotations

from typing import Any

from jobs.durations import US_PER_MS, US_PER_S, show_duration
from jobs.rows import JobRow
from jobs.spec import JobSpec
from jobs.states import JobState
from scheduler.bound import Past, past_of
from scheduler.earliest import earliest_finish_us
from scheduler.scenario import Arrival
from scheduler.sentences import show_instant
from scheduler.simulation import Refused, Result

Row = dict[str, Any]


def missed(result: Result, job: JobRow) -> bool:
    """A deadline that passed before the job succeeded; one beyond the end is not judged."""
    if job.deadline_us is None:
        return False
    if job.state is JobState.SUCCEEDED and job.ended_us is not None:
        return job.ended_us > job.deadline_us
    return job.ended or job.deadline_us <= result.ended_us


def unmet(result: Result) -> list[Row]:
    """Give a row for each job that was refused, missed its deadline or did not succeed."""
    failed = [
        job
        for job in result.jobs.values()
        if job.state is not JobState.SUCCEEDED or missed(result, job)
    ]
    late = [one for one in result.scenario.arrivals if one.at_us > result.scenario.end_us]
    if not failed and not result.refused and not late:
        return []
    past = past_of(result.scenario, book=result.book)
    rows = [_refused_row(result, one, past) for one in result.refused]
    rows += [_not_submitted_row(result, one) for one in late]
    rows += [_row(result, job, past) for job in failed]
    return sorted(rows, key=lambda row: (row["submit_s"], row["name"]))


def _refused_row(result: Result, one: Refused, past: Past) -> Row:
    spec, at_us = one.arrival.spec, one.arrival.at_us
    deadline_us = spec.deadline_us(submitted_us=at_us)
    first_us = earliest_finish_us(spec, submitted_us=at_us, past=past)
    shown = _shown(result, spec, at_us, deadline_us, first_us)
    return shown | {"state": "refused", "why": one.error.cause}


def _not_submitted_row(result: Result, one: Arrival) -> Row:
    deadline_us = one.spec.deadline_us(submitted_us=one.at_us)
    shown = _shown(result, one.spec, one.at_us, deadline_us, None)
    return shown | {"state": "not submitted", "why": "It comes after the horizon."}


def _row(result: Result, job: JobRow, past: Past) -> Row:
    first_us = earliest_finish_us(job.spec, submitted_us=job.submitted_us, past=past)
    shown = _shown(result, job.spec, job.submitted_us, job.deadline_us, first_us)
    state = "late" if job.state is JobState.SUCCEEDED else str(job.state)
    return shown | {"state": state if job.ended else "unfinished", "why": _why(job, first_us)}


def _shown(
    result: Result, spec: JobSpec, at_us: int, deadline_us: int | None, first_us: int | None
) -> Row:
    start_us = result.scenario.start_us
    return {
        "name": spec.label,
        "submit_s": (at_us - start_us) / US_PER_S,
        "deadline_s": None if deadline_us is None else (deadline_us - start_us) / US_PER_S,
        "earliest_finish_s": None if first_us is None else (first_us - start_us) / US_PER_S,
    }


def _why(job: JobRow, first_us: int | None) -> str:
    """Say in a sentence whether anybody could have done it, and what became of it."""
    if first_us is None:
        return (
            "No flavor that it may use had room for it for long enough before the simulation ended."
        )
    when = show_instant(first_us)
    if job.deadline_us is not None and first_us > job.deadline_us:
        return f"Nobody could have met the deadline: alone, it would have ended at {when}."
    if job.state is JobState.SUCCEEDED and job.deadline_us is not None:
        late = show_duration(((job.ended_us or 0) - job.deadline_us) // US_PER_MS)
        return f"It ended {late} late; alone and knowing all, it could have ended at {when}."
    if job.ended:
        return f"It {job.state}: {job.reason}."
    return job.sentence or f"It is {job.state}: {job.reason}."
