"""Explanations: the same facts as the plan's, and advice that the next cycle would follow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobs.reasons import HELP, Reason
from jobs.rows import JobRow
from jobs.states import JobState
from scheduler.decide import decide
from scheduler.explain import Explanation, explain
from scheduler.snapshot import Snapshot
from tests.unit.scheduler.worlds import (
    HOUR,
    USD,
    S,
    a_flavor,
    a_job,
    a_world,
    an_attempt,
    an_offer,
)

SURE = a_flavor("sure", usd=4)
SPOT = a_flavor("spot", usd=1)
WEST = a_flavor("sure-west", usd=5, region="west")
DOWN = replace(an_offer(SPOT, room=0), limit=0)


def explained(snapshot: Snapshot, job_id: str) -> tuple[Explanation, JobRow]:
    """Let a cycle write its reason into the row, as the loop does, and explain the job."""
    plan = decide(snapshot)
    (row,) = (job for job in snapshot.queued if job.id == job_id)
    for defer in plan.defers:
        if defer.job_id == job_id:
            row = replace(row, reason=defer.reason, sentence=defer.sentence)
    return explain(snapshot, row), row


def told(found: Explanation) -> str:
    """All releases in one text."""
    return "; ".join(one.what for one in found.releases)


WAITING: list[tuple[Reason, dict[str, Any], tuple[Any, ...]]] = [
    (Reason.WAITS_FOR_SPOT, {"work": "2h", "deadline": "20h"}, (DOWN, an_offer(SURE))),
    (
        Reason.WAITS_FOR_WINDOW,
        {"work": "2h", "deadline": "20h"},
        (replace(an_offer(SURE), next_prices=((3 * HOUR, USD), (9 * HOUR, 4 * USD))),),
    ),
    (Reason.WAITS_FOR_CAPACITY, {"work": "2h"}, (an_offer(SURE, room=0),)),
    (Reason.WAITS_FOR_BUDGET, {"work": "2h", "budget_usd": 4}, (an_offer(SURE),)),
    (Reason.WAITS_FOR_JOB, {"work": "2h", "after": ("b",)}, (an_offer(SURE),)),
    (Reason.NO_FLAVOR, {"work": "2h", "regions": ("north",)}, (an_offer(SURE),)),
    (Reason.PAUSED, {"work": "2h"}, (an_offer(SURE),)),
]


@pytest.mark.parametrize(("reason", "wishes", "offers"), WAITING, ids=[str(w[0]) for w in WAITING])
def test_an_explanation_never_contradicts_the_plan(
    reason: Reason, wishes: dict[str, Any], offers: tuple[Any, ...]
) -> None:
    """Reason and sentence are those that the cycle wrote; each waiting job hears of a way out."""
    job = a_job("a", row={"held": reason is Reason.PAUSED}, **wishes)
    world = a_world(job, offers=offers, predecessors=(a_job("b"),))
    found, row = explained(world, "a")
    assert (found.reason, found.sentence) == (row.reason, row.sentence)
    assert found.reason is reason
    assert found.help == HELP[reason]
    assert found.releases


def test_each_release_by_its_owner_starts_the_job() -> None:
    """What is said to release it was tried: a wider region starts it in this very cycle."""
    job = a_job("a", work="2h", regions=("east",))
    world = a_world(job, offers=(an_offer(SURE, room=0), an_offer(WEST)))
    found, _ = explained(world, "a")
    assert "allowing region west (sure-west): $2.02 more" in told(found)
    (place,) = decide(a_world(a_job("a", work="2h"), offers=world.offers)).places
    assert place.flavor == "sure-west"


def test_the_missing_budget_is_exact_to_the_cent() -> None:
    """So much more starts it, a cent less does not."""
    offers = (an_offer(SURE),)
    found, _ = explained(a_world(a_job("a", work="2h", budget_usd=4), offers=offers), "a")
    (release,) = (one for one in found.releases if "budget" in one.what)
    assert release.usd_nanos is not None
    enough = 4 + release.usd_nanos / USD

    def starts(usd: float) -> bool:
        return bool(decide(a_world(a_job("a", work="2h", budget_usd=usd), offers=offers)).places)

    assert starts(round(enough, 2))
    assert not starts(round(enough - 0.01, 2))


def test_waiting_for_spot_says_what_now_costs() -> None:
    """On-demand at once has its price, and the latest moment for it is known."""
    world = a_world(a_job("a", work="2h", deadline="20h"), offers=(DOWN, an_offer(SURE)))
    found, _ = explained(world, "a")
    assert "spot returning" in told(found)
    assert "starting on sure at once (--market on-demand): $6.05 more" in told(found)
    assert found.latest_start_us is not None
    assert found.slack_ms == found.latest_start_us // 1_000


def test_the_queue_ahead_is_named_in_order() -> None:
    """Higher priority first, then the older; those behind and the held are not ahead."""
    old, high = a_job("old"), a_job("high", submitted_s=5, priority=2)
    held = a_job("held", row={"held": True})
    young = a_job("young", submitted_s=9)
    me = a_job("me", submitted_s=7)
    world = a_world(old, high, held, me, young, now_s=10, offers=(an_offer(SURE, room=0),))
    found, _ = explained(world, "me")
    assert found.ahead_ids == ("high", "old")


def test_every_flavor_has_its_say() -> None:
    """Allowed or why not, room, price, what the rest costs there, when it must have begun."""
    job = a_job("a", work="2h", deadline="20h", regions=("east",))
    found, _ = explained(a_world(job, offers=(DOWN, an_offer(SURE), an_offer(WEST))), "a")
    spot, sure, west = found.alternatives
    assert (spot.flavor, spot.allowed, spot.room) == ("spot", True, False)
    assert (sure.flavor, sure.allowed, sure.room) == ("sure", True, True)
    assert (west.allowed, west.obstacles) == (False, ("regions excludes its 'west'",))
    assert sure.cost_usd_nanos == 4 * USD * (2 * HOUR + 60 * S) // HOUR
    assert sure.latest_start_us == found.latest_start_us


def test_a_running_job_says_what_comes_next() -> None:
    """On spot with a deadline: when it would leave; on the safety net: that it stays."""
    offers = (an_offer(SPOT), an_offer(SURE))
    running = {"state": JobState.RUNNING, "attempt_id": "a/1", "attempts": 1}
    job = a_job("a", work="2h", deadline="20h", row=running)
    live = an_attempt(job, SPOT, training_s=0)
    world = a_world(offers=offers, live=(live,))
    found = explain(world, job, attempts=(live.attempt,))
    assert found.next.startswith("It stays on spot (n1); unless more is saved")
    assert found.releases == ()
    netted = replace(job, on_safety_net=True)
    stays = an_attempt(netted, SURE, training_s=0)
    found = explain(world, netted, attempts=(stays.attempt,))
    assert found.next == "It stays on sure (n1) to its end: its slack is used up."


def test_an_ended_job_says_what_happened() -> None:
    """Attempts, evictions, and by how much the deadline was met."""
    row = {"state": JobState.SUCCEEDED, "reason": Reason.FINISHED, "ended_us": HOUR, "evictions": 1}
    job = a_job("a", work="1h", deadline="3h", row=row)
    attempt = an_attempt(job, SURE).attempt
    found = explain(a_world(offers=(an_offer(SURE),)), job, attempts=(attempt, attempt))
    assert "2 attempts, with 1 evicted" in found.next
    assert "met with 2.0 h" in found.next
    assert found.alternatives == ()
