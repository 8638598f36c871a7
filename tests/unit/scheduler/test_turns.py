"""Jobs that come after others, and arrays with a cap: who may start, and who is told what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobs.reasons import Reason
from jobs.rows import JobRow
from jobs.states import JobState
from jobs.wants import ArrayPlace
from scheduler.decide import decide
from tests.unit.scheduler.worlds import EXACT, HOUR, a_flavor, a_job, a_world, an_attempt, an_offer

SPOT = a_flavor("spot-a", boot_s=0, max_nodes=9)
SURE = a_flavor("sure", usd=4, boot_s=0, max_nodes=9)
OFFERS = (an_offer(SPOT), an_offer(SURE))
GREEDY = replace(EXACT, name="greedy")  # waits for spot until the safety net


def first(state: JobState) -> JobRow:
    """Give the predecessor in a state."""
    ended = state not in {JobState.QUEUED, JobState.RUNNING}
    return a_job("a", row={"state": state, "ended_us": 1 if ended else None})


@pytest.mark.parametrize(
    ("state", "after", "rule", "starts"),
    [
        (JobState.RUNNING, "a", "cancel", False),
        (JobState.RUNNING, "a:ended", "run", False),
        (JobState.SUCCEEDED, "a", "cancel", True),
        (JobState.SUCCEEDED, "a:ended", "cancel", True),
        (JobState.FAILED, "a:ended", "cancel", True),
        (JobState.FAILED, "a", "run", True),
        (JobState.FAILED, "a", "wait", False),
        (JobState.CANCELLED, "a", "wait", False),
    ],
)
def test_a_dependent_starts_exactly_when_its_condition_is_met(
    state: JobState, after: str, rule: str, starts: bool
) -> None:
    """It never starts early; the sentence names the predecessor and how that one stands."""
    job = a_job("b", work="1h", after=[after], on_failure=rule)
    plan = decide(a_world(job, offers=OFFERS, predecessors=(first(state),)))
    assert [place.job_id for place in plan.places] == (["b"] if starts else [])
    for defer in plan.defers:
        assert defer.reason is Reason.WAITS_FOR_JOB
        assert "a (train)" in defer.sentence


def test_the_id_of_an_array_means_all_its_elements() -> None:
    """One element that still trains holds the dependent back."""

    def element(index: int, state: JobState) -> JobRow:
        row: dict[str, Any] = {"state": state, "array": ArrayPlace(id="s", index=index, size=2)}
        return a_job(f"s.{index}", row=row)

    job = a_job("b", work="1h", after=["s"])
    done, open_one = element(0, JobState.SUCCEEDED), element(1, JobState.RUNNING)
    plan = decide(a_world(job, offers=OFFERS, predecessors=(done, open_one)))
    assert "s.1" in plan.defers[0].sentence


def test_a_capped_array_never_has_more_up_than_its_cap() -> None:
    """One of two is up, so one of the waiting three may start: the first in the queue."""
    place: dict[str, Any] = {"id": "s", "size": 4, "max_parallel": 2}
    jobs = [
        a_job(f"s.{n}", work="1h", row={"array": ArrayPlace(index=n, **place)}) for n in range(4)
    ]
    live = (an_attempt(jobs[0], SPOT, training_s=0),)
    plan = decide(a_world(*jobs[1:], live=live, offers=OFFERS))
    assert [one.job_id for one in plan.places] == ["s.1"]
    assert {(one.job_id, one.reason) for one in plan.defers} == {
        ("s.2", Reason.WAITS_FOR_ARRAY),
        ("s.3", Reason.WAITS_FOR_ARRAY),
    }
    assert "2 of the 4 elements" in plan.defers[0].sentence


def test_the_first_of_a_chain_is_on_the_net_for_the_last() -> None:
    """The last is due at 4 h and takes 2: the first, an hour long, must start by 1:00."""
    steady: dict[str, Any] = {"checkpoint_interval": 0}
    chain = (
        a_job("a", work="1h", **steady),
        a_job("b", work="2h", deadline="4h", after=["a"], **steady),
    )
    no_spot = (an_offer(SPOT, room=0), OFFERS[1])
    early = decide(
        a_world(*chain, now_s=3_500, offers=no_spot, settings=GREEDY, predecessors=chain[:1])
    )
    assert not early.places
    late = decide(
        a_world(*chain, now_s=3_600, offers=no_spot, settings=GREEDY, predecessors=chain[:1])
    )
    assert [(one.job_id, one.reason) for one in late.places] == [("a", Reason.SAFETY_NET)]
    assert early.wake_at_us == HOUR


def test_elements_of_a_capped_array_leave_the_later_ones_their_turn() -> None:
    """Three hours of work one after the other until 4:00: the first must start by 1:00."""
    place: dict[str, Any] = {"id": "s", "size": 3, "max_parallel": 1}
    jobs = [
        a_job(
            f"s.{n}",
            work="1h",
            deadline="4h",
            checkpoint_interval=0,
            row={"array": ArrayPlace(index=n, **place)},
        )
        for n in range(3)
    ]
    no_spot = (an_offer(SPOT, room=0), OFFERS[1])
    assert not decide(a_world(*jobs, now_s=3_500, offers=no_spot, settings=GREEDY)).places
    plan = decide(a_world(*jobs, now_s=3_600, offers=no_spot, settings=GREEDY))
    assert [(one.job_id, one.reason) for one in plan.places] == [("s.0", Reason.SAFETY_NET)]


def test_two_deadlines_do_not_count_on_the_same_last_node() -> None:
    """Two hours of work each until 5:00 and one sure node: the first starts by 1:00, not 3:00."""
    jobs = [a_job(name, work="2h", deadline="5h", checkpoint_interval=0) for name in "ab"]
    one_node = (an_offer(SPOT, room=0), an_offer(a_flavor("sure", usd=4, boot_s=0, max_nodes=1)))
    assert not decide(a_world(*jobs, now_s=3_500, offers=one_node, settings=GREEDY)).places
    plan = decide(a_world(*jobs, now_s=3_600, offers=one_node, settings=GREEDY))
    assert [(one.job_id, one.reason) for one in plan.places] == [("a", Reason.SAFETY_NET)]
    assert "1 Jan 05:00" in plan.places[0].sentence, "the job's own deadline is named"
    enough = (an_offer(SPOT, room=0), an_offer(a_flavor("sure", usd=4, boot_s=0, max_nodes=2)))
    assert not decide(a_world(*jobs, now_s=3_600, offers=enough, settings=GREEDY)).places


def test_a_deadline_that_holds_the_node_is_counted_until_its_end() -> None:
    """One trains on the only sure node until 2:00; the other, 2 h until 4:00, must be next."""
    node = a_flavor("sure", usd=4, boot_s=0, max_nodes=1)
    held = a_job("a", work="2h", deadline="9h", checkpoint_interval=0, row={"on_safety_net": True})
    waits = a_job("b", work="2h", deadline="4h", checkpoint_interval=0)
    world = a_world(
        waits,
        live=(an_attempt(held, node, training_s=0),),
        offers=(an_offer(SPOT, room=0), an_offer(node, room=0)),
        settings=GREEDY,
    )
    plan = decide(world)
    assert [one.reason for one in plan.defers] == [Reason.WAITS_FOR_SPOT]
    assert plan.wake_at_us == 2 * HOUR
