"""The decision: a snapshot in, a plan out. Nothing else is read and nothing is done.

The phases run in the order of the function. Each takes what the ones before it left over, so the
urgent come first, capacity is never promised twice, and every job that waits has said why.
"""

from __future__ import annotations

from collections.abc import Iterable

from scheduler import admission, budget_leaving, budgets, claims, scaling, spot_policy
from scheduler.budget_purses import Purses
from scheduler.horizon_gap import expected
from scheduler.leaving import leave
from scheduler.market import Market
from scheduler.placement import Pools, place_all
from scheduler.plan import Plan
from scheduler.snapshot import Snapshot
from scheduler.turns import Turns
from scheduler.wishes import Wait, Wish


def decide(snapshot: Snapshot) -> Plan:
    """Give all decisions of one cycle. Pure: equal snapshots give equal plans.

    ``wake_at_us`` is the earliest instant after ``now_us`` at which the answer could change
    without a notice: a window opens, a latest start comes, a back-off or a pause ends, an idle
    node is due, an attempt on spot has to leave.
    """
    market = Market(snapshot)
    # A predecessor is due in time for its dependents, and what sure capacity can hold at once.
    snapshot = claims.brought_forward(snapshot, market=market)
    pools = Pools(snapshot)

    # Who may be considered: its turn, not held, not in a pause, and something could hold it.
    jobs, held = admission.screen(snapshot.queued, market=market, turns=Turns(snapshot))
    # Safety net first, then the policy: where each may start now, or why it waits.
    answers = spot_policy.nominate(jobs, market=market)
    wishes, waits = _parted(answers, held=held)
    # Running jobs keep their money or leave for lack of it, before anybody gets new money.
    purses = Purses.of_snapshot(snapshot, market=market)
    settled = budget_leaving.settle(snapshot.live, purses=purses, market=market)
    wishes = budgets.ranked(wishes, purses=purses)
    # Whole gangs on nodes that are up, then on new ones; without room or money they wait.
    placed = place_all(wishes, pools=pools, market=market, purses=purses)
    new_nodes = tuple(pools.new_nodes)
    waits += placed.waits
    # Running jobs that have to go to sure capacity while it has room, or to make way.
    moves = leave(snapshot, settled=settled, placed=placed, market=market, pools=pools)
    # Idle nodes that nobody needs.
    scaled = scaling.release_idle(
        snapshot.nodes, places=placed.places, waits=waits, market=market, kept=moves.kept
    )

    return Plan(
        new_nodes=(*new_nodes, *moves.new_nodes),
        places=tuple(placed.places),
        defers=tuple(wait.defer() for wait in waits),
        preempts=tuple(moves.preempts),
        reservations=tuple(settled.reservations),
        releases=tuple(scaled.releases),
        expected=expected(snapshot, placed.places, stopped=moves.stopped),
        wake_at_us=_wake_at_us(
            market,
            (at_us for wait in waits for at_us in wait.wakes_us),
            placed.wakes_us,
            moves.wakes_us,
            scaled.wakes_us,
            _changes_of_offers(market, waits=waits),
        ),
    )


def _parted(
    answers: Iterable[Wish | Wait], *, held: Iterable[Wait]
) -> tuple[list[Wish], list[Wait]]:
    listed = list(answers)
    wishes = [answer for answer in listed if isinstance(answer, Wish)]
    return wishes, [*held, *(answer for answer in listed if isinstance(answer, Wait))]


def _wake_at_us(market: Market, *wakes: Iterable[int]) -> int | None:
    later = (at_us for some in wakes for at_us in some if at_us > market.now_us)
    return min(later, default=None)


def _changes_of_offers(market: Market, *, waits: Iterable[Wait]) -> Iterable[int]:
    """Give the ends of back-offs and the next prices, while somebody waits for an offer."""
    if not any(market.allowed(wait.job.spec) for wait in waits):
        return
    for offer in market.offers.values():
        yield offer.backoff_until_us
        yield from (at_us for at_us, _ in offer.next_prices[:1])
