"""The numbers of a simulation, from its ledger and rows. The names are a contract (POLICY.md)."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from jobs.codec import encode
from jobs.durations import US_PER_MS, US_PER_S
from jobs.ledger.accounts import RESTART_CLASSES, CostClass, split_attempt_account
from jobs.ledger.entries import Posting
from jobs.ledger.split import US_PER_HOUR
from jobs.rows import AttemptRow, JobRow
from jobs.spec import NANOS_PER_USD
from jobs.states import JobState
from scheduler.budget_report import budget_rows
from scheduler.sim_bound import Floor, lower_bound
from scheduler.sim_probes import probes
from scheduler.sim_unmet import missed, unmet
from scheduler.simulation import Result

_MS_PER_HOUR = US_PER_HOUR // US_PER_MS
Row = dict[str, Any]


@dataclass(slots=True)
class Tally:
    """Money and GPU time of one owner, by time class."""

    usd_nanos: int = 0
    gpu_ms: dict[CostClass, int] = field(default_factory=lambda: dict.fromkeys(CostClass, 0))

    def add(self, leg: Posting, cost_class: CostClass) -> None:
        """Count one leg."""
        self.usd_nanos += leg.usd_nanos
        self.gpu_ms[cost_class] += leg.gpu_ms

    def hours(self, classes: Iterable[CostClass]) -> float:
        """GPU-hours in these classes."""
        return _hours(sum(self.gpu_ms[one] for one in classes))


@dataclass(slots=True)
class Ledgered:
    """The whole ledger, added up."""

    total: Tally = field(default_factory=Tally)
    jobs: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    bill_nanos: int = 0
    paid_gpu_ms: int = 0
    idle_gpu_ms: int = 0


def report(result: Result, *, floor: Floor | None = None) -> Row:
    """Give everything that ``lowtide simulate --json`` prints; ``floor`` if it is known already."""
    sums = add_up(result)
    journal_hash, decisions = read_journal(result)
    egress = sum(egress_nanos(result).values())
    cost_usd = _usd(sums.bill_nanos + egress)
    bound = floor or lower_bound(result)
    jobs = list(result.jobs.values())
    return {
        "policy": result.policy,
        "jobs": len(result.scenario.arrivals),
        "refused": len(result.refused),
        "cost_usd": cost_usd,
        "egress_usd": _usd(egress),
        **probes(result),
        "bound_usd": None if bound.usd is None else round(bound.usd, 9),
        "bound_kind": bound.kind,
        "bound_jobs": bound.covers,
        "regret": regret(_done_usd(result, sums, cost_usd), bound.usd),
        "deadline_misses": sum(missed(result, job) for job in jobs),
        "unfinished": sum(not job.ended for job in jobs),
        "evictions": sum(job.evictions for job in jobs),
        "useful_gpu_h": sums.total.hours([CostClass.USEFUL]),
        "restart_gpu_h": sums.total.hours(RESTART_CLASSES),
        "lost_gpu_h": sums.total.hours([CostClass.LOST]),
        "checkpoint_gpu_h": sums.total.hours([CostClass.CHECKPOINT]),
        "idle_gpu_h": _hours(sums.idle_gpu_ms),
        "wait_s": _spread([_waited_s(result, job) for job in jobs]),
        "utilization": _ratio(sums.total.gpu_ms[CostClass.USEFUL], sums.paid_gpu_ms),
        "wall_s": round(result.wall_s, 3),
        "decisions": decisions,
        "per_team": _per_team(result, sums),
        "unmet": unmet(result),
        "budgets": budget_rows(result),
        "not_applied": [],
        "journal_hash": journal_hash,
    }


def job_rows(result: Result, *, floor: Floor | None = None) -> list[Row]:
    """Give a row per submitted job, in order of submission, for ``--jobs-out``."""
    sums, egress = add_up(result), egress_nanos(result)
    bounds = (floor or lower_bound(result)).each
    rows = [
        _job_row(result, job, sums.jobs[job.id], egress.get(job.id, 0))
        | _job_regret(_usd(sums.jobs[job.id].usd_nanos + egress.get(job.id, 0)), bounds.get(job.id))
        for job in result.jobs.values()
    ]
    start_us = result.scenario.start_us
    rows += [
        {
            "name": one.arrival.spec.label,
            "team": one.arrival.spec.team,
            "state": "refused",
            "reason": one.error.cause,
            "submit_s": (one.arrival.at_us - start_us) / US_PER_S,
        }
        for one in result.refused
    ]
    return sorted(rows, key=lambda row: (row["submit_s"], row["name"]))


def add_up(result: Result) -> Ledgered:
    """Read the ledger once."""
    sums = Ledgered()
    for entry in result.store.entries():
        for leg in entry.postings:
            owner = split_attempt_account(leg.account)
            if owner is not None:
                sums.total.add(leg, owner[1])
                sums.jobs[owner[0].rpartition("/")[0]].add(leg, owner[1])
            elif leg.account.startswith("provider:"):
                sums.bill_nanos -= leg.usd_nanos
                sums.paid_gpu_ms -= leg.gpu_ms
            elif leg.account.startswith("idle:"):
                sums.idle_gpu_ms += leg.gpu_ms
    return sums


def read_journal(result: Result) -> tuple[str, int]:
    """Give the SHA-256 of the whole journal and how many of its records a plan decided."""
    digest, decisions = hashlib.sha256(), 0
    for record in result.store.records():
        digest.update(encode(record))
        decisions += record.cause == "plan"
    return digest.hexdigest(), decisions


def egress_nanos(result: Result) -> dict[str, int]:
    """Give what moving checkpoints between regions costs, by job (outside the ledger)."""
    prices, flavors = result.scenario.egress_nanos_per_gb, result.scenario.flavors
    costs: dict[str, int] = defaultdict(int)
    last: dict[str, AttemptRow] = {}
    for attempt in result.attempts.values() if prices else ():
        before = last.get(attempt.job_id)
        last[attempt.job_id] = attempt
        if before is None or not attempt.first_step:
            continue
        pair = (flavors[before.flavor].region, flavors[attempt.flavor].region)
        gb = result.jobs[attempt.job_id].spec.checkpoint_gb
        costs[attempt.job_id] += int(prices.get(pair, 0) * gb)
    return dict(costs)


def regret(cost_usd: float, bound_usd: float | None) -> float | None:
    """Give cost / bound; 1 where neither cost anything, None where only the bound is nothing."""
    if not bound_usd:
        return 1.0 if bound_usd is not None and not cost_usd else None
    return round(cost_usd / bound_usd, 6)


def _done_usd(result: Result, sums: Ledgered, cost_usd: float) -> float:
    """Give the bill without what went into jobs that were not done: the bound is about the rest."""
    egress = egress_nanos(result)
    undone = [job.id for job in result.jobs.values() if job.state is not JobState.SUCCEEDED]
    nanos = sum(sums.jobs[job_id].usd_nanos + egress.get(job_id, 0) for job_id in undone)
    return round(cost_usd - _usd(nanos), 9)


def _job_regret(cost_usd: float, bound_usd: float | None) -> Row:
    shown = None if bound_usd is None else round(bound_usd, 9)
    return {"bound_usd": shown, "regret": regret(cost_usd, bound_usd)}


def _waited_s(result: Result, job: JobRow) -> float:
    waiting_us = result.ended_us - job.queued_us if job.state is JobState.QUEUED else 0
    return (job.waited_ms * US_PER_MS + max(0, waiting_us)) / US_PER_S


def _spread(values: list[float]) -> dict[str, float]:
    """Give mean, median and 95th percentile (nearest rank); zeros of nothing."""
    ordered = sorted(values)

    def at(percent: int) -> float:
        rank = max(1, math.ceil(len(ordered) * percent / 100))
        return round(ordered[rank - 1], 3) if ordered else 0.0

    mean = round(sum(ordered) / len(ordered), 3) if ordered else 0.0
    return {"mean": mean, "p50": at(50), "p95": at(95)}


def _per_team(result: Result, sums: Ledgered) -> dict[str, Row]:
    teams: dict[str, list[JobRow]] = defaultdict(list)
    for job in result.jobs.values():
        teams[job.spec.team].append(job)
    return {
        team: {
            "jobs": len(jobs),
            "cost_usd": _usd(sum(sums.jobs[job.id].usd_nanos for job in jobs)),
            "useful_gpu_h": round(
                sum(sums.jobs[job.id].hours([CostClass.USEFUL]) for job in jobs), 6
            ),
            "deadline_misses": sum(missed(result, job) for job in jobs),
            "unfinished": sum(not job.ended for job in jobs),
            "wait_s": _spread([_waited_s(result, job) for job in jobs]),
        }
        for team, jobs in sorted(teams.items())
    }


def _job_row(result: Result, job: JobRow, tally: Tally, egress: int) -> Row:
    start_us = result.scenario.start_us
    return {
        "name": job.spec.label,
        "id": job.id,
        "team": job.spec.team,
        "state": str(job.state) if job.ended else "unfinished",
        "reason": str(job.reason),
        "submit_s": (job.submitted_us - start_us) / US_PER_S,
        "end_s": None if job.ended_us is None else (job.ended_us - start_us) / US_PER_S,
        "deadline_s": None if job.deadline_us is None else (job.deadline_us - start_us) / US_PER_S,
        "missed": missed(result, job),
        "wait_s": _waited_s(result, job),
        "attempts": job.attempts,
        "evictions": job.evictions,
        "preemptions": job.preemptions,
        "cost_usd": _usd(tally.usd_nanos + egress),
        "useful_gpu_h": tally.hours([CostClass.USEFUL]),
        "restart_gpu_h": tally.hours(RESTART_CLASSES),
        "lost_gpu_h": tally.hours([CostClass.LOST]),
        "checkpoint_gpu_h": tally.hours([CostClass.CHECKPOINT]),
    }


def _usd(nanos: int) -> float:
    return round(nanos / NANOS_PER_USD, 9)


def _hours(gpu_ms: int) -> float:
    return round(gpu_ms / _MS_PER_HOUR, 6)


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
