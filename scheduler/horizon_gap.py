"""How far a plan is from the least that its work can cost: cost / bound, as things are expected.

By the duality of linear programs, each GPU-hour that a job takes above its worth (the price at
which the optimum buys its last one) makes the whole queue dearer by the difference. So the cost
of a plan is the bound and those differences, over the rest of every job that holds capacity after
it. What still waits is counted as the optimum has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scheduler.horizon import Horizon, Worth
from scheduler.plan import Expected, Place
from scheduler.snapshot import Snapshot

_MS_PER_HOUR = 3_600_000


def expected(snapshot: Snapshot, places: Iterable[Place], *, stopped: set[str]) -> Expected | None:
    """Give the two sums, None without a plan ahead.

    Args:
        snapshot: has the plan ahead.
        places: the starts of this cycle.
        stopped: ids of the attempts that this cycle stops.
    """
    plan = snapshot.horizon
    if plan is None:
        return None
    excess = sum(
        max(0, _usd_nanos(flavor, snapshot, plan) - worth.usd_nanos) * worth.gpu_ms // _MS_PER_HOUR
        for flavor, worth in _held(snapshot, places, plan, stopped)
    )
    bound = plan.bound_usd_nanos
    return Expected(cost_usd_nanos=bound + excess, bound_usd_nanos=bound)


def _held(
    snapshot: Snapshot, places: Iterable[Place], plan: Horizon, stopped: set[str]
) -> Iterator[tuple[str, Worth]]:
    """Give where each job of the plan ahead will be that holds capacity."""
    staying = [
        (one.job.id, one.attempt.flavor) for one in snapshot.live if one.attempt.id not in stopped
    ]
    for job_id, flavor in [*staying, *((place.job_id, place.flavor) for place in places)]:
        if job_id in plan.worths:
            yield flavor, plan.worths[job_id]


def _usd_nanos(flavor: str, snapshot: Snapshot, plan: Horizon) -> int:
    """Give what a useful GPU-hour there costs the whole queue, 0 on what is not offered."""
    for offer in snapshot.offers:
        if offer.flavor.name == flavor and offer.flavor.gpu_milli:
            return plan.usd_nanos(offer)
    return 0
