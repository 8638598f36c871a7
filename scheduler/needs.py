"""How long a job still takes on a flavor, and by when it must be where: slack in integers.

Durations are milliseconds, instants microseconds. The unit of worry is the LATEST START: the last
instant at which a start on the surest capacity still meets the deadline. Slack is what is left
until then, so a waiting job's latest start stands still while the clock runs towards it.
"""

from __future__ import annotations

from collections.abc import Iterable

from checkpointing.cadence import MAX_INTERVAL_US, MAX_SHARE
from cluster.flavors import Flavor
from jobs.durations import US_PER_MS
from jobs.rows import AttemptRow, JobRow
from jobs.spec import JobSpec, Market
from jobs.states import AttemptState
from scheduler.snapshot import PolicySettings

ASSUMED_INTERVAL_MS = MAX_INTERVAL_US // US_PER_MS
"""Worst gap between restore points while the cadence is automatic; a dear save has a longer one."""
REACTION_US = 1_000
"""The loop looks at most this often: what is due sooner is due now."""


def is_sure(flavor: Flavor) -> bool:
    """Whether capacity of this flavor stays ours until we release it."""
    return flavor.market is not Market.SPOT


def overhead_ms(job: JobRow, flavor: Flavor, *, restores: bool) -> int:
    """Time from the launch of a node to the first useful step: boot, set-up, restore."""
    return flavor.boot_ms + job.spec.setup + (job.spec.restore if restores else 0)


def with_stalls_ms(spec: JobSpec, work_ms: int) -> int:
    """Wall time of useful work with the blocking part of its saves."""
    if not spec.save or spec.checkpoint_interval == 0:
        return work_ms
    return work_ms + -(-work_ms // _interval_ms(spec)) * spec.save


def guarded_ms(spec: JobSpec, work_ms: int, *, settings: PolicySettings) -> int:
    """Wall time of useful work with saves and the error margins of the settings."""
    wall = with_stalls_ms(spec, work_ms)
    return wall + -(-wall * settings.margin_percent // 100) + settings.margin_ms


def at_risk_ms(spec: JobSpec, work_ms: int) -> int:
    """Most wall time of an attempt that one sudden death of it can waste."""
    if spec.checkpoint_interval == 0:
        return 0
    return min(_interval_ms(spec) + spec.save, with_stalls_ms(spec, work_ms))


def _interval_ms(spec: JobSpec) -> int:
    return spec.checkpoint_interval or max(ASSUMED_INTERVAL_MS, MAX_SHARE * spec.save)


def leaving_ms(flavor: Flavor, *, steady: bool, settings: PolicySettings) -> int:
    """Most time that is lost between "it goes" and "its job may start elsewhere".

    An attempt that trains and saves continuously (``steady``) goes on during the cloud's notice,
    so only our own drain counts. One that still boots spends the notice on nothing.
    """
    if steady:
        return settings.drain_grace_ms
    return max(settings.drain_grace_ms, flavor.notice_ms)


def work_if_lost_ms(job: JobRow, attempt: AttemptRow, *, now_us: int) -> int:
    """Work that would remain if the attempt died now.

    From the restore point; a job that saves continuously also keeps the time trained since.
    """
    left = job.remaining_ms()
    if not is_steady(job, attempt):
        return left
    point = job.restore_point
    mine = point is not None and point.epoch == attempt.number
    since_us = point.snapshot_us if point is not None and mine else attempt.training_us
    assert since_us is not None, f"training without a first step: {attempt!r}"
    return max(0, left - (now_us - since_us) // US_PER_MS)


def latest_start_us(
    job: JobRow,
    sure: Iterable[Flavor],
    *,
    work_ms: int,
    restores: bool,
    settings: PolicySettings,
) -> int:
    """Give the last instant at which each of the sure flavors still meets the deadline.

    The slowest to boot counts: which of them has room when it matters is not known before.
    """
    assert job.deadline_us is not None, f"no deadline: {job.id}"
    guarded = guarded_ms(job.spec, work_ms, settings=settings)
    slowest = max(sure, key=lambda flavor: flavor.boot_ms)
    overhead = overhead_ms(job, slowest, restores=restores)
    return job.deadline_us - (overhead + guarded) * US_PER_MS


def latest_spot_start_us(
    job: JobRow, spot: Flavor, *, sure_start_us: int, settings: PolicySettings
) -> int:
    """Give the last instant at which a start on spot leaves room for its worst death.

    Args:
        job: waits now.
        spot: where it would start.
        sure_start_us: its latest start on sure capacity AFTER that death (restore included).
        settings: give the grace period.

    The worst death comes just before the first save: boot, set-up, restore, a whole interval and
    the time to leave are gone then, and no work was done.
    """
    wasted = overhead_ms(job, spot, restores=job.attempts > 0)
    wasted += at_risk_ms(job.spec, job.remaining_ms())
    wasted += leaving_ms(spot, steady=False, settings=settings)
    return sure_start_us - wasted * US_PER_MS


def leave_spot_us(
    job: JobRow,
    spot: Flavor,
    sure: Iterable[Flavor],
    *,
    work_ms: int,
    settings: PolicySettings,
    steady: bool = False,
) -> int:
    """Give the instant at which an attempt on spot must begin to leave for sure capacity.

    Args:
        job: runs on spot, or is about to.
        spot: its flavor.
        sure: where it would go.
        work_ms: the work that would remain if the attempt died now.
        settings: give the margins and the grace period.
        steady: it trains and saves continuously.
    """
    sure_us = latest_start_us(job, sure, work_ms=work_ms, restores=True, settings=settings)
    return sure_us - leaving_ms(spot, steady=steady, settings=settings) * US_PER_MS


def is_steady(job: JobRow, attempt: AttemptRow) -> bool:
    """Whether the attempt saves as fast as the clock runs, so that its slack does not shrink."""
    return job.spec.checkpoint_interval == 0 and attempt.state is AttemptState.TRAINING
