"""Moves of running attempts from one spot offer to a better one: nodes first, then the move.

Whether there is capacity is known only once nodes are up, so the new place is launched beside the
running attempt, which trains on meanwhile. It leaves when the nodes are ready; when they are
refused, the offer backs off and nothing was lost but a launch.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobs.reasons import Reason
from scheduler import sentences
from scheduler.market import Market
from scheduler.placement import Pools
from scheduler.plan import NewNode, Preempt
from scheduler.snapshot import LiveAttempt
from scheduler.spot_policy import POLICIES
from scheduler.wishes import Running


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocation:
    """What a move takes now: nodes to launch, or the attempt's leave; and when to look again."""

    new_nodes: tuple[NewNode, ...] = ()
    nodes: tuple[str, ...] = ()  # where it will go: these, and those that are up or coming
    preempt: Preempt | None = None
    wake_us: int | None = None


def relocate(one: LiveAttempt, *, market: Market, pools: Pools) -> Relocation:
    """Ask the policy for a better place, and take the next step towards it."""
    if one.job.on_safety_net:
        return Relocation()
    flavor = market.offers[one.attempt.flavor].flavor
    move = POLICIES[market.settings.name].moves(
        Running(job=one.job, attempt=one.attempt, flavor=flavor, market=market)
    )
    if move is None or move.to is None:
        return Relocation(wake_us=None if move is None else move.again_us)
    spec, offer = one.job.spec, move.to.offer
    if pools.ready(move.to, spec):
        return Relocation(
            nodes=pools.take(spec, offer),
            preempt=Preempt(
                attempt_id=one.attempt.id,
                reason=Reason.PREEMPTED,
                sentence=sentences.moves_to(offer.flavor.name),
                grace_ms=market.settings.drain_grace_ms,
            ),
        )
    if pools.cost(move.to, spec) is None:
        return Relocation(wake_us=move.again_us)
    before = len(pools.new_nodes)
    nodes = pools.take(spec, offer)
    return Relocation(nodes=nodes, new_nodes=tuple(pools.new_nodes[before:]))
