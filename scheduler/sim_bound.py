"""What a simulation's work had to cost at least, for the queue and for each job.

The bound is on the work that was DONE: the jobs that succeeded, each by its deadline, or by its
end where it missed it. So it exists for every scenario and is below the cost whatever happened;
``covers`` says how many jobs it is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.durations import US_PER_MS, from_us
from jobs.ledger.split import US_PER_HOUR
from jobs.rows import JobRow
from jobs.spec import NANOS_PER_USD
from jobs.states import JobState
from scheduler.bound import CELLS, Bound, Past, hindsight, past_of, share_of
from scheduler.scenario import Arrival
from scheduler.simulation import Result

_MOST_CELLS = 5_000_000  # for one job of a queue: more would not tighten it much
_LEAST_CELLS = 20_000
_DEAR_JOBS = 1_000  # beyond it, the jobs' own bounds are worked out only when asked for
_SAFE = 1 - 1e-6  # floats; bills are floors of each stretch at a price


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The bound of a whole simulation."""

    usd: float | None  # None = nothing was done
    kind: str  # "dp" | "lp" | "floor"
    covers: int = 0  # jobs
    each: Mapping[str, float] = field(default_factory=dict)
    """By job that was done, what it had to pay at least of the nodes that it used, in dollars."""


def lower_bound(result: Result, *, every: bool = False, cells: int = CELLS) -> Floor:
    """Bound what the work that was done had to cost: the best of all bounds that hold.

    Args:
        result: of a simulation.
        every: bound each job by itself, however many there are.
        cells: that the bounds of single jobs may look at; fewer are quicker and looser.
    """
    done = [job for job in result.jobs.values() if job.state is JobState.SUCCEEDED]
    if not done:
        return Floor(usd=None, kind="dp")
    past = _past(result, done)
    each = _each(done, past, cells=cells // 2) if every or len(done) <= _DEAR_JOBS else {}
    if len(done) == 1:  # who shared its nodes with one that was not done paid a share
        best = _bound(done[0], past, alone=len(result.jobs) == 1, cells=cells)
    else:
        alone = Bound(usd=sum(each.values()), kind="dp")
        best = max(_together(result, done, past), alone, key=lambda bound: bound.usd or 0.0)
    return Floor(usd=best.usd or 0.0, kind=best.kind, covers=len(done), each=each)


def _past(result: Result, done: Sequence[JobRow]) -> Past:
    ends_us = [due for job in done if (due := _due_us(job)) is not None]
    until_us = min(max(ends_us, default=0), result.scenario.end_us)
    return past_of(result.scenario, book=result.book, until_us=until_us)


def _due_us(job: JobRow) -> int | None:
    """Give by when it was done at the latest: its deadline, or the end that missed it."""
    if job.deadline_us is None:
        return None
    return max(job.deadline_us, job.ended_us or 0)


def _bound(job: JobRow, past: Past, *, alone: bool, cells: int) -> Bound:
    return hindsight(
        job.spec,
        submitted_us=job.submitted_us,
        deadline_us=_due_us(job),
        past=past,
        alone=alone,
        cells=cells,
    )


def _each(done: Sequence[JobRow], past: Past, *, cells: int) -> dict[str, float]:
    part = max(_LEAST_CELLS, min(_MOST_CELLS, cells // len(done)))
    return {job.id: _bound(job, past, alone=False, cells=part).usd or 0.0 for job in done}


def _together(result: Result, done: Sequence[JobRow], past: Past) -> Bound:
    from scheduler.bound_lp import several_jobs  # noqa: PLC0415 - the solver is loaded on demand

    arrivals = [_arrival(job) for job in done]
    bound = several_jobs(result.scenario, arrivals, book=result.book)
    return _at_least(done, past) if bound.usd is None else bound


def _arrival(job: JobRow) -> Arrival:
    """Give the job as it would have been submitted with the end that it had."""
    due_us = _due_us(job)
    deadline = None if due_us is None else from_us(due_us)
    return Arrival(at_us=job.submitted_us, spec=job.spec.model_copy(update={"deadline": deadline}))


def _at_least(done: Sequence[JobRow], past: Past) -> Bound:
    """Give work and set-up x the lowest price of any flavor that each job may use."""
    usd = 0.0
    for job in done:
        shares = {
            c.flavor.name: share_of(c.flavor, job.spec)
            for c in past.capacities
            if c.flavor.allows(job.spec)
        }
        lowest = min(past.lowest(name) * share for name, share in shares.items())
        hours = ((job.spec.work or 0) + job.spec.setup) * US_PER_MS / US_PER_HOUR
        usd += job.spec.nodes * hours * lowest / NANOS_PER_USD
    return Bound(usd=usd * _SAFE, kind="floor")
