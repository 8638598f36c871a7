"""What a job cost and why, and what everything cost: sums over ledger entries.

All amounts are integers (nano-dollars, GPU-milliseconds); the one ratio, the effective cost per
useful GPU-hour, is rounded down to the nano.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobs.ledger.accounts import RESTART_CLASSES, CostClass, split_attempt_account
from jobs.ledger.entries import Entry

MS_PER_HOUR = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Money paid, GPU time held, and the same share at the on-demand price of the hour."""

    usd_nanos: int = 0
    gpu_ms: int = 0
    list_usd_nanos: int = 0

    def __add__(self, other: Amount) -> Amount:
        """Add leg by leg."""
        return Amount(
            usd_nanos=self.usd_nanos + other.usd_nanos,
            gpu_ms=self.gpu_ms + other.gpu_ms,
            list_usd_nanos=self.list_usd_nanos + other.list_usd_nanos,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One job's charges by time class, with the named figures of LEDGER."""

    job_id: str
    classes: Mapping[str, Amount]  # CostClass -> amount; every class is there
    total: Amount
    useful_gpu_ms: int
    restart_gpu_ms: int  # lost + restore + repeat startup + drain
    restart_usd_nanos: int
    effective_usd_nanos_per_useful_gpu_hour: int | None  # None while nothing useful was done
    net_spot_saving_usd_nanos: int  # on-demand price of useful work and one startup - all paid
    goodput_gpu_ppm: int | None  # useful / held, parts per million


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Everything that was paid: the jobs' shares + idle + overhead = the nodes' bill."""

    jobs: Mapping[str, Statement]
    idle: Amount
    overhead: Amount
    bill: Amount
    difference_usd_nanos: int  # 0, or a bug


def attempt_totals(entries: Iterable[Entry]) -> dict[tuple[str, CostClass], Amount]:
    """Add up the postings of attempts by (attempt id, class)."""
    totals: dict[tuple[str, CostClass], Amount] = {}
    for account, amount in _account_totals(entries).items():
        owner = split_attempt_account(account)
        if owner is not None:
            totals[owner] = amount
    return totals


def statement(job_id: str, entries: Iterable[Entry]) -> Statement:
    """Give one job's statement from the entries that touch its attempts."""
    totals = attempt_totals(entries)  # an entry of a shared node has the legs of other jobs too
    mine = {owner: amount for owner, amount in totals.items() if job_of(owner[0]) == job_id}
    return _statement(job_id, mine)


def overview(entries: Iterable[Entry]) -> Overview:
    """Give every job's statement and the tie to the bill."""
    accounts = _account_totals(entries)
    by_job: dict[str, dict[tuple[str, CostClass], Amount]] = {}
    groups = {"idle": Amount(), "overhead": Amount(), "provider": Amount()}
    for account, amount in accounts.items():
        owner = split_attempt_account(account)
        if owner is not None:
            by_job.setdefault(job_of(owner[0]), {})[owner] = amount
        else:
            kind = account.partition(":")[0]
            groups[kind] += amount
    jobs = {job_id: _statement(job_id, totals) for job_id, totals in by_job.items()}
    charged = sum((one.total for one in jobs.values()), groups["idle"] + groups["overhead"])
    bill = _negated(groups["provider"])
    return Overview(
        jobs=jobs,
        idle=groups["idle"],
        overhead=groups["overhead"],
        bill=bill,
        difference_usd_nanos=bill.usd_nanos - charged.usd_nanos,
    )


def job_of(attempt_id: str) -> str:
    """Give the job of an attempt id (``<job>/<number>``)."""
    return attempt_id.rpartition("/")[0]


def _account_totals(entries: Iterable[Entry]) -> dict[str, Amount]:
    totals: dict[str, list[int]] = {}
    for entry in entries:
        for leg in entry.postings:
            sums = totals.setdefault(leg.account, [0, 0, 0])
            sums[0] += leg.usd_nanos
            sums[1] += leg.gpu_ms
            sums[2] += leg.list_usd_nanos
    return {
        account: Amount(usd_nanos=usd, gpu_ms=ms, list_usd_nanos=listed)
        for account, (usd, ms, listed) in totals.items()
    }


def _statement(job_id: str, totals: Mapping[tuple[str, CostClass], Amount]) -> Statement:
    classes = {cost_class: Amount() for cost_class in CostClass}
    for (_, cost_class), amount in totals.items():
        classes[cost_class] += amount
    total = sum(classes.values(), Amount())
    useful, startup = classes[CostClass.USEFUL], classes[CostClass.STARTUP]
    restart = sum((classes[one] for one in sorted(RESTART_CLASSES)), Amount())
    return Statement(
        job_id=job_id,
        classes={str(name): amount for name, amount in classes.items()},
        total=total,
        useful_gpu_ms=useful.gpu_ms,
        restart_gpu_ms=restart.gpu_ms,
        restart_usd_nanos=restart.usd_nanos,
        effective_usd_nanos_per_useful_gpu_hour=_ratio(
            total.usd_nanos * MS_PER_HOUR, useful.gpu_ms
        ),
        net_spot_saving_usd_nanos=useful.list_usd_nanos + startup.list_usd_nanos - total.usd_nanos,
        goodput_gpu_ppm=_ratio(useful.gpu_ms * 1_000_000, total.gpu_ms),
    )


def _ratio(numerator: int, denominator: int) -> int | None:
    return numerator // denominator if denominator else None


def _negated(amount: Amount) -> Amount:
    return Amount(
        usd_nanos=-amount.usd_nanos,
        gpu_ms=-amount.gpu_ms,
        list_usd_nanos=-amount.list_usd_nanos,
    )
