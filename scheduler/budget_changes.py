"""Changes of budgets as people ask for them, and what they would do before they do it.

The outcome of a change is found by the decision itself: the cycle of now is decided with the
budgets of now and with those that were asked for, and the two plans are compared. So a dry run
cannot tell another story than what follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from jobs.budget import BudgetChanges, Owner, show_owner
from jobs.budget_events import BudgetRemoved, BudgetSet
from jobs.budget_fold import HANDLERS
from jobs.errors import ConflictError, UnknownSubjectError
from jobs.ledger.entries import Entry
from jobs.reasons import Reason
from jobs.rows import BudgetRow, JobRow
from jobs.state import State
from scheduler.budget_desk import BudgetDesk
from scheduler.budget_view import BudgetView, views
from scheduler.decide import decide
from scheduler.plan import Plan
from scheduler.snapshot import Snapshot
from scheduler.spending import Spending

Change = BudgetSet | BudgetRemoved
Row = dict[str, Any]


def changes(asked: BudgetChanges, desk: BudgetDesk, *, now_us: int) -> list[Change]:
    """Give the events of what was asked; none for what is as asked already.

    Raises:
        UnknownSubjectError: a budget that is to be removed does not exist.
        ConflictError: a budget is the configuration file's.
    """
    _check_sources(asked, desk)
    found: list[Change] = []
    for name in _removed(asked, desk):
        gone = desk.remove(name, now_us=now_us, by=asked.by, why=asked.why)
        if gone is None:
            raise _unknown(name, desk)
        found.append(gone)
    for budget in asked.budgets:
        made = desk.set(budget, source="apply", now_us=now_us, by=asked.by, why=asked.why)
        if made is not None:
            found.append(made)
    return found


def _check_sources(asked: BudgetChanges, desk: BudgetDesk) -> None:
    """What is in the configuration file would be set back by it at the next start."""
    for name in (*asked.remove, *(budget.name for budget in asked.budgets)):
        row = desk.state.budgets.get(name)
        if row is not None and row.removed_us is None and row.source == "file":
            raise ConflictError(
                f"Budget '{name}' is set by the server's lowtide.yaml.",
                remedy="Change it there and start the server again, or give this one another name.",
            )


def _removed(asked: BudgetChanges, desk: BudgetDesk) -> list[str]:
    if not asked.all_of_them:
        return list(asked.remove)
    kept = {budget.name for budget in asked.budgets}
    applied = [row.name for row in desk.state.open_budgets if row.source == "apply"]
    return [name for name in applied if name not in kept]


def _unknown(name: str, desk: BudgetDesk) -> UnknownSubjectError:
    known = [row.name for row in desk.state.open_budgets]
    near = get_close_matches(name, known, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else "`lowtide budgets` lists them."
    return UnknownSubjectError(f"There is no budget '{name}'.", remedy=hint)


def after(found: Iterable[Change], state: State) -> list[BudgetRow]:
    """Give the budgets as they would be after some changes."""
    trial = State()
    for row in state.open_budgets:
        trial.put_budget(row)
    for event in found:
        HANDLERS[type(event)](trial, event)
    return trial.open_budgets


def outcome(
    found: list[Change], desk: BudgetDesk, *, snapshot: Snapshot, entries: Iterable[Entry]
) -> Row:
    """Give what changes would do now, as plain data.

    Args:
        found: the changes.
        desk: the budgets of now.
        snapshot: the world of now.
        entries: those of the attempts that may have cost the changed budgets money.
    """
    rows = after(found, desk.state)
    before = {view.row.name: view for view in snapshot.budgets if view.row.source != "job"}
    asked = _views(rows, found, desk, snapshot=snapshot, entries=entries)
    own = tuple(view for view in snapshot.budgets if view.row.source == "job")
    there = replace(snapshot, budgets=(*asked, *own))
    was, becomes = decide(snapshot), decide(there)
    later = {view.row.name: view for view in asked}
    jobs = list(desk.state.jobs.values())
    return {
        "changes": [_change(event, before, later) for event in found],
        **_compared(was, becomes, snapshot),
        "warnings": [text for event in found for text in _warnings(event, later, rows, jobs=jobs)],
    }


def _views(
    rows: list[BudgetRow],
    found: Iterable[Change],
    desk: BudgetDesk,
    *,
    snapshot: Snapshot,
    entries: Iterable[Entry],
) -> tuple[BudgetView, ...]:
    changed = {event.budget for event in found}
    spending = Spending(desk.state)
    fresh = [row for row in rows if row.name in changed]
    spending.load(fresh, [*entries, *desk.meter.unposted(snapshot.now_us)])
    spent = desk.meter.spent(snapshot.now_us) | spending.by_budget
    live = [(one.job, one.attempt) for one in snapshot.live]
    return views(rows, spent_usd_nanos=spent, live=live, now_us=snapshot.now_us)


def _change(
    event: Change, before: Mapping[str, BudgetView], later: Mapping[str, BudgetView]
) -> Row:
    old, new = before.get(event.budget), later.get(event.budget)
    verb = "removed" if new is None else "made" if old is None else "changed"
    return {
        "budget": event.budget,
        "change": verb,
        "before": None if old is None else amounts(old),
        "after": None if new is None else amounts(new),
    }


def amounts(view: BudgetView) -> Row:
    """Give the money of a budget as plain data."""
    return {
        "limit_usd_nanos": view.row.limit_usd_nanos,
        "spent_usd_nanos": view.spent_usd_nanos,
        "reserved_usd_nanos": view.reserved_usd_nanos,
        "left_usd_nanos": view.left_usd_nanos,
    }


def _compared(was: Plan, becomes: Plan, snapshot: Snapshot) -> Row:
    """Give the jobs that the change holds, pauses and releases."""
    held_before, held_after = _held(was), _held(becomes)
    paused_before, paused_after = _paused(was), _paused(becomes)
    live = {one.attempt.id: one.job.id for one in snapshot.live}
    return {
        "held": _told(held_after, held_before),
        "paused": [
            {"job": live[attempt_id], "sentence": text}
            for attempt_id, text in paused_after.items()
            if attempt_id not in paused_before
        ],
        "released": [
            {"job": job_id, "sentence": _becomes(becomes, job_id)}
            for job_id in held_before
            if job_id not in held_after
        ],
    }


def _held(plan: Plan) -> dict[str, str]:
    why = Reason.WAITS_FOR_BUDGET
    return {one.job_id: one.sentence for one in plan.defers if one.reason is why}


def _paused(plan: Plan) -> dict[str, str]:
    return {one.attempt_id: one.sentence for one in plan.preempts if one.reason is Reason.BUDGET}


def _told(now: Mapping[str, str], before: Mapping[str, str]) -> list[Row]:
    return [
        {"job": job_id, "sentence": text} for job_id, text in now.items() if job_id not in before
    ]


def _becomes(plan: Plan, job_id: str) -> str:
    said = {one.job_id: one.sentence for one in plan.defers}
    said |= {one.job_id: one.sentence for one in plan.places}
    return said.get(job_id, "")


def _warnings(
    event: Change, later: Mapping[str, BudgetView], rows: Iterable[BudgetRow], *, jobs: list[JobRow]
) -> list[str]:
    view = later.get(event.budget)
    if view is None:
        return []
    told = []
    if view.left_usd_nanos < 0 and view.row.terms.hard:
        told.append(
            f"{event.budget}: ${-view.left_usd_nanos / 10**9:,.2f} more than its limit is spent or "
            "reserved; the youngest attempts that it pays for save and leave now."
        )
    told += _unknown_tags(event.budget, view.row.terms.owner, jobs)
    told += [
        f"{event.budget}: {other.name} has the same owner ({show_owner(other.terms.owner)}) and "
        "period; both must hold."
        for other in rows
        if other.name != event.budget
        and (other.terms.owner, other.terms.period) == (view.row.terms.owner, view.row.terms.period)
    ]
    return told


def _unknown_tags(name: str, owner: Owner, jobs: list[JobRow]) -> list[str]:
    """Warn of tags that no job has; it may only be early, so it is no error."""
    told = []
    for tag, value in owner:
        known = sorted({text for job in jobs if (text := _tag(job, tag))})
        if value not in known:
            near = get_close_matches(value, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            told.append(f"{name}: no job has {tag}={value} yet{hint}")
    return told


def _tag(job: JobRow, tag: str) -> str:
    known = {**job.spec.tags, "team": job.spec.team, "job": job.id}
    return str(known.get(tag, ""))
