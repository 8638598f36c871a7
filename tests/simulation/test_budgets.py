"""Budgets through the whole controller: no hard limit is passed at any instant, no job is lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.budget import Budget, Burn, Period
from jobs.spec import JobSpec
from jobs.states import AttemptState, JobState
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
@settings(max_examples=60, deadline=None)
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
