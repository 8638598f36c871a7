"""What a job was quoted when it was submitted: kept in the journal, to be compared with the end.

Amounts are nano-dollars, instants microseconds. A percentile is None where too many of the futures
that were looked at never came to that point.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """P50 and P95 of cost, start and finish, and the share of futures that miss the deadline."""

    at_us: int
    policy: str
    futures: int  # how many were looked at
    cost_p50_usd_nanos: int | None
    cost_p95_usd_nanos: int | None
    start_p50_us: int | None
    start_p95_us: int | None
    finish_p50_us: int | None
    finish_p95_us: int | None
    miss_permille: int = 0  # of the futures; 0 without a deadline
    per_hour: bool = False  # no work estimate: for one hour of work


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotedWay:
    """Another way to ask for the same work, and what it would come to."""

    name: str  # "start now", "on-demand now", "deadline", "yours", "no deadline"
    deadline_us: int | None
    quoted: Quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The answer for a spec, and for other ways to ask."""

    name: str
    deadline_us: int | None
    budget_usd_nanos: int | None
    quoted: Quoted
    starts_permille: tuple[tuple[str, int], ...]  # by flavor: where the futures start
    evictions_permille: int  # mean over the futures
    ahead: int  # jobs that go before it
    notes: tuple[str, ...] = ()  # what is missing, or wrong, in one sentence each
    ways: tuple[QuotedWay, ...] = ()  # start at once; on sure capacity only
    curve: tuple[QuotedWay, ...] = ()  # by deadline, ascending; None = no deadline
