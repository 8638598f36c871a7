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
