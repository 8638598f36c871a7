"""The plan ahead: what it may know, when it is made anew, and how it steers."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.reasons import Reason
from jobs.rows import JobRow
from scheduler.decide import decide
from scheduler.horizon_keeper import HorizonKeeper, highs
from scheduler.plan import Plan
from scheduler.snapshot import Snapshot
from tests.unit.scheduler.worlds import (
    EXACT,
    HOUR,
    S,
    a_flavor,
    a_job,
    a_node,
    a_world,
    an_attempt,
    an_offer,
)

PLANNED = replace(EXACT, horizon_ms=900_000)
CHEAP = a_flavor("spot-cheap", usd=1, max_nodes=1, boot_s=0)
DEAR = a_flavor("spot-dear", usd=2, max_nodes=8, boot_s=0)
SURE = a_flavor("sure", usd=4, max_nodes=50, boot_s=0)
MARKET = (an_offer(CHEAP), an_offer(DEAR), an_offer(SURE))


def job(name: str, *, work_h: float, deadline_h: float, **facts: Any) -> JobRow:
    """A job of one GPU that saves all the time."""
    return a_job(
        name,
        work=work_h * 3_600,
        deadline=deadline_h * 3_600,
        checkpoint_interval=0,
        **facts,
    )


def planned(*jobs: JobRow, now_s: int = 0, **facts: Any) -> Snapshot:
    """A snapshot with its plan ahead in it."""
    world = a_world(*jobs, now_s=now_s, offers=MARKET, settings=PLANNED, **facts)
    return HorizonKeeper().into(world)


def placed(plan: Plan) -> dict[str, str]:
    """Where each job starts."""
    return {place.job_id: place.flavor for place in plan.places}


def test_the_scarce_cheap_node_goes_to_the_job_that_cannot_wait() -> None:
    """The patient one came first, but it loses nothing by waiting for its turn."""
    patient = job("a-patient", work_h=2, deadline_h=60)
    pressed = job("b-pressed", work_h=8, deadline_h=9)
    alone = decide(a_world(patient, pressed, offers=MARKET))
    assert placed(alone)["a-patient"] == "spot-cheap"
    plan = decide(planned(patient, pressed))
    assert placed(plan).get("b-pressed") is not None
    assert "a-patient" not in placed(plan)
    (wait,) = plan.defers
    assert wait.reason is Reason.WAITS_FOR_TURN
    assert "$" in wait.sentence


def test_who_waits_for_its_turn_is_looked_at_again() -> None:
    """The plan wakes no later than its plan ahead is due again, or the job's latest start."""
    plan = decide(planned(job("a", work_h=2, deadline_h=60), job("b", work_h=8, deadline_h=9)))
    assert plan.wake_at_us is not None
    assert plan.wake_at_us <= 900 * S


def test_one_job_alone_has_no_plan_ahead() -> None:
    """Nothing is shared, so the policy for one job decides as it always did."""
    assert planned(job("a", work_h=2, deadline_h=60)).horizon is None


def test_other_policies_are_not_steered() -> None:
    """A baseline must stay what it is in the books."""
    jobs = (job("a", work_h=2, deadline_h=60), job("b", work_h=8, deadline_h=9))
    named = replace(PLANNED, name="greedy")
    assert HorizonKeeper().into(a_world(*jobs, offers=MARKET, settings=named)).horizon is None


def test_a_used_up_slack_goes_to_the_net_whatever_the_plan_says() -> None:
    """The safety net comes before the plan ahead."""
    late = job("late", work_h=5, deadline_h=5)
    plan = decide(planned(late, job("b", work_h=2, deadline_h=60)))
    assert placed(plan)["late"] == "sure"


def test_a_plan_costs_no_less_than_its_bound() -> None:
    """Each plan says both, and their ratio."""
    plan = decide(planned(job("a", work_h=2, deadline_h=3), job("b", work_h=8, deadline_h=9)))
    assert plan.expected is not None
    assert plan.expected.cost_usd_nanos >= plan.expected.bound_usd_nanos > 0
    assert plan.expected.ratio >= 1


class Counting:
    """The real solver, counted; or one that always runs into its limit."""

    def __init__(self, *, cut_off: bool = False) -> None:
        self.calls, self.cut_off, self._solve = 0, cut_off, highs()

    def __call__(self, program: Any) -> Any:
        """Solve, or give up."""
        self.calls += 1
        return None if self.cut_off else self._solve(program)


def test_a_plan_ahead_is_made_anew_only_when_something_changed() -> None:
    """The same facts a minute later keep the plan; a new job, a limit or its age do not."""
    solver = Counting()
    keeper = HorizonKeeper(solver)
    jobs = (job("a", work_h=2, deadline_h=60), job("b", work_h=8, deadline_h=20))
    first = a_world(*jobs, offers=MARKET, settings=PLANNED)
    keeper.into(first)
    keeper.into(replace(first, now_us=60 * S))
    assert solver.calls == 1
    third = job("c", work_h=2, deadline_h=50)
    keeper.into(replace(first, now_us=120 * S, queued=(*jobs, third)))
    assert solver.calls == 2
    gone = (an_offer(CHEAP, limit=0), *MARKET[1:])
    keeper.into(replace(first, now_us=180 * S, queued=(*jobs, third), offers=gone))
    assert solver.calls == 3
    keeper.into(replace(first, now_us=HOUR, queued=(*jobs, third), offers=gone))
    assert solver.calls == 4


def test_a_solver_that_is_cut_off_leaves_the_last_plan_until_it_is_stale() -> None:
    """The fall-back is the last plan, then none; no job ever waits for the solver."""
    solver = Counting()
    keeper = HorizonKeeper(solver)
    world = a_world(
        job("a", work_h=2, deadline_h=60),
        job("b", work_h=8, deadline_h=50),
        offers=MARKET,
        settings=PLANNED,
    )
    before = keeper.into(world).horizon
    solver.cut_off = True
    soon = keeper.into(replace(world, now_us=HOUR)).horizon
    assert before is not None
    assert soon is not None
    assert soon.worths == before.worths
    assert keeper.into(replace(world, now_us=9 * HOUR)).horizon is None


def a_queue(seed: int) -> Snapshot:
    """Some jobs with feasible deadlines."""
    random = Random(seed)
    jobs = []
    for index in range(random.randrange(2, 8)):
        work_h = random.uniform(0.5, 12)
        deadline_h = work_h * random.uniform(1.2, 5) + 1
        jobs.append(job(f"j{index}", work_h=work_h, deadline_h=deadline_h))
    return a_world(*jobs, offers=MARKET, settings=PLANNED)


@given(seed=st.integers(min_value=0, max_value=1 << 20))
@settings(max_examples=20, deadline=None)
def test_equal_snapshots_have_equal_plans_and_no_plan_is_below_its_bound(seed: int) -> None:
    """The solver's limit is counted in steps, so a plan is the same on every machine."""
    plans = [decide(HorizonKeeper().into(a_queue(seed))) for _ in range(2)]
    assert plans[0] == plans[1]
    expected = plans[0].expected
    assert expected is not None
    assert expected.cost_usd_nanos >= expected.bound_usd_nanos


def test_a_long_queue_shares_rows_and_keeps_its_money() -> None:
    """A thousand jobs make a program of some hundred classes; the parts still add up."""
    jobs = [
        job(f"j{index}", work_h=1 + index % 7, deadline_h=10 + (1 + index % 7) * (1 + index % 5))
        for index in range(1_000)
    ]
    wide = (an_offer(CHEAP), an_offer(DEAR), an_offer(replace(SURE, max_nodes=2_000)))
    solver = Counting()
    horizon = HorizonKeeper(solver).into(a_world(*jobs, offers=wide, settings=PLANNED)).horizon
    assert horizon is not None
    assert len(horizon.worths) == 1_000
    assert horizon.variables < 10_000
    parts = sum(worth.rest_usd_nanos for worth in horizon.worths.values())
    assert abs(parts - horizon.bound_usd_nanos) < 1_000


def test_a_job_with_time_yields_spot_to_one_that_would_pay_for_sure_capacity() -> None:
    """Stopping it costs minutes; the other one would pay four times the price for hours."""
    spot = a_flavor("spot-only", usd=1, max_nodes=1, boot_s=0)
    market = (an_offer(spot, room=0), an_offer(SURE))
    patient = job("patient", work_h=4, deadline_h=80)
    pressed = job("pressed", work_h=8, deadline_h=9)
    holder = an_attempt(patient, spot, training_s=0)
    world = a_world(
        pressed,
        now_s=1_800,
        offers=market,
        live=(holder,),
        nodes=(a_node("n1", spot, free=0),),
        settings=PLANNED,
    )
    plan = decide(HorizonKeeper().into(world))
    assert [one.attempt_id for one in plan.preempts] == [holder.attempt.id]
    assert "pressed" in plan.preempts[0].sentence
    assert not decide(world).preempts, "without a plan ahead nobody is asked to yield"
