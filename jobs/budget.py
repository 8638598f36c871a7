"""What a budget says: whose money, how much, for which time, and what happens on the way.

A budget's owner is a set of tags that a job must have, all of them: ``team``, ``job`` (the job's
id), or any tag of the spec. Several budgets may apply to one job; all must hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from jobs.spec import JobSpec

Owner = tuple[tuple[str, str], ...]
"""Tags and their values, sorted by tag; empty = every job."""


class Period(StrEnum):
    """For how long a limit holds before the money begins anew."""

    DAY = "day"
    WEEK = "week"  # Monday to Sunday
    MONTH = "month"
    ONCE = "once"  # from one instant to another
    TOTAL = "total"  # for ever


class Burn(StrEnum):
    """How fast the money of a period may go."""

    FREE = "free"
    EVEN = "even"  # no faster than the period passes, plus an allowance


class Action(StrEnum):
    """What happens at a threshold. Each one includes those before it."""

    WARN = "warn"
    DEPRIORITISE = "deprioritise"  # its waiting jobs start after all others
    HOLD = "hold"  # its waiting jobs do not start
    PAUSE = "pause"  # its running attempts save and leave, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A share of the limit, and what happens when so much is spent."""

    percent: int
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """Local hours in which money may be spent; ``end_s <= start_s`` runs over midnight."""

    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)  # Monday = 0, the day on which they begin
    start_s: int = 0
    end_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit in money. ``hard``: reserved + spent never pass it; soft ones may be passed."""

    name: str
    owner: Owner
    limit_usd_nanos: int
    period: Period = Period.TOTAL
    time_zone: str = "UTC"
    from_us: int | None = None  # with ``once``
    until_us: int | None = None
    hours: tuple[Hours, ...] = ()  # empty = at any time
    hard: bool = True
    thresholds: tuple[Threshold, ...] = ()  # by rising percent
    burn: Burn = Burn.FREE
    allowance_percent: int = 10  # of the limit, which an even burn may run ahead
    carry_over_percent: int = 0  # most that is carried into the next period, of the limit


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetChanges:
    """What somebody asks for: these budgets as they stand here, and those to be removed.

    With ``all_of_them`` every budget that was applied and is not among these goes, too.
    """

    budgets: tuple[Budget, ...] = ()
    remove: tuple[str, ...] = ()
    all_of_them: bool = False
    by: str = ""
    why: str = ""


def own_budget(job_id: str, spec: JobSpec) -> Budget | None:
    """Give the budget that a job brought along (``budget_usd``), None without one."""
    limit = spec.budget_nanos
    if limit is None:
        return None
    return Budget(name=f"budget_usd of {job_id}", owner=(("job", job_id),), limit_usd_nanos=limit)


def pays_for(owner: Owner, *, job_id: str, spec: JobSpec) -> bool:
    """Whether the owner's money pays for the job."""
    return all(_tag(name, job_id=job_id, spec=spec) == value for name, value in owner)


def _tag(name: str, *, job_id: str, spec: JobSpec) -> str | None:
    match name:
        case "team":
            return spec.team
        case "job":
            return job_id
        case _:
            return spec.tags.get(name)


def show_owner(owner: Owner) -> str:
    """Write an owner for people: ``team=ads, product=search``."""
    return ", ".join(f"{name}={value}" for name, value in owner) or "everybody"
