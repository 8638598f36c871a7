"""What a user is told about budgets. Like all sentences, they stand still while the facts do."""

from __future__ import annotations

from jobs.rows import BudgetRow
from scheduler.sentences import show_instant, show_usd


def waits_for_hours(row: BudgetRow, *, opens_us: int) -> str:
    """The hours in which the money may be spent are over."""
    return f"Waits for {show_instant(opens_us)}, when money of {show_name(row)} may be spent again."


def waits_for_pace(row: BudgetRow, *, need: int, accrues_us: int) -> str:
    """The budget burns evenly, and this would run ahead of it."""
    at = show_instant(-(-accrues_us // _QUARTER_US) * _QUARTER_US)
    return (
        f"Waits for budget: {show_name(row)} burns evenly, and the {show_usd(need)} of this job "
        f"accrue by {at} at the latest; a deadline goes first."
    )


def waits_for_money(
    row: BudgetRow,
    *,
    need: int,
    per_hour: bool,
    left: int,
    held_percent: int | None,
    more_us: int | None,
    never: bool,
    claimant: str,
    deadline_us: int | None,
) -> str:
    """The money left does not cover the cheapest way to the end, or a threshold holds new jobs."""
    unit = " an hour" if per_hour else ""
    if held_percent is not None:
        why = f"{show_name(row)} starts nothing new beyond {held_percent} % of its limit"
    else:
        why = f"the rest costs about {show_usd(need)}{unit}, and {_show_left(row, left)}"
    parts = [f"Waits for budget: {why}"]
    if claimant:
        parts.append(f"{claimant} waits before it")
    if never:
        parts.append("it cannot be finished within this budget: raise the limit, or remove it")
    elif more_us is not None:
        parts.append(f"there is more from {show_instant(more_us)} on")
    if deadline_us is not None:
        parts.append(f"its deadline {show_instant(deadline_us)} does not break the budget")
    return f"{'; '.join(parts)}."


def _show_left(row: BudgetRow, left: int) -> str:
    """Write what is left; of a shared budget in twentieths, since it changes all the time."""
    if row.source == "job":
        return f"{show_usd(max(0, left))} is left of {show_name(row)}"
    step = max(1, row.limit_usd_nanos // 20)
    most = max(0, min(row.limit_usd_nanos, -(-left // step) * step))
    return f"at most {show_usd(most)} is left of {show_name(row)}"


def leaves_for_money(row: BudgetRow) -> str:
    """The reservation is used up, and the budget covers no more."""
    return f"Saves and leaves: {show_name(row)} covers no more at the highest price it can meet."


def leaves_at_threshold(row: BudgetRow) -> str:
    """A threshold pauses what runs."""
    return f"Saves and leaves: {row.crossed_percent} % of {show_name(row)} is spent."


def show_name(row: BudgetRow) -> str:
    """Write a budget's name and limit: ``budget ads-monthly ($3,000.00 a month)``."""
    if row.source == "job":
        return f"the job's own budget of {show_usd(row.limit_usd_nanos)}"
    each = {"total": "", "once": " once"}.get(row.terms.period, f" a {row.terms.period}")
    return f"budget {row.name} ({show_usd(row.limit_usd_nanos)}{each})"


_QUARTER_US = 900_000_000  # so that an estimate does not make a new sentence each minute
