"""Whom to stop, what that costs, and who is never stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobs.reasons import Reason
from jobs.rows import JobRow
from jobs.states import AttemptState
from scheduler.decide import decide
from scheduler.market import Market
from scheduler.plan import Plan
from scheduler.snapshot import LiveAttempt
from scheduler.victims import Price, price_of_stopping
from tests.unit.scheduler.worlds import (
    USD,
    S,
    a_flavor,
    a_job,
    a_node,
    a_point,
    a_world,
    an_attempt,
    an_offer,
)

SPOT = a_flavor("spot-a", boot_s=360)
SURE = a_flavor("sure", usd=4, boot_s=0)
FULL = (an_offer(SPOT, room=0), an_offer(SURE, room=0))


def held(
    job_id: str, flavor: Any = SPOT, *, node: str, row: dict[str, Any] | None = None, **spec: Any
) -> LiveAttempt:
    """Give an attempt that trains on a node of its own since 0:00."""
    job = a_job(job_id, **{"work": "9h", **spec}, row={"attempts": 1, **(row or {})})
    return on(an_attempt(job, flavor, training_s=0), node)


def on(one: LiveAttempt, *nodes: str, **attempt: Any) -> LiveAttempt:
    """Give the attempt on these nodes, with other fields changed too."""
    kept = nodes or one.attempt.node_ids
    return replace(one, attempt=replace(one.attempt, node_ids=kept, **attempt))


def plan(*queued: JobRow, live: tuple[LiveAttempt, ...], now_s: int = 3_600, **world: Any) -> Plan:
    """Decide where every node is full."""
    nodes = tuple(
        a_node(node, SPOT if one.attempt.flavor == "spot-a" else SURE, free=0)
        for one in live
        for node in one.attempt.node_ids
    )
    return decide(a_world(*queued, live=live, nodes=nodes, now_s=now_s, offers=FULL, **world))


def test_a_price_is_the_lost_work_and_another_start() -> None:
    """An hour at $1 since the last save and 12 min of boot, set-up and restore."""
    one = held("a", node="n1", setup="3m", restore="3m")
    market = Market(a_world(live=(one,), now_s=3_600, offers=FULL))
    assert price_of_stopping(one, market=market) == Price(lost=USD, restart=USD // 5, premium=0)
    saved = on(one, last_snapshot_us=3_000 * S)
    priced = price_of_stopping(saved, market=market)
    assert priced is not None
    assert priced.lost == USD // 6


def test_a_price_holds_what_the_victims_own_deadline_then_needs() -> None:
    """With no time for another try on spot its rest is to be done for $4 an hour, not $1."""
    one = held("a", node="n1", work="2h", deadline="3h30m", checkpoint_interval="1h")
    market = Market(a_world(live=(one,), now_s=3_600, offers=FULL))
    priced = price_of_stopping(one, market=market)
    assert priced is not None
    assert priced.premium > 5 * USD
    loose = held("a", node="n1", work="2h", deadline="30h")
    free = price_of_stopping(loose, market=market)
    assert free is not None
    assert free.premium == 0


@pytest.mark.parametrize(
    "one",
    [
        held("a", SURE, node="n1", row={"on_safety_net": True}),
        held("a", SURE, node="n1", work="2h", deadline="30h"),
        held("a", node="n1", work="2h", deadline="3h"),
        on(held("a", node="n1"), state=AttemptState.DRAINING),
    ],
)
def test_some_are_never_stopped(one: LiveAttempt) -> None:
    """On the net, a deadline on sure capacity, one that would be missed, one that leaves."""
    market = Market(a_world(live=(one,), now_s=3_600, offers=FULL))
    assert price_of_stopping(one, market=market) is None


def test_the_cheapest_of_lower_priority_makes_way() -> None:
    """The one that saved last goes; it is told for whom, and what it costs."""
    live = (
        held("a", node="n1"),
        held("b", node="n2"),
        held("c", node="n3", priority=5),
    )
    saved = on(live[1], last_snapshot_us=3_500 * S)
    high = a_job("h", work="9h", priority=5, markets=["spot"])
    made = plan(high, live=(live[0], saved, live[2]))
    assert [(one.attempt_id, one.reason) for one in made.preempts] == [("b/1", Reason.PREEMPTED)]
    assert "Makes way for h (priority 5)" in made.preempts[0].sentence
    assert "$0.13: $0.0278 of work since its restore point" in made.preempts[0].sentence


def test_nobody_is_stopped_for_an_equal_or_for_more_than_it_is_worth() -> None:
    """Equal priority waits; so does a job of minutes that would waste hours."""
    live = (held("a", node="n1"),)
    assert not plan(a_job("h", work="9h", markets=["spot"]), live=live).preempts
    short = a_job("h", work="5m", priority=5, markets=["spot"])
    assert not plan(short, live=live, now_s=30_000).preempts


def test_a_deadline_stops_whom_it_must_whatever_the_priority() -> None:
    """Its slack is used up: one without a deadline makes way on sure capacity, one on spot not."""
    live = (held("a", SURE, node="n1", priority=9), held("b", node="n2"))
    urgent = a_job("u", work="2h", deadline="3h", markets=["on-demand"], checkpoint_interval=0)
    made = plan(urgent, live=live)
    assert [one.attempt_id for one in made.preempts] == ["a/1"]
    assert "whose deadline needs its place" in made.preempts[0].sentence


def test_a_deadline_that_starts_on_spot_for_want_of_better_makes_its_room_too() -> None:
    """Training on spot beats waiting, and whoever holds the sure node makes way for it."""
    live = (held("a", SURE, node="n1"),)
    urgent = a_job("u", work="2h", deadline="3h", checkpoint_interval=0)
    nodes = (a_node("n1", SURE, free=0),)
    offers = (an_offer(SPOT, room=2), an_offer(SURE, room=0))
    made = decide(a_world(urgent, live=live, nodes=nodes, now_s=3_600, offers=offers))
    assert [place.flavor for place in made.places] == ["spot-a"]
    assert [one.attempt_id for one in made.preempts] == ["a/1"]


def test_an_attempt_that_must_leave_spot_makes_its_room() -> None:
    """First somebody leaves sure capacity; then, with room there, it moves."""
    row = {"total_steps": 7_200, "restore_point": a_point(0, at_s=0)}
    mine = held("u", node="n2", row=row, work="2h", deadline="3h", checkpoint_interval="10m")
    live = (held("a", SURE, node="n1"), mine)
    made = plan(live=live)
    assert [one.attempt_id for one in made.preempts] == ["a/1"]


def test_whole_gangs_are_stopped_and_no_more_than_needed() -> None:
    """Two nodes are wanted: the gang of two goes, and the dear single one stays."""
    gang = on(held("g", node="n1", nodes=2), "n1", "n2")
    high = a_job("h", work="9h", priority=5, nodes=2, markets=["spot"])
    made = plan(high, live=(gang, held("a", node="n3")))
    assert [one.attempt_id for one in made.preempts] == ["g/1"]


def test_nobody_else_is_stopped_while_the_first_one_leaves() -> None:
    """What a draining attempt leaves behind is counted."""
    leaving = on(held("a", node="n1"), state=AttemptState.DRAINING)
    high = a_job("h", work="9h", priority=5, markets=["spot"])
    assert not plan(high, live=(leaving, held("b", node="n2"))).preempts
    both = (high, replace(high, id="i"))
    made = plan(*both, live=(leaving, held("b", node="n2"), held("c", node="n3")))
    assert len(made.preempts) == 1


def test_who_was_stopped_often_is_stopped_last() -> None:
    """Each stop doubles the price that victims are compared by, so nobody starves of stops."""
    often = held("a", node="n1", row={"preemptions": 3})
    saved = on(often, last_snapshot_us=3_000 * S)
    high = a_job("h", work="9h", priority=5, markets=["spot"])
    made = plan(high, live=(saved, held("b", node="n2")))
    assert [one.attempt_id for one in made.preempts] == ["b/1"]
