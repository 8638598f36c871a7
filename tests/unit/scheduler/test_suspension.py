"""Stops before dear hours: when they pay, when they do not, and that they never thrash."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.offers import Offer
from jobs.reasons import Reason
from scheduler.decide import decide
from scheduler.plan import Plan
from tests.unit.scheduler.worlds import (
    EXACT,
    HOUR,
    USD,
    a_flavor,
    a_job,
    a_point,
    a_world,
    an_attempt,
    an_offer,
)

SURE = a_flavor("sure", usd=4, idle_release_ms=0)
TARIFF = "caiso (tariff)"


def offer(*prices: float, now_h: int, usd: float) -> Offer:
    """Give an offer whose price changes each hour from the next one on."""
    steps = tuple(((now_h + 1 + i) * HOUR, round(p * USD)) for i, p in enumerate(prices))
    return an_offer(
        SURE, usd_nanos_per_hour=round(usd * USD), next_prices=steps, price_rests_on=TARIFF
    )


def running(offered: Offer, *, deadline: str = "12h", settings: Any = EXACT, **row: Any) -> Plan:
    """Decide at 02:00 for a job of 4 h that has trained for an hour and saves all the time."""
    known = {"attempts": 1, "restore_point": a_point(0, at_s=3_600), "total_steps": 14_400_000}
    job = a_job(
        "a",
        work="4h",
        deadline=deadline,
        checkpoint_interval=0,
        row={**known, **row},
    )
    live = (an_attempt(job, SURE, training_s=3_600),)
    return decide(a_world(now_s=7_200, offers=(offered,), live=live, settings=settings))


DEAR_NOW = offer(6, 6, 1, 1, 1, 1, now_h=2, usd=6)


def test_a_running_job_stops_before_dear_hours_and_says_what_it_saves() -> None:
    """Three hours of work are left: at 6, 6, 6 dollars now, or at 1 dollar from 05:00 on."""
    plan = running(DEAR_NOW)
    (stop,) = plan.preempts
    assert (stop.attempt_id, stop.reason) == ("a/1", Reason.SUSPENDED)
    assert stop.sentence == (
        "Stops at 1 Jan 02:00 UTC at a checkpoint, goes on at 1 Jan 05:00 UTC (caiso (tariff)): "
        "saves $14.97, 4.0 h of slack left after it."
    )


def test_after_the_stop_it_waits_for_the_hour_that_it_stopped_for() -> None:
    """The next cycle agrees with the stop: it does not start again before the cheap hours."""
    row = {"attempts": 1, "restore_point": a_point(3_600_000, at_s=7_200)}
    row |= {"total_steps": 14_400_000, "preemptions": 1}
    job = a_job("a", work="4h", deadline="12h", checkpoint_interval=0, row=row)
    plan = decide(a_world(job, now_s=7_260, offers=(DEAR_NOW,)))
    assert plan.defers[0].reason is Reason.WAITS_FOR_WINDOW
    assert plan.defers[0].sentence.startswith("Waits for 1 Jan 05:00 UTC")


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("the cheap hours come too late", {"deadline": "5h"}),
        ("it is on the safety net", {"on_safety_net": True}),
        ("another policy decides", {"settings": replace(EXACT, name="lowest-window")}),
    ],
)
def test_a_job_stays_where_a_stop_would_not_do(case: str, change: dict[str, Any]) -> None:
    """A deadline, the net and the baselines are not touched for money."""
    assert not running(DEAR_NOW, **change).preempts, case


def test_a_saving_smaller_than_the_changeover_stops_nothing() -> None:
    """A price that is two per cent higher for an hour does not pay for a boot and a restore."""
    assert not running(offer(4, 4, 4, 4, now_h=2, usd=4.05)).preempts


def test_an_attempt_that_has_just_begun_is_left_alone() -> None:
    """It trains at least as long as its changeover took, whatever the price does."""
    job = a_job("a", work="4h", deadline="12h", checkpoint_interval=0)
    live = (an_attempt(job, SURE, training_s=7_190),)
    plan = decide(a_world(now_s=7_200, offers=(DEAR_NOW,), live=live))
    assert not plan.preempts
    assert plan.wake_at_us == 3 * HOUR


def test_a_cheap_hour_is_trained_through() -> None:
    """The hour of now is among the cheapest that the rest needs: nothing is even worked out."""
    assert not running(offer(6, 6, 6, 6, now_h=2, usd=1)).preempts


def test_a_start_now_with_a_stop_later_beats_one_late_stretch() -> None:
    """Cheap now and tonight, dear between: it starts now and will stop, rather than wait."""
    job = a_job("a", work="4h", deadline="12h", checkpoint_interval=0)
    prices = offer(1, 9, 9, 9, 2, 2, 2, 9, 9, 9, 9, now_h=0, usd=1)
    plan = decide(a_world(job, offers=(prices,)))
    assert [place.flavor for place in plan.places] == ["sure"]


def test_nobody_stops_where_room_is_scarce() -> None:
    """With four nodes for four deadlines it stops; with a fifth who waits for room it stays."""
    known = {"attempts": 1, "restore_point": a_point(0, at_s=3_600), "total_steps": 14_400_000}
    mine = a_job("a", work="4h", deadline="12h", checkpoint_interval=0, row=known)
    others = [a_job(f"b{i}", work="1h", deadline="30h", checkpoint_interval=0) for i in range(4)]
    live = (an_attempt(mine, SURE, training_s=3_600),)
    for waiting, stops in ((others[:3], 1), (others, 0)):
        plan = decide(a_world(*waiting, now_s=7_200, offers=(DEAR_NOW,), live=live))
        assert len(plan.preempts) == stops
