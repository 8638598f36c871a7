"""What will come in that nobody has submitted yet: jobs like those of the last week.

A plan that sees only the present queue thinks that next night's spot nodes are all its own. So
the plan ahead counts with work of which nothing but the rate and the usual deadline is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from jobs.rows import JobRow
from scheduler.market import MS_PER_HOUR
from scheduler.survival import US_PER_HOUR

_REMEMBERED_US = 7 * 24 * US_PER_HOUR
_EMPTY_H = 6.0  # hours without a job that are assumed before the first


@dataclass(frozen=True, slots=True, kw_only=True)
class Inflow:
    """GPU-hours of work with a deadline that come in an hour, and how long they may take."""

    gpus: float
    span_h: float  # from submission to deadline, weighted by work


@dataclass(slots=True)
class Arrivals:
    """The jobs that were seen to come, by id: when, GPU-hours, hours until the deadline."""

    _seen: dict[str, tuple[int, float, float]] = field(default_factory=dict)

    def note(self, jobs: Iterable[JobRow]) -> None:
        """Remember who is here."""
        for job in jobs:
            if job.id in self._seen or job.deadline_us is None or not job.work_ms:
                continue
            gpus = job.spec.nodes * job.spec.gpu_milli / 1_000
            span_h = (job.deadline_us - job.submitted_us) / US_PER_HOUR
            self._seen[job.id] = (job.submitted_us, gpus * job.work_ms / MS_PER_HOUR, span_h)

    def rate(self, now_us: int) -> Inflow | None:
        """Give what came in over the last week, and forget what is older."""
        old = [key for key, one in self._seen.items() if one[0] < now_us - _REMEMBERED_US]
        for key in old:
            del self._seen[key]
        work = sum(hours for _, hours, _ in self._seen.values())
        if not work:
            return None
        first_us = min(at_us for at_us, _, _ in self._seen.values())
        span_h = sum(hours * span for _, hours, span in self._seen.values()) / work
        return Inflow(gpus=work / ((now_us - first_us) / US_PER_HOUR + _EMPTY_H), span_h=span_h)
