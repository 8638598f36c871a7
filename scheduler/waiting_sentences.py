"""What a user is told about jobs that wait for other jobs, and about limits that are used up.

As in ``scheduler.sentences``, a sentence stays the same for as long as the facts do.
"""

from __future__ import annotations

from jobs.durations import show_duration
from jobs.rows import JobRow
from jobs.wants import After, ArrayPlace, When


def waits_for_job(one: After, before: JobRow) -> str:
    """Its predecessor is not over."""
    must = "has succeeded" if one.when is When.SUCCEEDED else "has ended"
    return f"Waits for {_named(before)}, which is {before.state}: starts once it {must}."


def waits_after_failure(before: JobRow) -> str:
    """Its predecessor did not succeed, and its owner wants it kept."""
    return (
        f"Waits for {_named(before)}, which {_ended(before)} (on_failure: wait): "
        "cancel it, or submit both again."
    )


def after_failure(before: JobRow) -> str:
    """It ends because its predecessor did not succeed."""
    return f"Not started: it comes after {_named(before)}, which {_ended(before)}."


def waits_for_array(place: ArrayPlace) -> str:
    """Enough elements of its array are up."""
    return (
        f"Waits for its turn: {place.max_parallel} of the {place.size} elements of {place.id} may "
        "be up at once."
    )


def max_runtime(job: JobRow) -> str:
    """Its time on capacity is used up."""
    allowed = show_duration(job.spec.max_runtime or 0)
    point = job.restore_point
    kept = "" if point is None else f" Its restore point at step {point.step} is kept."
    return f"It was on capacity for {allowed}, which is its max_runtime.{kept}"


def _named(job: JobRow) -> str:
    return f"{job.id} ({job.spec.label})"


def _ended(job: JobRow) -> str:
    return "was cancelled" if job.state == "cancelled" else "failed"
