"""Budgets for people: what is spent, what is left, how fast it goes and how long it lasts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jobs.budget import Action, Burn, Period, show_owner
from jobs.codec import to_data
from scheduler.budget_periods import opens_us
from scheduler.budget_purses import Purse, Purses
from scheduler.budget_view import US_PER_HOUR
from scheduler.market import Market
from scheduler.snapshot import Snapshot


def status(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Give a row of plain data for each budget that was set, by name."""
    purses = Purses.of_snapshot(snapshot, market=Market(snapshot))
    return [_row(purse) for purse in purses.all]


def _row(purse: Purse) -> dict[str, Any]:
    view, row = purse.view, purse.view.row
    return {
        "name": row.name,
        "owner": show_owner(row.terms.owner),
        "source": row.source,
        "state": _state(purse),
        "from_us": row.from_us,
        "until_us": row.until_us,
        "limit_usd_nanos": row.limit_usd_nanos,
        "carried_usd_nanos": row.carried_usd_nanos,
        "spent_usd_nanos": view.spent_usd_nanos,
        "reserved_usd_nanos": view.reserved_usd_nanos,
        "left_usd_nanos": view.left_usd_nanos,
        "next_reserved_usd_nanos": view.next_reserved_usd_nanos,
        "crossed_percent": row.crossed_percent,
        "last_spent_usd_nanos": row.last_spent_usd_nanos,
        "usd_nanos_per_hour": purse.pace,
        "planned_usd_nanos_per_hour": _planned(purse),
        "ahead_usd_nanos": purse.ahead(0) if row.terms.burn is Burn.EVEN else 0,
        "exhausted_us": _exhausted_us(purse),
        "terms": to_data(row.terms),
    }


def _state(purse: Purse) -> str:
    """Name what the budget does to its jobs now."""
    return next((name for holds, name in _states(purse) if holds), "open")


def _states(purse: Purse) -> Iterable[tuple[bool, str]]:
    row, now_us = purse.view.row, purse.now_us
    once = row.terms.period is Period.ONCE
    spent = purse.view.spent_usd_nanos
    return (
        (once and now_us < row.from_us, "not yet"),
        (once and row.until_us is not None and now_us >= row.until_us, "over"),
        (opens_us(row.terms, now_us) > now_us, "closed hours"),
        (purse.is_at(Action.PAUSE), "pauses"),
        (purse.is_at(Action.HOLD), "holds new jobs"),
        (spent >= row.limit_usd_nanos, "used up" if row.terms.hard else "passed"),
        (purse.hard and purse.left <= 0, "all reserved"),
        (bool(purse.ahead(0)), "ahead of plan"),
        (purse.is_at(Action.DEPRIORITISE), "deprioritises"),
        (purse.is_at(Action.WARN), "warned"),
    )


def _planned(purse: Purse) -> int | None:
    """Give the rate at which the limit would last just to the end of its period."""
    row = purse.view.row
    if row.until_us is None or row.until_us <= row.from_us:
        return None
    return row.limit_usd_nanos * US_PER_HOUR // (row.until_us - row.from_us)


def _exhausted_us(purse: Purse) -> int | None:
    """Give when the limit is spent at the rate of now; None if that is not in this period."""
    row = purse.view.row
    rest = row.limit_usd_nanos - purse.view.spent_usd_nanos
    if not purse.pace or rest <= 0:
        return purse.now_us if rest <= 0 else None
    at_us = purse.now_us + rest * US_PER_HOUR // purse.pace
    return at_us if row.until_us is None or at_us < row.until_us else None
