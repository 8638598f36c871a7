"""Who leaves spot, when, and who stays; and how Uniform Progress gives dear capacity back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobs.reasons import Reason
from jobs.rows import JobRow
from jobs.states import AttemptState
from scheduler.decide import decide
from scheduler.snapshot import PolicySettings
from tests.unit.scheduler.worlds import (
    EXACT,
    HOUR,
    S,
    a_flavor,
    a_job,
    a_point,
    a_world,
    an_attempt,
    an_offer,
)

SPOT = a_flavor("spot-a")
SURE = a_flavor("sure", usd=4)
OFFERS = (an_offer(SPOT), an_offer(SURE))
SAVED_AT_ONE: dict[str, Any] = {
    "total_steps": 7_200,
    "restore_point": a_point(3_600, at_s=3_660),
    "attempts": 1,
}


def saving(**spec: Any) -> JobRow:
    """Give a job of 2 h with a deadline at 4 h whose first hour is saved at 1:01."""
    asked: dict[str, Any] = {"work": "2h", "deadline": "4h", "checkpoint_interval": "1h", **spec}
    return a_job("a", row=SAVED_AT_ONE, **asked)


def test_an_attempt_leaves_spot_at_the_last_instant() -> None:
    """An hour remains from the restore point, a boot takes 1 min: it leaves at 2:59, not before."""
    live = (an_attempt(saving(), SPOT, training_s=60),)
    early = decide(a_world(now_s=7_200, live=live, offers=OFFERS))
    assert not early.preempts
    assert early.wake_at_us == 3 * HOUR - 60 * S
    late = decide(a_world(now_s=3 * 3_600 - 60, live=live, offers=OFFERS))
    assert [(one.attempt_id, one.reason) for one in late.preempts] == [("a/1", Reason.SAFETY_NET)]


def test_the_grace_period_and_the_notice_are_part_of_the_plan() -> None:
    """Whichever of both is longer may pass before the job can start elsewhere."""
    noticed = replace(SPOT, notice_ms=120_000)
    offers = (an_offer(noticed), an_offer(SURE))
    live = (an_attempt(saving(), noticed, training_s=60),)
    plan = decide(a_world(now_s=7_200, live=live, offers=offers))
    assert plan.wake_at_us == 3 * HOUR - 60 * S - 120 * S
    graceful = replace(EXACT, drain_grace_ms=300_000)
    plan = decide(a_world(now_s=7_200, live=live, offers=offers, settings=graceful))
    assert plan.wake_at_us == 3 * HOUR - 60 * S - 300 * S


def test_a_job_that_saves_continuously_stays_while_it_trains() -> None:
    """Its slack does not shrink, so there is nothing to wake for; while it boots, it does."""
    row = {"total_steps": 7_200, "attempts": 1}
    job = a_job("a", work="2h", deadline="2h10m", checkpoint_interval=0, row=row)
    live = (an_attempt(job, SPOT, training_s=120),)
    steady = decide(a_world(now_s=7_000, live=live, offers=OFFERS))
    assert not steady.preempts
    assert steady.wake_at_us is None
    stuck = (an_attempt(job, SPOT),)
    assert decide(a_world(now_s=539, live=stuck, offers=OFFERS)).wake_at_us == 540 * S
    assert decide(a_world(now_s=540, live=stuck, offers=OFFERS)).preempts


@pytest.mark.parametrize(
    ("why", "room", "now_s", "state"),
    [
        ("no sure node is to be had", 0, 3 * 3_600, AttemptState.TRAINING),
        ("it is leaving already", 4, 3 * 3_600, AttemptState.DRAINING),
        ("sure capacity could not meet the deadline either", 4, 14_000, AttemptState.TRAINING),
    ],
)
def test_a_move_that_does_not_help_is_not_made(
    why: str, room: int, now_s: int, state: AttemptState
) -> None:
    """Training on beats a move that costs a restart and wins nothing."""
    live = (an_attempt(saving(), SPOT, training_s=60, state=state),)
    offers = (an_offer(SPOT), an_offer(SURE, room=room))
    assert not decide(a_world(now_s=now_s, live=live, offers=offers)).preempts, why


def test_two_moves_do_not_count_on_the_same_node() -> None:
    """With room for one, one leaves and the other stays; no node is launched by the move."""
    jobs = [replace(saving(), id=name) for name in ("a", "b")]
    live = tuple(an_attempt(job, SPOT, training_s=60) for job in jobs)
    offers = (an_offer(SPOT), an_offer(SURE, room=1))
    plan = decide(a_world(now_s=3 * 3_600 - 60, live=live, offers=offers))
    assert [one.attempt_id for one in plan.preempts] == ["a/1"]
    assert not plan.new_nodes


def test_a_job_on_the_safety_net_is_never_moved() -> None:
    """However much slack it has: it stays where it is."""
    job = replace(saving(), on_safety_net=True)
    live = (an_attempt(job, SURE, training_s=60),)
    for now_s in (3_700, 3 * 3_600, 14_300):
        assert not decide(a_world(now_s=now_s, live=live, offers=OFFERS)).preempts


def on_sure_for_now() -> Any:
    """Give an attempt on sure capacity, an hour of work and 2:59 h before its deadline."""
    return (an_attempt(saving(checkpoint_interval=0), SURE, training_s=60),)


def test_a_job_leaves_sure_capacity_for_spot_that_pays() -> None:
    """Spot is a quarter of the price and there is time to come back: it goes, with a reason."""
    plan = decide(a_world(now_s=3_700, live=on_sure_for_now(), offers=OFFERS))
    assert [one.reason for one in plan.preempts] == [Reason.PREEMPTED]


@pytest.mark.parametrize(
    "offer", [an_offer(SPOT, room=0), an_offer(SPOT, usd_nanos_per_hour=4 * 10**9)]
)
def test_a_job_stays_on_sure_capacity_while_spot_has_no_room_or_saves_nothing(offer: Any) -> None:
    """A move needs room, and must pay for its boot and restore."""
    plan = decide(a_world(now_s=3_700, live=on_sure_for_now(), offers=(offer, OFFERS[1])))
    assert not plan.preempts


def test_two_jobs_do_not_go_back_to_the_same_spot_node() -> None:
    """With room for one, one goes; the other would only have stopped."""
    jobs = [replace(saving(checkpoint_interval=0), id=name) for name in ("a", "b")]
    live = tuple(an_attempt(job, SURE, training_s=60) for job in jobs)
    offers = (an_offer(SPOT, room=1), OFFERS[1])
    plan = decide(a_world(now_s=3_700, live=live, offers=offers))
    assert [one.attempt_id for one in plan.preempts] == ["a/1"]
    assert not plan.new_nodes


def test_a_job_without_a_deadline_stays_on_spot() -> None:
    """Nothing forces it to leave."""
    job = a_job("a", work="2h")
    plan = decide(
        a_world(now_s=99_000, live=(an_attempt(job, SPOT, training_s=60),), offers=OFFERS)
    )
    assert not plan.preempts
    assert plan.wake_at_us is None


def uniform(**row: Any) -> tuple[JobRow, PolicySettings]:
    """Give a job under Uniform Progress: 2 h of work in 8 h, now on sure capacity since 2:00."""
    known = {"total_steps": 7_200, "attempts": 2, **row}
    job = a_job("a", work="2h", deadline="8h", checkpoint_interval=0, row=known)
    settings = PolicySettings(name="uniform-progress", margin_percent=0, drain_grace_ms=0)
    return job, settings


def test_uniform_progress_goes_back_to_spot_when_it_has_room() -> None:
    """Ahead or behind; without room it keeps the capacity that is sure."""
    job, settings = uniform(restore_point=a_point(1_800, at_s=7_200))
    live = (an_attempt(job, SURE, training_s=7_200, number=2),)
    world = a_world(now_s=7_200, live=live, offers=OFFERS, settings=settings)
    assert [one.reason for one in decide(world).preempts] == [Reason.PREEMPTED]
    full = replace(world, offers=(an_offer(SPOT, room=0), OFFERS[1]))
    assert not decide(full).preempts


def test_uniform_progress_keeps_the_safety_net() -> None:
    """What moved there for good stays, however far ahead."""
    job, settings = uniform(restore_point=a_point(7_000, at_s=7_200), on_safety_net=True)
    live = (an_attempt(job, SURE, training_s=7_200, number=2),)
    assert not decide(a_world(now_s=7_300, live=live, offers=OFFERS, settings=settings)).preempts
