"""Which live attempts leave in a cycle, for whichever cause: each of them once."""

from __future__ import annotations

from scheduler.budget_leaving import Settled
from scheduler.horizon_yield import make_room
from scheduler.market import Market
from scheduler.needs import REACTION_US
from scheduler.placement import Placed, Pools
from scheduler.preemption import Moves, preempt
from scheduler.snapshot import Snapshot
from scheduler.victims import Way, make_way


def leave(
    snapshot: Snapshot, *, settled: Settled, placed: Placed, market: Market, pools: Pools
) -> Moves:
    """Give all that leave: for lack of money, for a better or surer place, and to make way.

    Call it after the placements: it takes the room that they left in ``pools``.
    """
    way = Way(snapshot, market=market, pools=pools)
    way.leaves(settled.preempts)
    settled_ids = settled.gone | settled.pinned
    staying = (one for one in snapshot.live if one.attempt.id not in settled_ids)
    moves = preempt(staying, market=market, pools=pools, way=way)
    # Jobs that found no room get that of others, if it pays.
    stops = make_way(placed.without_room, way=way)
    stops += make_room(placed.without_room, way=way)
    moves.wakes_us += [*settled.wakes_us, *(market.now_us + REACTION_US for _ in stops)]
    moves.preempts = [*settled.preempts, *moves.preempts, *stops]
    return moves
