"""An attempt of an imagined future: how far it is, what is safe, and what the rows say of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cluster.flavors import Flavor
from jobs.durations import US_PER_MS
from jobs.reasons import Reason
from jobs.rows import AttemptRow, JobRow, RestorePoint
from jobs.states import AttemptState, JobState
from scheduler.needs import at_risk_ms, overhead_ms, with_stalls_ms
from scheduler.plan import Place


@dataclass(slots=True, kw_only=True)
class Try:
    """One attempt; ``base_ms`` of the work was done when it began."""

    row: AttemptRow
    job: JobRow  # as it was when the attempt began
    trains_us: int  # when its first step begins
    ends_us: int  # when its training would be done
    dies_us: int  # when the cloud's notice comes

    @property
    def base_ms(self) -> int:
        """Work that was safe when it began."""
        return self.job.work_ms - self.job.remaining_ms()

    @property
    def continuous(self) -> bool:
        """Whether it is always saved, at no cost."""
        spec = self.job.spec
        return spec.checkpoint_interval == 0 or (spec.checkpoint_interval is None and not spec.save)

    def done_ms(self, at_us: int) -> int:
        """Work done by an instant, safe or not."""
        left_ms = self.job.remaining_ms()
        wall_ms = max(1, with_stalls_ms(self.job.spec, left_ms))
        return self.base_ms + min(left_ms, self._trained_ms(at_us) * left_ms // wall_ms)

    def saved_ms(self, at_us: int) -> int:
        """Work that is safe at an instant: that of the last whole interval."""
        if self.continuous:
            return self.done_ms(at_us)
        spec = self.job.spec
        stretch_ms = max(1, at_risk_ms(spec, spec.work or 0))
        saves = self._trained_ms(at_us) // stretch_ms
        return min(self.done_ms(at_us), self.base_ms + saves * (stretch_ms - spec.save))

    def _trained_ms(self, at_us: int) -> int:
        return max(0, at_us - self.trains_us) // US_PER_MS

    def seen(self, at_us: int) -> AttemptRow:
        """Give the row as it would be then."""
        if at_us < self.trains_us:
            return self.row
        return replace(self.row, state=AttemptState.TRAINING, training_us=self.trains_us)


def begin(job: JobRow, place: Place, flavor: Flavor, *, at_us: int, dies_us: int) -> Try:
    """Start an attempt of a job on a flavor."""
    overhead = overhead_ms(job, flavor, restores=job.attempts > 0)
    trains_us = at_us + overhead * US_PER_MS
    number = job.attempts + 1
    row = AttemptRow(
        id=f"{job.id}/{number}",
        job_id=job.id,
        number=number,
        state=AttemptState.STARTING,
        reason=place.reason,
        cluster=flavor.cluster,
        flavor=flavor.name,
        node_ids=place.nodes,
        gpu_milli=job.spec.gpu_milli,
        lease_id="",
        created_us=at_us,
        started_us=at_us,
    )
    wall_us = with_stalls_ms(job.spec, job.remaining_ms()) * US_PER_MS
    return Try(row=row, job=job, trains_us=trains_us, ends_us=trains_us + wall_us, dies_us=dies_us)


def running(job: JobRow, place: Place) -> JobRow:
    """Give the job's row while the attempt is live."""
    number = job.attempts + 1
    return replace(
        job,
        state=JobState.RUNNING,
        attempts=number,
        attempt_id=f"{job.id}/{number}",
        reason=place.reason,
        sentence=place.sentence,
        on_safety_net=job.on_safety_net or place.reason is Reason.SAFETY_NET,
    )


def requeued(job: JobRow, reason: Reason, *, at_us: int) -> JobRow:
    """Give the job's row after its attempt."""
    evicted = reason is Reason.EVICTED
    return replace(
        job,
        state=JobState.QUEUED,
        attempt_id="",
        reason=reason,
        queued_us=at_us,
        evictions=job.evictions + evicted,
        preemptions=job.preemptions + (not evicted),
    )


def saved(job: JobRow, done_ms: int, *, at_us: int) -> JobRow:
    """Give the job's row with a restore point that holds so much work."""
    if done_ms <= job.work_ms - job.remaining_ms():
        return job
    point = RestorePoint(
        step=min(done_ms, job.work_ms),
        snapshot_us=at_us,
        committed_us=at_us,
        manifest="",
        epoch=job.attempts,
    )
    return replace(job, restore_point=point, total_steps=job.work_ms, step=point.step)
