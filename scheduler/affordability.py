"""Whether a job's own budget can pay for it at all: asked at its submit."""

from __future__ import annotations

from collections.abc import Iterable

from jobs.errors import InfeasibleError
from jobs.rows import JobRow
from scheduler.market import Choice, Market
from scheduler.sentences import show_instant, show_usd
from scheduler.snapshot import Snapshot


def check_affordable(rows: Iterable[JobRow], *, snapshot: Snapshot) -> None:
    """Refuse a job that its ``budget_usd`` cannot pay for at any price that is known.

    A job that gave no estimate of its work is not judged; nor is a shared budget, which may be
    raised or begin anew: there the job waits and says so.

    Raises:
        InfeasibleError: with what it costs where it is cheapest, and its deadline if it has one.
    """
    market = Market(snapshot)
    for row in rows:
        limit = row.spec.budget_nanos
        if limit is None or not row.work_ms:
            continue
        costs = [(_least(row, choice, market=market), choice) for choice in market.choices(row)]
        if costs and min(cost for cost, _ in costs) > limit:
            cost, choice = min(costs, key=lambda pair: (pair[0], pair[1].flavor.name))
            raise _refusal(row, cost, choice, limit=limit)


def _least(row: JobRow, choice: Choice, *, market: Market) -> int:
    """Give what the whole job costs on a flavor at the lowest price that is known of it."""
    known_us = [market.now_us, *(at_us for at_us, _ in choice.offer.next_prices)]
    return min(market.flat_cost(row, choice, at_us=at_us) for at_us in known_us)


def _refusal(row: JobRow, cost: int, choice: Choice, *, limit: int) -> InfeasibleError:
    deadline = ""
    if row.deadline_us is not None:
        deadline = f" A deadline ({show_instant(row.deadline_us)}) does not break a budget."
    return InfeasibleError(
        f"'{row.spec.label}' cannot be finished within its budget of {show_usd(limit)}: it costs "
        f"{show_usd(cost)} on {choice.flavor.name}, where it is cheapest.{deadline}",
        remedy=f"Give a budget_usd of {show_usd(cost)} or more, or less work.",
    )
