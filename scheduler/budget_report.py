"""What a simulation has to say of each budget: how near its limit came, and whom it held."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from jobs.budget import Budget, own_budget, pays_for, show_owner
from jobs.budget_events import BudgetCrossed, BudgetRolled
from jobs.codec import to_data
from jobs.events import AttemptMoved, JobDeferred, Record
from jobs.reasons import Reason
from jobs.rows import JobRow
from jobs.spec import NANOS_PER_USD
from scheduler.audit_budgets import WATCHED, most_committed
from scheduler.simulation import Result

Row = dict[str, Any]


def budget_rows(result: Result) -> list[Row]:
    """Give a row for each budget of the scenario, then for each job's own; none without any."""
    owned = [job for job in result.jobs.values() if job.spec.budget_usd is not None]
    if not result.scenario.budgets and not owned:
        return []
    records = list(result.store.records())
    most = most_committed(
        (to_data(r.event) for r in records if r.event.kind in WATCHED),
        jobs={job.id: to_data(job) for job in result.jobs.values()},
        entries=(to_data(entry) for entry in result.store.entries()),
    )
    told = _told(records)
    named = [_row(budget, result, told, most) for budget in result.scenario.budgets]
    return named + [_own_row(job, told, most) for job in owned]


def _row(budget: Budget, result: Result, told: _Told, most: dict[str, int]) -> Row:
    jobs = [
        job.id
        for job in result.jobs.values()
        if pays_for(budget.owner, job_id=job.id, spec=job.spec)
    ]
    return {
        "name": budget.name,
        "owner": show_owner(budget.owner),
        "hard": budget.hard,
        "period": str(budget.period),
        **_figures(budget, told, most, jobs),
        "rolled": told.rolled[budget.name],
        "crossed": told.crossed[budget.name],
    }


def _own_row(job: JobRow, told: _Told, most: dict[str, int]) -> Row:
    budget = own_budget(job.id, job.spec)
    assert budget is not None, f"no budget of its own: {job.id}"
    owner = show_owner(budget.owner)
    facts = {"name": budget.name, "owner": owner, "hard": True, "period": str(budget.period)}
    return facts | _figures(budget, told, most, [job.id])


def _figures(budget: Budget, told: _Told, most: dict[str, int], jobs: list[str]) -> Row:
    return {
        "limit_usd": budget.limit_usd_nanos / NANOS_PER_USD,
        "most_committed_usd": round(most.get(budget.name, 0) / NANOS_PER_USD, 9),
        "held": sum(told.held[job_id] for job_id in jobs),
        "paused": sum(told.paused[job_id] for job_id in jobs),
    }


class _Told:
    """Counts out of the journal."""

    def __init__(self) -> None:
        self.held: dict[str, int] = defaultdict(int)  # by job: how often it began to wait for money
        self.paused: dict[str, int] = defaultdict(int)  # by job: how often it left for lack of it
        self.rolled: dict[str, int] = defaultdict(int)
        self.crossed: dict[str, int] = defaultdict(int)  # highest percent


def _told(records: list[Record]) -> _Told:
    told = _Told()
    last: dict[str, Reason] = {}
    for event in (record.event for record in records):
        match event:
            case JobDeferred():
                waits = event.reason is Reason.WAITS_FOR_BUDGET
                began = waits and last.get(event.job_id) is not Reason.WAITS_FOR_BUDGET
                told.held[event.job_id] += began
                last[event.job_id] = event.reason
            case AttemptMoved() if event.reason is Reason.BUDGET:
                told.paused[event.attempt_id.rpartition("/")[0]] += 1
            case BudgetRolled():
                told.rolled[event.budget] += 1
            case BudgetCrossed():
                told.crossed[event.budget] = max(told.crossed[event.budget], event.percent)
            case _:
                pass
    return told
