"""When a job starts, and on which market: policies as values behind one interface.

A policy answers for a waiting job with slack (``wish``) and for a running one on sure capacity
that is not on the safety net (``leaves``). The safety net itself is not a policy's business: a job
whose slack is used up goes to the surest capacity whatever the policy thinks (``net``), and a job
on spot leaves in time (``scheduler.preemption``). So no policy can miss a deadline that sure
capacity can meet.

A job without a deadline starts on spot as soon as there is room and waits for spot as long as it
takes: who wants it sooner says so with a deadline. Where no spot flavor is allowed, it starts on
what is allowed, at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from cluster.flavors import Flavor
from jobs.durations import US_PER_MS
from jobs.reasons import Reason
from jobs.rows import JobRow
from scheduler import baselines, lowtide
from scheduler.horizon_steer import steered, unplanned
from scheduler.market import Choice, Market
from scheduler.needs import (
    REACTION_US,
    latest_spot_start_us,
    latest_start_us,
)
from scheduler.regions import Move, moves
from scheduler.sentences import waits_for_capacity
from scheduler.suspension import Stop, of_running
from scheduler.wishes import Case, Running, Wait, Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One way to decide.

    ``blind`` answers for a job with a deadline whose work is not known yet: it starts at once, so
    that its first steps tell. ``leaves`` gives the instant at which a running attempt on sure
    capacity should be given back (now or earlier = now), None = never. ``suspends`` says whether
    one on any capacity should stop now and go on in a later, cheaper stretch; ``moves`` whether one
    on spot should go to another place.
    """

    wish: Callable[[Case], Wish | Wait]
    blind: Callable[[Case], Wish] = baselines.spot_now
    leaves: Callable[[Running], int | None] = lambda _: None
    suspends: Callable[[Running], Stop | None] = lambda _: None
    moves: Callable[[Running], Move | None] = lambda _: None

    plans_ahead: bool = False  # follows the plan of the whole queue (``scheduler.horizon``)


POLICIES: dict[str, Policy] = {
    "lowtide": Policy(
        wish=steered(lowtide.wish),
        leaves=unplanned(lowtide.leaves),
        suspends=unplanned(of_running),
        moves=unplanned(moves),
        plans_ahead=True,
    ),
    "on-demand": Policy(wish=baselines.on_demand, blind=baselines.on_demand),
    "spot-now": Policy(wish=baselines.spot_now),
    "greedy": Policy(wish=baselines.greedy),
    "uniform-progress": Policy(wish=baselines.uniform, leaves=baselines.uniform_leaves),
    "lowest-window": Policy(wish=baselines.lowest_window),
}


def nominate(jobs: Iterable[JobRow], *, market: Market) -> list[Wish | Wait]:
    """Ask the policy of the settings for every waiting job; the safety net goes before it."""
    policy = POLICIES[market.settings.name]
    return [_answer(case_of(job, market=market), policy) for job in jobs]


def _answer(case: Case, policy: Policy) -> Wish | Wait:
    if case.job.deadline_us is not None and not case.job.work_ms:
        return policy.blind(case)
    if case.latest_us is None:
        return policy.wish(case)
    used_up = case.latest_us <= case.now_us + REACTION_US
    return net(case) if used_up or case.job.on_safety_net else policy.wish(case)


def case_of(job: JobRow, *, market: Market) -> Case:
    """Sort a job's choices and work out by when it must be where."""
    choices = sorted(market.choices(job), key=lambda choice: choice.key)
    sures = tuple(choice for choice in choices if choice.sure)
    spots = tuple(choice for choice in choices if not choice.sure)
    if job.deadline_us is None or not job.work_ms:
        return Case(
            job=job, market=market, spots=spots, all_spots=spots, sures=sures, latest_us=None
        )
    surest = [choice.flavor for choice in sures or spots]
    latest_us = _latest_us(job, surest, market=market, restores=job.attempts > 0)
    free = Case(
        job=job, market=market, spots=spots, all_spots=spots, sures=sures, latest_us=latest_us
    )
    return _in_time(free, surest) if sures else free


def _in_time(case: Case, surest: list[Flavor]) -> Case:
    """Keep those of the spot choices from which even the worst death leaves time enough."""
    job, market, spots = case.job, case.market, case.all_spots
    again_us = _latest_us(job, surest, market=market, restores=True)
    last = tuple(
        (
            spot.flavor.name,
            latest_spot_start_us(
                job, spot.flavor, sure_start_us=again_us, settings=market.settings
            ),
        )
        for spot in spots
    )
    in_time = {name for name, at_us in last if at_us > market.now_us}
    kept = tuple(spot for spot in spots if spot.flavor.name in in_time)
    return replace(case, spots=kept, spot_latest_us=last)


def net(case: Case) -> Wish:
    """Give the safety net: sure capacity that meets the deadline, cheapest first, then any.

    Spot comes last: where no sure node is to be had, training there beats waiting.
    """
    job, market = case.job, case.market

    def misses(choice: Choice) -> bool:
        return market.now_us + choice.wall_ms * US_PER_MS > (job.deadline_us or 0)

    sures = sorted(case.sures, key=lambda choice: (misses(choice), choice.key))
    return Wish(
        job=job,
        choices=(*sures, *case.all_spots),
        on_net=True,
        in_order=True,
        latest_us=case.latest_us,
        otherwise=Wait(
            job=job,
            reason=Reason.WAITS_FOR_CAPACITY,
            sentence=waits_for_capacity(
                job.spec, late_deadline_us=(job.deadline_us or 0) + job.ahead_us
            ),
        ),
    )


def _latest_us(job: JobRow, surest: list[Flavor], *, market: Market, restores: bool) -> int:
    return latest_start_us(
        job, surest, work_ms=job.remaining_ms(), restores=restores, settings=market.settings
    )
