"""What is spent of each budget in its present period, from the entries of the ledger.

The ledger is the truth; this is a sum of it that is kept up with each entry and rebuilt from the
store after a restart. Node intervals are closed at each roll-over (``Meter``), so an entry belongs
to one period: that in which the GPU-time was used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from jobs.budget import pays_for
from jobs.ledger.entries import Entry, EntryKind
from jobs.ledger.legs import legs_of
from jobs.rows import BudgetRow
from jobs.state import State


@dataclass(slots=True)
class Spending:
    """Nano-dollars by budget; only budgets that somebody set (a job's own is in ``Meter``)."""

    state: State
    by_budget: dict[str, int] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Count a new usage entry."""
        rows = self.state.open_budgets
        if not rows:
            return
        for name, usd_nanos in self.parts(entry, rows):
            self.by_budget[name] = self.by_budget.get(name, 0) + usd_nanos

    def parts(self, entry: Entry, rows: Iterable[BudgetRow]) -> Iterable[tuple[str, int]]:
        """Give what an entry costs each of some budgets in its present period."""
        for leg in legs_of(entry):
            job = self.state.jobs[self.state.attempts[leg.attempt_id].job_id]
            for row in rows:
                inside = _inside(entry, row, leg.usd_nanos)
                if inside and pays_for(row.terms.owner, job_id=job.id, spec=job.spec):
                    yield row.name, inside

    def load(self, rows: Iterable[BudgetRow], entries: Iterable[Entry]) -> None:
        """Sum some budgets anew, from all entries that may be about them."""
        listed = list(rows)
        self.by_budget |= dict.fromkeys((row.name for row in listed), 0)
        for entry in entries:
            if entry.kind is EntryKind.USAGE:
                for name, usd_nanos in self.parts(entry, listed):
                    self.by_budget[name] += usd_nanos

    def roll(self, name: str) -> None:
        """Begin a budget's next period."""
        self.by_budget[name] = 0

    def attempts_of(self, rows: Iterable[BudgetRow]) -> list[str]:
        """Give the attempts that may have cost any of these budgets money in its period."""
        listed = list(rows)
        return [
            attempt.id
            for attempt in self.state.attempts.values()
            for job in (self.state.jobs[attempt.job_id],)
            if any(
                (attempt.ended_us is None or attempt.ended_us > row.from_us)
                and pays_for(row.terms.owner, job_id=job.id, spec=job.spec)
                for row in listed
            )
        ]


def _inside(entry: Entry, row: BudgetRow, usd_nanos: int) -> int:
    """Give the part of an amount that was used in a budget's period, rounded up.

    Only an entry that was closed before the budget was set can reach over an edge.
    """
    end_us = entry.end_us if row.until_us is None else min(entry.end_us, row.until_us)
    length_us = end_us - max(entry.start_us, row.from_us)
    whole_us = entry.end_us - entry.start_us
    if length_us == whole_us:
        return usd_nanos
    return -(-usd_nanos * length_us // whole_us) if length_us > 0 else 0
