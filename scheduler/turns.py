"""Whose turn it is: jobs that come after other jobs, and elements of an array with a cap."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.arrays import members
from jobs.reasons import Reason
from jobs.rows import JobRow
from jobs.states import JobState
from jobs.wants import After, OnFailure, When
from scheduler.snapshot import Snapshot
from scheduler.waiting_sentences import waits_after_failure, waits_for_array, waits_for_job
from scheduler.wishes import Wait


class Turns:
    """What a cycle knows of jobs that wait for others.

    ``wait`` lets the elements of a capped array through in the order in which it is asked.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        """Count the elements that hold capacity, and index the predecessors."""
        self._before = {job.id: job for job in snapshot.predecessors}
        self._up: dict[str, int] = {}
        for one in snapshot.live:
            self._count(one.job)

    def wait(self, job: JobRow) -> Wait | None:
        """Give why it is not the job's turn, None when it is."""
        return self._for_job(job) or self._for_array(job)

    def _for_job(self, job: JobRow) -> Wait | None:
        for one in job.spec.after:
            for before in members(self._before, one.job):
                sentence = _not_yet(one, before, job=job)
                if sentence is not None:
                    return Wait(job=job, reason=Reason.WAITS_FOR_JOB, sentence=sentence)
        return None

    def _for_array(self, job: JobRow) -> Wait | None:
        place = job.array
        if place is None or place.max_parallel is None:
            return None
        if self._up.get(place.id, 0) >= place.max_parallel:
            return Wait(job=job, reason=Reason.WAITS_FOR_ARRAY, sentence=waits_for_array(place))
        self._count(job)
        return None

    def _count(self, job: JobRow) -> None:
        if job.array is not None:
            self._up[job.array.id] = self._up.get(job.array.id, 0) + 1


def _not_yet(one: After, before: JobRow, *, job: JobRow) -> str | None:
    if not before.ended:
        return waits_for_job(one, before)
    met = one.when is When.ENDED or before.state is JobState.SUCCEEDED
    if met or job.spec.on_failure is OnFailure.RUN:
        return None
    return waits_after_failure(before)


def predecessors(jobs: Mapping[str, JobRow], waiting: Mapping[str, None]) -> tuple[JobRow, ...]:
    """Give the rows of all jobs that waiting ones come after, each once."""
    names = dict.fromkeys(one.job for job_id in waiting for one in jobs[job_id].spec.after)
    return tuple(row for name in names for row in members(jobs, name))
