"""Where budgets meet the loop: their views, their roll-overs and thresholds, and changes to them.

Pure in its arguments: it reads rows and the meter, and gives events for the controller to record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jobs import events as ev
from jobs.budget import Budget, Period
from jobs.budget_events import BudgetCrossed, BudgetRemoved, BudgetRolled, BudgetSet
from jobs.rows import AttemptRow, BudgetRow, JobRow
from jobs.state import State
from scheduler.budget_periods import next_until_us, period_of
from scheduler.budget_view import BudgetView, own_row, views
from scheduler.catalog import Catalog
from scheduler.metering import Meter
from scheduler.observe import price_events


@dataclass(frozen=True, slots=True)
class BudgetDesk:
    """Budgets of one installation, as of its rows and its meter."""

    state: State
    meter: Meter

    def views(self, now_us: int) -> tuple[BudgetView, ...]:
        """Give every budget as a cycle sees it: those that were set, then the open jobs' own."""
        state = self.state
        named = state.open_budgets
        live = [
            (state.jobs[attempt.job_id], attempt)
            for attempt in map(state.attempts.__getitem__, state.live_attempts)
        ]
        open_jobs = [*map(state.jobs.__getitem__, state.queued), *(job for job, _ in live)]
        mine = [row for job in open_jobs if (row := own_row(job)) is not None]
        spent = self.meter.spent(now_us) if named else {}
        if mine:
            by_job = self.meter.spent_by_job(now_us)
            for row in mine:
                spent[row.name] = by_job.get(dict(row.terms.owner)["job"], 0)
        return (
            *views(named, spent_usd_nanos=spent, live=live, now_us=now_us),
            *_own_views(mine, spent, live=live, now_us=now_us),
        )

    def due(self, catalog: Catalog, *, now_us: int) -> Iterator[ev.Event]:
        """Give the price changes and roll-overs up to now, in the order of their instants."""
        while (row := self._next_to_roll(now_us)) is not None:
            assert row.until_us is not None, f"it never ends: {row!r}"
            yield from price_events(self.state, catalog, now_us=row.until_us)
            spent = self.meter.spent(row.until_us).get(row.name, 0)
            yield BudgetRolled(
                at_us=row.until_us,
                budget=row.name,
                spent_usd_nanos=spent,
                carried_usd_nanos=_carried(row, spent),
                until_us=next_until_us(row.terms, row.until_us),
            )
        yield from price_events(self.state, catalog, now_us=now_us)

    def _next_to_roll(self, now_us: int) -> BudgetRow | None:
        due = (
            row
            for row in self.state.open_budgets
            if row.until_us is not None
            and row.until_us <= now_us
            and row.terms.period is not Period.ONCE
        )
        return min(due, key=lambda row: (row.until_us, row.name), default=None)

    def crossings(self, now_us: int) -> Iterator[BudgetCrossed]:
        """Give the thresholds that the money spent has passed."""
        rows = [row for row in self.state.open_budgets if row.terms.thresholds]
        spent = self.meter.spent(now_us) if rows else {}
        for row in rows:
            cost = spent.get(row.name, 0)
            passed = [
                one
                for one in row.terms.thresholds
                if one.percent > row.crossed_percent
                and cost * 100 >= one.percent * row.limit_usd_nanos
            ]
            if passed:
                yield BudgetCrossed(
                    at_us=now_us,
                    budget=row.name,
                    percent=passed[-1].percent,
                    action=passed[-1].action,
                    spent_usd_nanos=cost,
                    limit_usd_nanos=row.limit_usd_nanos,
                )

    def set(
        self, budget: Budget, *, source: str, now_us: int, by: str = "", why: str = ""
    ) -> BudgetSet | None:
        """Give the event that makes a budget or changes its terms, None when it changes nothing."""
        old = self.state.budgets.get(budget.name)
        known = old if old is not None and old.removed_us is None else None
        if known is not None and (known.terms, known.source) == (budget, source):
            return None
        from_us, until_us = period_of(budget, now_us)
        same = known is not None and (known.from_us, known.until_us) == (from_us, until_us)
        return BudgetSet(
            at_us=now_us,
            budget=budget.name,
            terms=budget,
            source=source,
            from_us=from_us,
            until_us=until_us,
            carried_usd_nanos=known.carried_usd_nanos if known is not None and same else 0,
            by=by,
            why=why,
        )

    def remove(
        self, name: str, *, now_us: int, by: str = "", why: str = ""
    ) -> BudgetRemoved | None:
        """Give the event that removes a budget, None where there is none of that name."""
        row = self.state.budgets.get(name)
        if row is None or row.removed_us is not None:
            return None
        return BudgetRemoved(at_us=now_us, budget=name, by=by, why=why)

    def from_file(
        self, budgets: Iterable[Budget], *, now_us: int
    ) -> Iterator[BudgetSet | BudgetRemoved]:
        """Give the events that bring the budgets of the configuration file up to date.

        A budget that left the file is removed; those that were applied at run time stay, unless
        the file has one of the same name.
        """
        listed = list(budgets)
        names = {budget.name for budget in listed}
        for row in self.state.open_budgets:
            if row.source == "file" and row.name not in names:
                gone = self.remove(row.name, now_us=now_us, why="left the configuration file")
                if gone is not None:
                    yield gone
        for budget in listed:
            changed = self.set(budget, source="file", now_us=now_us)
            if changed is not None:
                yield changed


def _own_views(
    rows: list[BudgetRow],
    spent: dict[str, int],
    *,
    live: Iterable[tuple[JobRow, AttemptRow]],
    now_us: int,
) -> tuple[BudgetView, ...]:
    """Give the views of the jobs' own budgets; only its own attempt can be on one of them."""
    attempts = {job.id: (job, attempt) for job, attempt in live}
    found: list[BudgetView] = []
    for row in rows:
        own = attempts.get(dict(row.terms.owner)["job"])
        found += views(
            [row],
            spent_usd_nanos=spent,
            live=() if own is None else (own,),
            now_us=now_us,
        )
    return tuple(found)


def _carried(row: BudgetRow, spent: int) -> int:
    """Give what is not spent, up to the share that may be carried over; a debt is not carried."""
    most = row.terms.limit_usd_nanos * row.terms.carry_over_percent // 100
    return max(0, min(row.limit_usd_nanos - spent, most))
