"""What happens to budgets and reservations: a part of the journal's events (``jobs.events``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.budget import Action, Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyReserved:
    """An attempt may cost so much for each hour until an instant, by which it must have left.

    It replaces the attempt's reservation before it; the attempt's end voids what is left of it.
    """

    kind: Literal["money-reserved"] = "money-reserved"
    at_us: int
    attempt_id: str
    usd_nanos_per_hour: int
    until_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSet:
    """Somebody made a budget or changed its terms; its present period is that of ``at_us``."""

    kind: Literal["budget-set"] = "budget-set"
    at_us: int
    budget: str
    terms: Budget
    source: str  # "file" or "apply"
    from_us: int
    until_us: int | None
    carried_usd_nanos: int = 0  # into the present period
    by: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRemoved:
    """A budget holds nobody any more."""

    kind: Literal["budget-removed"] = "budget-removed"
    at_us: int
    budget: str
    by: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRolled:
    """A period ended at ``at_us`` and the next one began."""

    kind: Literal["budget-rolled"] = "budget-rolled"
    at_us: int
    budget: str
    spent_usd_nanos: int  # in the period that ended
    carried_usd_nanos: int  # into the one that began
    until_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetCrossed:
    """What was spent in the period passed a threshold."""

    kind: Literal["budget-crossed"] = "budget-crossed"
    at_us: int
    budget: str
    percent: int
    action: Action
    spent_usd_nanos: int
    limit_usd_nanos: int
