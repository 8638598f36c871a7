"""How the events of schedules change rows: a part of ``jobs.fold``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jobs import schedule_events as ev
from jobs.recurrence import Outcome, ScheduleRow
from jobs.state import State


def _on_made(state: State, e: ev.ScheduleMade) -> None:
    assert e.schedule_id not in state.schedules, f"schedule {e.schedule_id} made twice"
    state.put_schedule(
        ScheduleRow(
            id=e.schedule_id,
            spec=e.spec,
            owner=e.owner,
            made_us=e.at_us,
            changed_us=e.at_us,
            next_us=e.next_us,
        )
    )


def _on_held(state: State, e: ev.ScheduleHeld) -> None:
    row = state.schedules[e.schedule_id]
    state.put_schedule(replace(row, held=e.held, next_us=e.next_us, changed_us=e.at_us))


def _on_removed(state: State, e: ev.ScheduleRemoved) -> None:
    row = state.schedules[e.schedule_id]
    state.put_schedule(replace(row, removed_us=e.at_us, next_us=None, changed_us=e.at_us))


def _on_due(state: State, e: ev.OccurrenceDue) -> None:
    row = state.schedules[e.schedule_id]
    went = e.outcome is Outcome.SUBMITTED
    state.put_schedule(
        replace(
            row,
            last_us=e.due_us,
            last_outcome=e.outcome,
            sentence=e.sentence,
            next_us=e.next_us,
            job_ids=e.job_ids if went else row.job_ids,
            submitted=row.submitted + went,
            skipped=row.skipped + (e.outcome in {Outcome.SKIPPED, Outcome.REFUSED}),
            missed=row.missed + e.missed + (e.outcome is Outcome.MISSED),
            changed_us=e.at_us,
        )
    )


HANDLERS: dict[type, Callable[[State, Any], None]] = {
    ev.ScheduleMade: _on_made,
    ev.ScheduleHeld: _on_held,
    ev.ScheduleRemoved: _on_removed,
    ev.OccurrenceDue: _on_due,
}
