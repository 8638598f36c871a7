"""Money that is left, and who must wait for more of it.

First version: a job's own ``budget_usd`` against the budget row whose owner is the job's id
(reserved + spent). A job that has a place on no choice within what is left waits; the deadline
does not break a budget.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from jobs.reasons import Reason
from jobs.rows import JobRow
from scheduler.market import Choice, Market
from scheduler.sentences import waits_for_budget
from scheduler.snapshot import Snapshot
from scheduler.wishes import Wait, Wish


class Purses:
    """What may still be spent, as of the snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Index the budget rows."""
        self._used = {
            row.owner: row.reserved_usd_nanos + row.spent_usd_nanos for row in snapshot.budgets
        }

    def left_nanos(self, job: JobRow) -> int | None:
        """Give what the job may still cost, nano-dollars; None = no limit."""
        limit = job.spec.budget_nanos
        return None if limit is None else limit - self._used.get(job.id, 0)


def hold(answers: Iterable[Wish | Wait], *, purses: Purses, market: Market) -> list[Wish | Wait]:
    """Take from each wish what its budget does not cover; one without any choice left waits."""
    held: list[Wish | Wait] = []
    for answer in answers:
        left = purses.left_nanos(answer.job)
        if left is None or isinstance(answer, Wait) or not answer.choices:
            held.append(answer)
        else:
            held.append(_within(answer, left, market=market))
    return held


def _within(wish: Wish, left_nanos: int, *, market: Market) -> Wish | Wait:
    def cost(choice: Choice) -> int:
        return market.flat_cost(wish.job, choice, at_us=market.now_us)

    covered = tuple(choice for choice in wish.choices if cost(choice) <= left_nanos)
    if covered:
        return replace(wish, choices=covered)
    least = min(cost(choice) for choice in wish.choices)
    return Wait(
        job=wish.job,
        reason=Reason.WAITS_FOR_BUDGET,
        sentence=waits_for_budget(cost_nanos=least, left_nanos=left_nanos),
        wakes_us=wish.otherwise.wakes_us,
    )
