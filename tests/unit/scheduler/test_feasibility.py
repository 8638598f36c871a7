"""What is refused because of a chain, a cap, or the deadlines that were accepted before."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.errors import InfeasibleError
from jobs.rows import JobRow
from jobs.wants import ArrayPlace
from scheduler.feasibility import check_submit
from tests.unit.scheduler.worlds import a_flavor, a_job, a_world, an_attempt, an_offer

SPOT = a_flavor("spot-a", boot_s=0)


def sure(nodes: int) -> Any:
    """Give spot, and so many nodes on demand."""
    node = a_flavor("sure", usd=4, boot_s=0, max_nodes=nodes, gpu_milli=1_000)
    return (an_offer(SPOT), an_offer(node))


def refusal(*rows: JobRow, nodes: int = 1, **world: Any) -> str:
    """Give the cause for which a submit at 0 is refused."""
    with pytest.raises(InfeasibleError) as refused:
        check_submit(rows, snapshot=a_world(*world.pop("queued", ()), offers=sure(nodes), **world))
    assert refused.value.remedy
    return refused.value.cause


def test_a_second_deadline_needs_its_own_node() -> None:
    """Two hours each until 3:00 do not fit on one node; on two, or until 4:00, they do."""
    first, second = (a_job(name, work="2h", deadline="3h") for name in "ab")
    assert "earliest finish is 1 Jan 04:00" in refusal(second, queued=(first,))
    check_submit([second], snapshot=a_world(first, offers=sure(2)))
    later = a_job("b", work="2h", deadline="4h")
    check_submit([later], snapshot=a_world(first, offers=sure(1)))


def test_nobody_who_was_accepted_is_put_at_risk() -> None:
    """A tighter newcomer is refused where the older deadline would be missed for it."""
    first = a_job("a", work="2h", deadline="3h")
    urgent = a_job("b", work="90m", deadline="90m")
    cause = refusal(urgent, queued=(first,))
    assert "'train' cannot be met beside the deadlines that were accepted before" in cause


def test_a_deadline_that_trains_on_sure_capacity_holds_its_node() -> None:
    """One without a deadline gives way, so it holds nothing."""
    node = sure(1)[1].flavor
    held = a_job("a", work="2h", deadline="9h", row={"on_safety_net": True})
    live = (an_attempt(held, node, training_s=0),)
    assert "earliest finish is 1 Jan 03:00" in refusal(
        a_job("b", work="1h", deadline="2h"), live=live
    )
    free = (an_attempt(a_job("a", work="2h"), node, training_s=0),)
    check_submit(
        [a_job("b", work="1h", deadline="2h")], snapshot=a_world(live=free, offers=sure(1))
    )


def test_a_chain_must_fit_before_the_deadline_of_its_last() -> None:
    """An hour, then two until 2:30: the first is half an hour too late already."""
    chain = [a_job("a", work="1h"), a_job("b", work="2h", deadline="2h30m", after=["a"])]
    assert "jobs that come after it" in refusal(*chain, nodes=4)
    fits = [a_job("a", work="1h"), a_job("b", work="2h", deadline="3h", after=["a"])]
    check_submit(fits, snapshot=a_world(offers=sure(4)))


def test_a_predecessor_on_sure_capacity_must_end_in_time() -> None:
    """It ends at 2:00 and cannot be quicker: an hour after it does not fit before 2:30."""
    node = sure(2)[1].flavor
    first = a_job("a", work="2h", deadline="9h", row={"on_safety_net": True})
    live = (an_attempt(first, node, training_s=0),)
    late = a_job("b", work="1h", deadline="2h30m", after=["a"])
    assert "a, which must end before, by 1 Jan 01:30" in refusal(late, live=live, nodes=2)
    fits = a_job("b", work="1h", deadline="3h", after=["a"])
    check_submit([fits], snapshot=a_world(live=live, offers=sure(2), now_s=600))


def test_a_cap_makes_turns_that_must_fit() -> None:
    """Four hours one after the other do not fit into three; two at a time they do."""

    def array(cap: int) -> list[JobRow]:
        place: dict[str, Any] = {"id": "s", "size": 4, "max_parallel": cap}
        return [
            a_job(f"s.{n}", work="1h", deadline="3h", row={"array": ArrayPlace(index=n, **place)})
            for n in range(4)
        ]

    assert refusal(*array(1), nodes=4)
    check_submit(array(2), snapshot=a_world(offers=sure(4)))


def test_halves_of_a_node_are_shared() -> None:
    """Two jobs with half a GPU each fit on one node at once; a third does not."""
    halves = [a_job(name, work="2h", deadline="2h", gpus="0.5") for name in "abc"]
    check_submit(halves[:2], snapshot=a_world(offers=sure(1)))
    assert refusal(*halves)
