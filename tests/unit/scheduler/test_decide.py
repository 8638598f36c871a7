"""The cycle as a whole: its order, its wake-up, its money, its speed."""

from __future__ import annotations

from time import process_time

import pytest

from jobs.reasons import Reason
from scheduler.budget_view import BudgetView, own_row
from scheduler.decide import decide
from tests.unit.scheduler.worlds import HOUR, USD, S, a_flavor, a_job, a_world, an_offer

SPOT = a_flavor("spot-a")
SURE = a_flavor("sure", usd=4)


def test_the_urgent_go_first() -> None:
    """The last sure node goes to the job without slack, though it came last and has no rank."""
    vip = a_job("vip", work="2h", priority=9, markets=["on-demand"])
    tight = a_job("tight", submitted_s=10, work="2h", deadline="2h1m")
    tighter = a_job("tighter", submitted_s=11, work="3h", deadline="2h59m")
    offers = (an_offer(SURE, room=2),)
    plan = decide(a_world(vip, tight, tighter, now_s=11, offers=offers))
    assert [place.job_id for place in plan.places] == ["tighter", "tight"]


def test_nothing_to_do_means_no_wake() -> None:
    """Only a notice can change an empty world."""
    plan = decide(a_world(offers=(an_offer(SPOT),)))
    assert plan.wake_at_us is None
    assert not plan.defers


def test_the_end_of_a_back_off_wakes() -> None:
    """A flavor whose launch failed is looked at again when it may be."""
    resting = an_offer(SPOT, room=0, backoff_until_us=90 * S)
    plan = decide(a_world(a_job("a"), now_s=30, offers=(resting,)))
    assert (plan.defers[0].reason, plan.wake_at_us) == (Reason.WAITS_FOR_CAPACITY, 90 * S)


def test_a_start_on_spot_wakes_in_time_to_leave_it() -> None:
    """Should no notice ever come from the node, the loop looks again at the latest instant."""
    job = a_job("a", work="2h", deadline="9h", restore="5m", checkpoint_interval="10m")
    plan = decide(a_world(job, offers=(an_offer(SPOT), an_offer(SURE))))
    assert plan.places
    assert plan.wake_at_us == 7 * HOUR - 60 * S - 300 * S


@pytest.mark.parametrize(("spent_usd", "flavor"), [(0, "sure"), (1, "sure"), (2, None), (11, None)])
def test_a_budget_is_not_broken_by_a_deadline(spent_usd: int, flavor: str | None) -> None:
    """10 $ are the limit; the rest on-demand costs 8.07 $; reserved and spent both count."""
    job = a_job("a", work="2h", deadline="2h1m", budget_usd=10)
    row = own_row(job)
    assert row is not None
    half = spent_usd * USD // 2
    used = BudgetView(row=row, spent_usd_nanos=half, reserved_usd_nanos=half)
    plan = decide(a_world(job, offers=(an_offer(SURE),), budgets=(used,)))
    assert [place.flavor for place in plan.places] == ([flavor] if flavor else [])
    if not flavor:
        left = max(0, 10 - spent_usd)
        may_come_back = left + half / USD > 8.07
        never = "it cannot be finished within this budget: raise the limit, or remove it; "
        assert plan.defers[0].reason is Reason.WAITS_FOR_BUDGET
        assert plan.defers[0].sentence == (
            f"Waits for budget: the rest costs about $8.07, and ${left:.2f} is left of the job's "
            f"own budget of $10.00; {'' if may_come_back else never}its deadline 1 Jan 02:01 UTC "
            "does not break the budget."
        )


def test_a_budget_leaves_the_cheaper_choice() -> None:
    """Too poor for on-demand, the job still starts on spot."""
    job = a_job("a", work="2h", budget_usd=3)
    plan = decide(a_world(job, offers=(an_offer(SURE), an_offer(SPOT))))
    assert [place.flavor for place in plan.places] == ["spot-a"]


def test_two_thousand_waiting_jobs_do_not_stop_the_loop() -> None:
    """A cycle over windows, markets and 2,000 jobs of many shapes stays far below seconds."""
    jobs = [
        a_job(
            f"j{i}",
            work=3_600 + 60 * i,
            deadline=200_000 + 100 * i,
            gpus=["0.5", 1, 2][i % 3],
            nodes=1 + i % 4,
        )
        for i in range(2_000)
    ]
    prices = tuple((hour * HOUR, USD + hour % 2 * USD) for hour in range(6, 48, 6))
    flavors = [a_flavor(f"spot-{i}", usd=2, gpu_milli=4_000, max_nodes=300) for i in range(4)]
    flavors.append(a_flavor("sure", usd=8, gpu_milli=4_000, max_nodes=300))
    offers = tuple(an_offer(flavor, next_prices=prices) for flavor in flavors)
    world = a_world(*jobs, offers=offers)
    began = process_time()
    plan = decide(world)
    assert process_time() - began < 3
    assert len(plan.places) + len(plan.defers) == 2_000
