"""How the events of budgets change rows: a part of ``jobs.fold``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jobs import budget_events as ev
from jobs.rows import BudgetRow
from jobs.state import State


def _on_reserved(state: State, e: ev.MoneyReserved) -> None:
    row = state.attempts[e.attempt_id]
    assert not row.ended, f"money reserved for an attempt that ended: {row!r}"
    state.put_attempt(
        replace(
            row,
            reserved_usd_nanos_per_hour=e.usd_nanos_per_hour,
            reserved_until_us=e.until_us,
        )
    )


def _on_set(state: State, e: ev.BudgetSet) -> None:
    old = state.budgets.get(e.budget)
    known = old if old is not None and old.removed_us is None else None
    state.put_budget(
        BudgetRow(
            name=e.budget,
            terms=e.terms,
            source=e.source,
            since_us=known.since_us if known else e.at_us,
            changed_us=e.at_us,
            from_us=e.from_us,
            until_us=e.until_us,
            carried_usd_nanos=e.carried_usd_nanos,
            last_spent_usd_nanos=known.last_spent_usd_nanos if known else 0,
        )
    )


def _on_removed(state: State, e: ev.BudgetRemoved) -> None:
    row = state.budgets[e.budget]
    state.put_budget(replace(row, removed_us=e.at_us, changed_us=e.at_us))


def _on_rolled(state: State, e: ev.BudgetRolled) -> None:
    row = state.budgets[e.budget]
    state.put_budget(
        replace(
            row,
            from_us=e.at_us,
            until_us=e.until_us,
            carried_usd_nanos=e.carried_usd_nanos,
            last_spent_usd_nanos=e.spent_usd_nanos,
            crossed_percent=0,
            changed_us=e.at_us,
        )
    )


def _on_crossed(state: State, e: ev.BudgetCrossed) -> None:
    row = state.budgets[e.budget]
    state.put_budget(replace(row, crossed_percent=e.percent, changed_us=e.at_us))


HANDLERS: dict[type, Callable[[State, Any], None]] = {
    ev.MoneyReserved: _on_reserved,
    ev.BudgetSet: _on_set,
    ev.BudgetRemoved: _on_removed,
    ev.BudgetRolled: _on_rolled,
    ev.BudgetCrossed: _on_crossed,
}
