"""Which live attempts must leave.

Those on spot whose slack is used up, while sure capacity has room for them, those on sure capacity
that a policy gives back, and those that stop before dear hours to go on in cheap ones. An attempt
on the safety net is never moved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cluster.flavors import Flavor
from jobs.durations import US_PER_MS
from jobs.reasons import Reason
from jobs.states import AttemptState
from scheduler import sentences
from scheduler.kept_room import may_be_on_spot
from scheduler.market import Choice, Market
from scheduler.needs import (
    REACTION_US,
    is_steady,
    is_sure,
    leave_spot_us,
    overhead_ms,
    with_stalls_ms,
    work_if_lost_ms,
)
from scheduler.placement import Pools
from scheduler.plan import NewNode, Preempt
from scheduler.relocation import relocate
from scheduler.snapshot import LiveAttempt
from scheduler.spot_policy import POLICIES
from scheduler.victims import Way
from scheduler.wishes import Running


@dataclass(slots=True)
class Moves:
    """Who leaves, and when to look again."""

    preempts: list[Preempt] = field(default_factory=list)
    wakes_us: list[int] = field(default_factory=list)
    new_nodes: list[NewNode] = field(default_factory=list)  # to move to
    kept: list[str] = field(default_factory=list)  # nodes to move to

    @property
    def stopped(self) -> set[str]:
        """The attempts that leave."""
        return {one.attempt_id for one in self.preempts}


def preempt(live: Iterable[LiveAttempt], *, market: Market, pools: Pools, way: Way) -> Moves:
    """Decide for every live attempt; call it last, for it takes room from ``pools``."""
    moves = Moves()
    for one in live:
        offer = market.offers.get(one.attempt.flavor)
        goes = one.attempt.state is AttemptState.DRAINING
        planned = one.job.deadline_us is not None and one.job.work_ms > 0
        if offer is None or goes or not planned or way.is_left(one):
            continue
        if _suspends(one, moves, market=market):
            pass
        elif not is_sure(offer.flavor):
            _leave_spot(one, moves, market=market, pools=pools, way=way)
            _relocate(one, moves, market=market, pools=pools)
        elif not one.job.on_safety_net:
            _give_back(one, moves, market=market, pools=pools)
        way.leaves(moves.preempts)
    if moves.preempts:
        # An attempt that never started ends at once and without a notice.
        moves.wakes_us.append(market.now_us + REACTION_US)
    return moves


def _relocate(one: LiveAttempt, moves: Moves, *, market: Market, pools: Pools) -> None:
    """Take the next step towards a better place, unless it leaves already."""
    if any(preempt.attempt_id == one.attempt.id for preempt in moves.preempts):
        return
    found = relocate(one, market=market, pools=pools)
    moves.new_nodes += found.new_nodes
    moves.kept += found.nodes
    moves.preempts += [found.preempt] if found.preempt is not None else []
    moves.wakes_us += [found.wake_us] if found.wake_us is not None else []


def _suspends(one: LiveAttempt, moves: Moves, *, market: Market) -> bool:
    """Whether the attempt stops at a checkpoint now, to go on in a later cheap stretch."""
    if one.job.on_safety_net:
        return False
    flavor = market.offers[one.attempt.flavor].flavor
    running = Running(job=one.job, attempt=one.attempt, flavor=flavor, market=market)
    stop = POLICIES[market.settings.name].suspends(running)
    if stop is None or not stop.sentence:
        moves.wakes_us += [stop.wake_us] if stop is not None and stop.wake_us is not None else []
        return False
    moves.preempts.append(
        Preempt(
            attempt_id=one.attempt.id,
            reason=Reason.SUSPENDED,
            sentence=stop.sentence,
            grace_ms=market.settings.drain_grace_ms,
        )
    )
    return True


def _give_back(one: LiveAttempt, moves: Moves, *, market: Market, pools: Pools) -> None:
    flavor = market.offers[one.attempt.flavor].flavor
    policy = POLICIES[market.settings.name]
    at_us = policy.leaves(Running(job=one.job, attempt=one.attempt, flavor=flavor, market=market))
    sure = market.sure_flavors(one.job.spec)
    if at_us is None:
        return
    if at_us > market.now_us:
        moves.wakes_us.append(at_us)  # whether there is time then, it sees then: it trains on
        return
    in_time = _leave_us(one, sure, market=market) > market.now_us
    if in_time and _takes_spot(one, market=market, pools=pools):
        moves.preempts.append(
            Preempt(
                attempt_id=one.attempt.id,
                reason=Reason.PREEMPTED,
                sentence=sentences.back_to_spot(),
                grace_ms=market.settings.drain_grace_ms,
            )
        )


def _takes_spot(one: LiveAttempt, *, market: Market, pools: Pools) -> bool:
    """Whether there is room on spot that nobody else goes back to in this plan."""
    for choice in market.choices(one.job):
        if choice.sure or pools.cost(choice, one.job.spec) is None:
            continue
        if may_be_on_spot(one.job, choice, market=market):
            pools.take(one.job.spec, choice.offer)
            return True
    return False


def _leave_spot(one: LiveAttempt, moves: Moves, *, market: Market, pools: Pools, way: Way) -> None:
    job, attempt = one.job, one.attempt
    sure = market.sure_flavors(job.spec)
    if not sure:
        return
    at_us = _leave_us(one, sure, market=market)
    if at_us > market.now_us + REACTION_US:
        if not is_steady(job, attempt):
            moves.wakes_us.append(at_us)
    elif _takes_room(one, market=market, pools=pools):
        assert job.deadline_us is not None, "only deadlines make a job leave spot"
        moves.preempts.append(
            Preempt(
                attempt_id=attempt.id,
                reason=Reason.SAFETY_NET,
                sentence=sentences.leaves_spot(deadline_us=job.deadline_us + job.ahead_us),
                grace_ms=market.settings.drain_grace_ms,
            )
        )
    else:
        sures = [c for c in market.choices(job) if c.sure and _meets(one, c, market=market)]
        made = way.make(job, sures)
        if made is not None:
            moves.preempts += way.stops(made, for_job=job)


def _leave_us(one: LiveAttempt, sure: tuple[Flavor, ...], *, market: Market) -> int:
    """Give the last instant to begin to leave, when the drain saves nothing."""
    return leave_spot_us(
        one.job,
        market.offers[one.attempt.flavor].flavor,
        sure,
        work_ms=work_if_lost_ms(one.job, one.attempt, now_us=market.now_us),
        settings=market.settings,
        steady=is_steady(one.job, one.attempt),
    )


def _takes_room(one: LiveAttempt, *, market: Market, pools: Pools) -> bool:
    """Whether moving helps: sure capacity has room for it now and can meet the deadline."""
    for choice in market.choices(one.job):
        if not choice.sure or not _meets(one, choice, market=market):
            continue
        if pools.cost(choice, one.job.spec) is not None:
            pools.take(one.job.spec, choice.offer)
            return True
    return False


def _meets(one: LiveAttempt, choice: Choice, *, market: Market) -> bool:
    """Whether the deadline can be met there when the drain saves everything done so far."""
    job = one.job
    done = work_if_lost_ms(job, one.attempt, now_us=market.now_us)
    left = with_stalls_ms(job.spec, min(done, job.remaining_ms(step=job.step)))
    needed = overhead_ms(job, choice.flavor, restores=True) + left
    assert job.deadline_us is not None, "only deadlines make a job leave spot"
    return market.now_us + needed * US_PER_MS <= job.deadline_us
