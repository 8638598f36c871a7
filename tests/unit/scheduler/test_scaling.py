"""Idle nodes: when they go, and who keeps them."""

from __future__ import annotations

from typing import Any

from jobs.reasons import Reason
from jobs.states import NodeState
from scheduler.decide import decide
from scheduler.plan import Plan
from scheduler.scaling import MIN_LIFE_US
from tests.unit.scheduler.worlds import HOUR, USD, S, a_flavor, a_job, a_node, a_world, an_offer

SURE = a_flavor("sure", usd=4, idle_release_ms=60_000)
OFFERS = (an_offer(SURE),)


def released(plan: Plan) -> list[str]:
    """Give the ids of the nodes that go."""
    return [release.node_id for release in plan.releases]


def test_an_idle_node_goes_after_its_time() -> None:
    """Not a moment sooner, and the plan wakes for it."""
    nodes = (a_node("n1", SURE, idle_since_us=100 * S),)
    plan = decide(a_world(now_s=159, nodes=nodes, offers=OFFERS))
    assert (released(plan), plan.wake_at_us) == ([], 160 * S)
    plan = decide(a_world(now_s=160, nodes=nodes, offers=OFFERS))
    assert (released(plan), plan.wake_at_us) == (["n1"], None)
    assert plan.releases[0].reason is Reason.IDLE


def test_a_node_lives_a_minimum() -> None:
    """A flavor without patience does not thrash."""
    hasty = a_flavor("sure", idle_release_ms=0)
    nodes = (a_node("n1", hasty, ready_us=100 * S, idle_since_us=100 * S),)
    plan = decide(a_world(now_s=101, nodes=nodes, offers=(an_offer(hasty),)))
    assert (released(plan), plan.wake_at_us) == ([], 100 * S + MIN_LIFE_US)


def test_a_node_that_this_plan_uses_stays() -> None:
    """It is idle no more."""
    nodes = (a_node("n1", SURE), a_node("n2", SURE))
    plan = decide(a_world(a_job("a", work="1h"), now_s=900, nodes=nodes, offers=OFFERS))
    assert plan.places[0].nodes == ("n1",)
    assert released(plan) == ["n2"]


def test_a_node_that_a_job_of_the_next_minute_needs_stays() -> None:
    """A window opens in 30 s and the job will want the node; in ten minutes is another matter."""
    nodes = (a_node("n1", SURE),)
    job = a_job("a", work="2h", deadline="30h")
    soon = an_offer(SURE, next_prices=((HOUR, USD),))
    for wait_s, gone in ((30, []), (600, ["n1"])):
        plan = decide(a_world(job, now_s=3_600 - wait_s, nodes=nodes, offers=(soon,)))
        assert [one.reason for one in plan.defers] == [Reason.WAITS_FOR_WINDOW]
        assert released(plan) == gone


def test_only_idle_nodes_of_ours_go() -> None:
    """Not one that works, drains, comes up, or joined by itself."""
    nodes = (
        a_node("busy", SURE, free=0),
        a_node("draining", SURE, state=NodeState.DRAINING),
        a_node("booting", SURE, free=0, state=NodeState.BOOTING, idle_since_us=None),
        a_node("theirs", SURE, reason=Reason.JOINED),
        a_node("noticed", SURE, noticed=True),
        a_node("idle", SURE),
    )
    assert released(decide(a_world(now_s=900, nodes=nodes, offers=OFFERS))) == ["idle"]


def test_a_node_that_boots_for_nobody_goes() -> None:
    """The rest of a gang whose first node was lost: each second of its boot would be paid."""
    boots: dict[str, Any] = {"state": NodeState.BOOTING, "idle_since_us": None, "ready_us": None}
    orphan = a_node("orphan", SURE, requested_us=100 * S, **boots)
    kept = a_node("kept", SURE, free=0, requested_us=100 * S, **boots)
    assert released(decide(a_world(nodes=(orphan, kept), offers=OFFERS, now_s=159))) == []
    assert released(decide(a_world(nodes=(orphan, kept), offers=OFFERS, now_s=160))) == ["orphan"]
