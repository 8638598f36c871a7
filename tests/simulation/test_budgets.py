"""Budgets through the whole controller: no hard limit is passed at any instant, no job is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.budget import Action, Budget, Burn, Hours, Period, Threshold
from jobs.codec import to_data
from jobs.reasons import Reason
from jobs.spec import JobSpec
from jobs.states import AttemptState, JobState
from scheduler.audit_budgets import overspent
from scheduler.audit_store import audit_store
from scheduler.simulation import Result
from tests.simulation.budget_world import (
    DAY,
    HOUR,
    LIST_USD,
    START,
    USD,
    S,
    play,
    teams,
    witness_of,
    world,
)

_FINE = {JobState.SUCCEEDED, JobState.QUEUED, JobState.ADMITTED, JobState.RUNNING}
_ENDLESS = (START - 400 * DAY, START + 400 * DAY)


def a_spec(**fields: Any) -> JobSpec:
    """Give a job of one GPU that saves continuously."""
    known: dict[str, Any] = {"work": "1h", "checkpoint_interval": 0, "team": "ads"}
    return JobSpec(script="train.py", **{**known, **fields})


def a_budget(**fields: Any) -> Budget:
    """Give a hard budget of the team ``ads`` by day."""
    known: dict[str, Any] = {
        "name": "ads",
        "owner": (("team", "ads"),),
        "limit_usd_nanos": 10 * USD,
        "period": Period.DAY,
    }
    return Budget(**{**known, **fields})


def days(count: int) -> list[tuple[int, int]]:
    """Give the first days of the world in UTC."""
    return [(START + n * DAY, START + (n + 1) * DAY) for n in range(count)]


def check(result: Result) -> None:
    """Assert what must hold in any world: clean books, every job accounted for, nobody killed."""
    assert audit_store(result.store) == []
    assert len(result.jobs) == len(result.job_ids)
    for job in result.jobs.values():
        assert job.state in _FINE, job
    for attempt in result.attempts.values():
        assert attempt.state is not AttemptState.FAILED, attempt


@st.composite
def specs(draw: st.DrawFn) -> JobSpec:
    """Give jobs of all kinds: deadlines or none, gangs, saves that take time, own budgets."""
    interval = draw(st.sampled_from([0, "10m", None]))
    fields: dict[str, Any] = {
        "work": f"{draw(st.integers(5, 600))}m",
        "nodes": draw(st.sampled_from([1, 1, 2])),
        "gpus": draw(st.sampled_from([1, 2])),
        "team": draw(st.sampled_from(["ads", "ads", "maps"])),
        "tags": draw(st.sampled_from([{}, {"product": "search"}])),
        "checkpoint_interval": interval,
        "setup": draw(st.sampled_from([0, "3m"])),
        "restore": draw(st.sampled_from([0, "2m"])),
        "save": draw(st.sampled_from([0, "20s"])),
    }
    if draw(st.booleans()):
        fields["deadline"] = f"{draw(st.integers(12, 100))}h"
    if draw(st.integers(0, 3)) == 0:
        fields["budget_usd"] = draw(st.sampled_from(["2.5", 10, 60]))
    return JobSpec(script="train.py", **fields)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Any, list[Budget]]:
    """Give a world with price jumps up to the list price, evictions, and several budgets."""
    arrivals = [
        (draw(st.integers(0, 60)) * HOUR // 2, draw(specs()))
        for _ in range(draw(st.integers(1, 7)))
    ]
    prices = draw(st.lists(st.sampled_from([0.5, 1, 2, LIST_USD]), min_size=1, max_size=30))
    nodes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=30))
    step = draw(st.sampled_from([HOUR, 20 * 60 * S, 7 * HOUR]))
    budgets = [
        a_budget(
            limit_usd_nanos=draw(st.integers(2, 60)) * USD,
            burn=draw(st.sampled_from(list(Burn))),
            carry_over_percent=draw(st.sampled_from([0, 50])),
        )
    ]
    if draw(st.booleans()):
        owner = draw(st.sampled_from([(("product", "search"),), ()]))
        period = draw(st.sampled_from([Period.DAY, Period.WEEK, Period.TOTAL]))
        limit = draw(st.integers(5, 80)) * USD
        budgets.append(a_budget(name="more", owner=owner, period=period, limit_usd_nanos=limit))
    scenario = world(
        arrivals,
        budgets=budgets,
        prices_usd=prices,
        spot_nodes=[*nodes, 3] if not any(nodes) else nodes,
        step_us=step,
    )
    return scenario, budgets


@given(scenes())
@settings(max_examples=25, deadline=None)
def test_no_hard_budget_is_passed_at_any_instant(scene: tuple[Any, list[Budget]]) -> None:
    """Spent (by the ledger's entries) + reserved (by the journal) stay within every limit."""
    scenario, budgets = scene
    result, _ = play(scenario)
    check(result)
    daily = budgets[0]
    most_carried = daily.limit_usd_nanos * daily.carry_over_percent // 100
    found = witness_of(result, teams(result).get("ads", []), periods=days(8))
    for start, committed in found.most.items():
        assert committed <= daily.limit_usd_nanos + most_carried, (start - START) / HOUR
    for job in result.jobs.values():
        limit = job.spec.budget_nanos
        if limit is not None:
            own = witness_of(result, [job.id], periods=[_ENDLESS])
            assert max(own.most.values()) <= limit, job.id


def reasons(result: Result, kind: str) -> list[Any]:
    """Give the journal's events of one kind."""
    return [r.event for r in result.store.records() if r.event.kind == kind]


def test_a_job_leaves_with_its_save_before_its_money_ends_and_goes_on_with_new_money() -> None:
    """At the list price a day's 9 $ last 2 h 15 min; each day the job goes on where it was."""
    scenario = world(
        [(0, a_spec(work="6h", gpus=2, save="1m"))],
        budgets=[a_budget(limit_usd_nanos=9 * USD)],
        spot_nodes=(0, 0),
        prices_usd=(4,),
    )
    sure_only = a_spec(work="6h", gpus=2, save="1m", markets=["on-demand"])
    scenario = world([(0, sure_only)], budgets=scenario.budgets, prices_usd=(4,))
    result, _ = play(scenario)
    check(result)
    (job,) = result.jobs.values()
    assert (job.state, job.evictions, job.preemptions) == (JobState.SUCCEEDED, 0, 2)
    began = [(a.created_us - START) // DAY for a in result.attempts.values()]
    assert began == [0, 1, 2]
    drains = [e for e in reasons(result, "attempt-moved") if e.reason is Reason.BUDGET]
    assert all(e.deadline_us - e.at_us == 60 * S for e in drains)  # the save fits
    found = witness_of(result, [job.id], periods=days(4))
    assert 8.5 * USD < found.most[START] <= 9 * USD


def test_a_price_that_jumps_to_the_cap_passes_no_limit() -> None:
    """Reserved at 0.50 $ an hour the start would have been good for 10 hours; it lasts 3."""
    scenario = world(
        [(0, a_spec(work="10h", gpus=2, budget_usd=6, markets=["spot"]))],
        prices_usd=[0.5, *[4] * 200],
        spot_nodes=(3,),
    )
    result, _ = play(scenario)
    check(result)
    (job,) = result.jobs.values()
    found = witness_of(result, [job.id], periods=[_ENDLESS])
    assert 5 * USD < max(found.most.values()) <= 6 * USD
    assert job.reason is Reason.WAITS_FOR_BUDGET
    assert "cannot be finished within this budget" in job.sentence


def test_a_price_that_jumps_while_an_attempt_saves_passes_no_limit() -> None:
    """At 0.50 $ an hour 6 $ last 12 hours; the price jumps to 4 $ half a minute before that."""
    spec = a_spec(work="14h", gpus=2, markets=["spot"], save="29s", checkpoint_interval="40m")
    daily = a_budget(limit_usd_nanos=6 * USD)
    night = (12 * 3_600 - 30) * S
    scenario = world([(0, spec)], budgets=[daily], prices_usd=[0.5, 4], step_us=night, days=3)
    result, _ = play(scenario)
    check(result)
    found = witness_of(result, list(result.jobs), periods=days(3))
    assert 5.9 * USD < max(found.most.values()) <= 6 * USD


def test_two_submits_at_one_instant_do_not_share_one_dollar() -> None:
    """The day's money is enough for one of two jobs: the other one starts the next day."""
    jobs = [(0, a_spec(work="2h", gpus=2, markets=["on-demand"])) for _ in range(2)]
    result, _ = play(world(jobs, budgets=[a_budget(limit_usd_nanos=9 * USD)]))
    check(result)
    began = sorted((a.created_us - START) / DAY for a in result.attempts.values())
    assert began == [0, 1]
    assert all(job.state is JobState.SUCCEEDED for job in result.jobs.values())


def test_all_budgets_of_a_job_must_hold() -> None:
    """Team, product and the job's own: the tightest one decides, and the sentence names it."""
    spec = a_spec(
        work="1h", gpus=2, tags={"product": "search"}, budget_usd=50, markets=["on-demand"]
    )
    product = a_budget(
        name="search",
        owner=(("product", "search"),),
        limit_usd_nanos=USD // 10,
        period=Period.TOTAL,
    )
    result, _ = play(world([(0, spec)], budgets=[a_budget(), product], days=1))
    check(result)
    (job,) = result.jobs.values()
    assert (job.state, job.reason) == (JobState.QUEUED, Reason.WAITS_FOR_BUDGET)
    assert "budget search ($0.10)" in job.sentence


def test_a_big_job_is_not_starved_by_small_ones() -> None:
    """Small jobs come all the time; the big one goes first as soon as its money is there."""
    kinds = {"gpus": 2, "markets": ["on-demand"]}
    minutes = [day * 1_440 + at for day in range(6) for at in (10, 1_410)]
    small = [(at * 60 * S, a_spec(work="1h", **kinds)) for at in minutes]
    big = (HOUR, a_spec(work="130m", name="big", **kinds))
    result, _ = play(world([*small, big], budgets=[a_budget()], sure_nodes=4))
    check(result)
    one = next(job for job in result.jobs.values() if job.spec.label == "big")
    assert one.ended_us is not None
    assert one.ended_us < START + DAY + 3 * HOUR
    passed = [
        e.sentence for e in reasons(result, "job-deferred") if "waits before it" in e.sentence
    ]
    assert passed


def test_an_even_burn_spreads_the_money_and_a_deadline_goes_first() -> None:
    """Of a week's 70 $ no day sees more than its share and the allowance, but for a deadline."""
    jobs = [(0, a_spec(work="2h", gpus=2, markets=["on-demand"])) for _ in range(8)]
    even = a_budget(
        limit_usd_nanos=70 * USD,
        period=Period.ONCE,
        from_us=START,
        until_us=START + 7 * DAY,
        burn=Burn.EVEN,
        allowance_percent=20,
    )
    urgent = (0, a_spec(work="2h", gpus=2, markets=["on-demand"], deadline="2h5m", name="urgent"))
    result, _ = play(world([*jobs, urgent], budgets=[even], sure_nodes=9, days=9))
    check(result)
    found = witness_of(result, list(result.jobs), periods=[(START, START + 7 * DAY)])
    assert max(found.most.values()) <= 70 * USD
    first = next(job for job in result.jobs.values() if job.spec.label == "urgent")
    assert first.ended_us is not None
    assert first.ended_us <= START + 2 * HOUR + 300 * S
    for day in range(1, 7):
        assert found.spent(START, START + day * DAY) <= (14 + 10 * day + 9) * USD
    assert found.spent(START, START + DAY) < 35 * USD
    assert "burns evenly" in " ".join(e.sentence for e in reasons(result, "job-deferred"))


def test_money_may_be_spent_in_its_hours_alone() -> None:
    """The job starts at 22:00 Berlin time, leaves by 06:00, and goes on the next night."""
    night = a_budget(
        limit_usd_nanos=1_000 * USD,
        period=Period.MONTH,
        time_zone="Europe/Berlin",
        hours=(Hours(start_s=22 * 3_600, end_s=6 * 3_600),),
    )
    spec = a_spec(work="10h", gpus=2, markets=["on-demand"])
    result, _ = play(world([(9 * HOUR, spec)], budgets=[night]))
    check(result)
    (job,) = result.jobs.values()
    assert job.state is JobState.SUCCEEDED
    assert [(a.created_us - START) / HOUR for a in result.attempts.values()] == [21, 45]
    found = witness_of(result, [job.id], periods=[(START, START + 8 * DAY)])
    assert all(21 * HOUR <= start - START < 53 * HOUR for start, _, _ in found.pieces)
    assert not found.spent(START + 29 * HOUR, START + 45 * HOUR)


def test_a_roll_over_is_exact_and_cuts_the_spending_of_a_long_attempt() -> None:
    """An attempt over midnight pays each day its own hours, and unspent money is carried."""
    daily = a_budget(limit_usd_nanos=20 * USD, carry_over_percent=50, time_zone="Europe/Berlin")
    spec = a_spec(work="4h", gpus=2, markets=["on-demand"], restore="1m")
    result, _ = play(world([(21 * HOUR, spec), (50 * HOUR, spec)], budgets=[daily]))
    check(result)
    rolls = reasons(result, "budget-rolled")
    assert [(e.at_us - START) / HOUR for e in rolls[:2]] == [23, 47]
    job, _ = result.jobs.values()
    found = witness_of(result, [job.id], periods=[])
    assert rolls[0].spent_usd_nanos == found.spent(START, START + 23 * HOUR) == 8 * USD
    assert rolls[0].carried_usd_nanos == 10 * USD
    assert rolls[1].spent_usd_nanos == found.spent(START + 23 * HOUR, START + 47 * HOUR)


@pytest.mark.parametrize(
    ("action", "held", "paused"), [("warn", 0, 0), ("hold", 1, 0), ("pause", 1, 1)]
)
def test_a_soft_budget_does_at_its_thresholds_what_it_says(
    action: str, held: int, paused: int
) -> None:
    """Beyond 8 $ the second job is held or not, and the running one goes on or leaves."""
    soft = a_budget(hard=False, thresholds=(Threshold(percent=80, action=Action(action)),))
    long = a_spec(work="4h", gpus=2, markets=["on-demand"])
    result, _ = play(world([(0, long), (3 * HOUR, long)], budgets=[soft]))
    check(result)
    first, second = result.jobs.values()
    assert bool(first.preemptions) == bool(paused)
    waited = [e for e in reasons(result, "job-deferred") if e.job_id == second.id]
    assert any(e.reason is Reason.WAITS_FOR_BUDGET for e in waited) == bool(held)
    (crossed, *_) = reasons(result, "budget-crossed")
    assert crossed.spent_usd_nanos == pytest.approx(8 * USD, rel=1e-6)
    assert all(job.state is JobState.SUCCEEDED for job in result.jobs.values())


def test_a_deprioritised_job_starts_after_the_others() -> None:
    """One node is free, and the job whose soft budget is passed came first."""
    soft = a_budget(
        hard=False,
        limit_usd_nanos=USD,
        thresholds=(Threshold(percent=100, action=Action.DEPRIORITISE),),
    )
    kinds = {"gpus": 2, "markets": ["on-demand"]}
    jobs = [
        (0, a_spec(work="1h", name="spends", **kinds)),
        (HOUR // 2, a_spec(work="1h", name="behind", **kinds)),
        (HOUR // 2 + 60 * S, a_spec(work="1h", name="other", team="maps", **kinds)),
    ]
    result, _ = play(world(jobs, budgets=[soft], sure_nodes=1))
    check(result)
    ends = {job.spec.label: job.ended_us or 0 for job in result.jobs.values()}
    assert 0 < ends["other"] < ends["behind"]


def _lower_limit(events: list[dict[str, Any]]) -> None:
    next(e for e in events if e["kind"] == "budget-set")["terms"]["limit_usd_nanos"] //= 2


def _longer_reservation(events: list[dict[str, Any]]) -> None:
    next(e for e in events if e["kind"] == "money-reserved")["until_us"] += 3 * HOUR


def _late_roll(events: list[dict[str, Any]]) -> None:
    next(e for e in events if e["kind"] == "budget-rolled")["spent_usd_nanos"] += 5


@pytest.mark.parametrize("forge", [_lower_limit, _longer_reservation, _late_roll])
def test_the_auditor_finds_a_budget_that_did_not_hold(
    forge: Callable[[list[dict[str, Any]]], None],
) -> None:
    """True books are clean; a limit, a reservation or a sum that is not true is named."""
    spec = a_spec(work="6h", gpus=2, markets=["on-demand"])
    result, _ = play(world([(0, spec)], budgets=[a_budget()]))
    check(result)
    events = [to_data(record.event) for record in result.store.records()]
    jobs = {job.id: to_data(job) for job in result.jobs.values()}
    entries = [to_data(entry) for entry in result.store.entries()]
    assert list(overspent(events, jobs=jobs, entries=entries)) == []
    forge(events)
    assert next(name for name, _ in overspent(events, jobs=jobs, entries=entries)) == "ads"


@given(scenes())
@settings(max_examples=10, deadline=None)
def test_when_money_returns_every_job_goes_on(scene: tuple[Any, list[Budget]]) -> None:
    """With money for each rest, nobody is left that waits for it (for spot, some may)."""
    scenario, _ = scene
    rich = a_budget(limit_usd_nanos=400 * USD)
    result, _ = play(world_like(scenario, budgets=[rich], days=60))
    check(result)
    for job in result.jobs.values():
        if job.spec.budget_usd is None:
            assert job.ended or job.reason is Reason.WAITS_FOR_SPOT, job


def world_like(scenario: Any, *, budgets: list[Budget], days: int) -> Any:
    """Give the scenario with other budgets, and more time."""
    return replace(scenario, budgets=tuple(budgets), end_us=START + days * DAY)
