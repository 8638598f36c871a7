"""A budget as a cycle sees it: its row, and what is spent and reserved of it now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobs.budget import own_budget, pays_for
from jobs.rows import AttemptRow, BudgetRow, JobRow

US_PER_HOUR = 3_600_000_000
FOREVER_US = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetView:
    """Money at an instant, nano-dollars. For a planner: ``left`` until ``row.until_us``."""

    row: BudgetRow
    spent_usd_nanos: int  # in the present period
    reserved_usd_nanos: int = 0  # what live attempts may still cost in it
    next_reserved_usd_nanos: int = 0  # and in the period after it

    @property
    def left_usd_nanos(self) -> int:
        """What may still be reserved of the present period; negative after a limit was lowered."""
        return self.row.limit_usd_nanos - self.spent_usd_nanos - self.reserved_usd_nanos


def views(
    rows: Iterable[BudgetRow],
    *,
    spent_usd_nanos: Mapping[str, int],
    live: Iterable[tuple[JobRow, AttemptRow]],
    now_us: int,
) -> tuple[BudgetView, ...]:
    """Give the views of budgets.

    Args:
        rows: the budgets.
        spent_usd_nanos: by name, in the present period, up to now.
        live: attempts that hold capacity, with their jobs.
        now_us: the instant.
    """
    listed = list(live)
    return tuple(
        _view(row, spent_usd_nanos.get(row.name, 0), live=listed, now_us=now_us) for row in rows
    )


def _view(
    row: BudgetRow, spent: int, *, live: Iterable[tuple[JobRow, AttemptRow]], now_us: int
) -> BudgetView:
    now = later = 0
    for job, attempt in live:
        if pays_for(row.terms.owner, job_id=job.id, spec=job.spec):
            part = reserved_of(attempt, row=row, now_us=now_us)
            now, later = now + part[0], later + part[1]
    return BudgetView(
        row=row, spent_usd_nanos=spent, reserved_usd_nanos=now, next_reserved_usd_nanos=later
    )


def reserved_of(attempt: AttemptRow, *, row: BudgetRow, now_us: int) -> tuple[int, int]:
    """Give what an attempt may still cost in the present period of a budget, and after it."""
    if attempt.reserved_until_us is None:
        return 0, 0
    rate, until_us = attempt.reserved_usd_nanos_per_hour, attempt.reserved_until_us
    return cost_of(rate, until_us=until_us, row=row, now_us=now_us)


def cost_of(rate: int, *, until_us: int, row: BudgetRow, now_us: int) -> tuple[int, int]:
    """Give what a rate comes to in the present period of a budget, and after it; rounded up."""
    end_us = FOREVER_US if row.until_us is None else row.until_us
    now = max(0, min(until_us, end_us) - now_us)
    later = max(0, until_us - max(end_us, now_us))
    return -(-rate * now // US_PER_HOUR), -(-rate * later // US_PER_HOUR)


def own_row(job: JobRow) -> BudgetRow | None:
    """Give the row of the budget that a job brought along, None without one."""
    if job.spec.budget_usd is None:  # most jobs, in a queue that may be long
        return None
    terms = own_budget(job.id, job.spec)
    if terms is None:
        return None
    since = job.submitted_us
    return BudgetRow(
        name=terms.name,
        terms=terms,
        source="job",
        since_us=since,
        changed_us=since,
        from_us=0,
        until_us=None,
    )
