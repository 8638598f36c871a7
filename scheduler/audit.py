"""The independent auditor: does the journal give the rows, and does every nano-dollar tie?

It works on plain JSON data and shares no code with ``jobs`` (a test proves it), so it would catch
a mistake that the books and their makers share. Findings are values; none means clean.
``scheduler.audit_store`` reads the data out of a store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.audit_budgets import overspent
from scheduler.audit_fold import Fold
from scheduler.audit_rows import Row

_US_PER_HOUR = 3_600_000_000
_MILLI_US_PER_GPU_MS = 1_000_000
_LEGS = ("usd_nanos", "gpu_ms", "list_usd_nanos")
_JOB_ENDS = {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that should never be: which rule, about whom, and what was found."""

    rule: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What is audited: plain JSON data. ``rows`` is by table and id."""

    records: Iterable[Row]
    rows: Mapping[str, Mapping[str, Row]]
    entries: Iterable[Row]


def audit(books: Books) -> list[Finding]:
    """Check everything; an empty list is a clean audit."""
    fold = Fold()
    findings = [
        Finding(rule="legal", subject=record["subject"], detail=fault)
        for record in books.records
        for fault in fold.apply(record)
    ]
    return findings + audit_state(fold, rows=books.rows, entries=books.entries)


def audit_state(
    fold: Fold, *, rows: Mapping[str, Mapping[str, Row]], entries: Iterable[Row]
) -> list[Finding]:
    """Check rows and entries against a journal that was folded already."""
    ledger = _Ledger(entries)
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        lambda: _rows_agree(fold, rows),
        lambda: _nothing_lost(fold),
        ledger.balance,
        lambda: ledger.nodes_tie(fold),
        lambda: ledger.leases_tie(fold),
        lambda: ledger.budgets_hold(fold),
    )
    return [finding for check in checks for finding in check()]


def _rows_agree(fold: Fold, rows: Mapping[str, Mapping[str, Row]]) -> Iterator[Finding]:
    """Folding the journal gives the rows."""
    for table, told in fold.rows.items():
        kept = rows.get(table, {})
        for row_id in sorted(told.keys() | kept.keys()):
            mine, theirs = told.get(row_id), kept.get(row_id)
            if mine != theirs:
                yield Finding(
                    rule="fold", subject=f"{table}/{row_id}", detail=_difference(mine, theirs)
                )


def _difference(mine: Row | None, theirs: Row | None) -> str:
    if mine is None or theirs is None:
        return "it is in the journal only" if theirs is None else "it is in the rows only"
    fields = sorted(mine.keys() | theirs.keys())
    unlike = [f for f in fields if mine.get(f, "absent") != theirs.get(f, "absent")]
    return "; ".join(
        f"{f}: journal {mine.get(f, 'absent')!r}, row {theirs.get(f, 'absent')!r}" for f in unlike
    )


def _nothing_lost(fold: Fold) -> Iterator[Finding]:
    """Every job is queued, live with one open lease, or ended; nobody else holds anything."""
    live: dict[str, list[str]] = defaultdict(list)
    for attempt in fold.rows["attempts"].values():
        if attempt["ended_us"] is None:
            live[attempt["job_id"]].append(attempt["id"])
    for job in fold.rows["jobs"].values():
        expected = [job["attempt_id"]] if job["attempt_id"] else []
        if live[job["id"]] != expected:
            yield Finding(
                rule="jobs",
                subject=job["id"],
                detail=f"{job['state']} with attempt {expected}, but {live[job['id']]} live",
            )
        if (job["state"] in {"admitted", "running"}) != bool(expected):
            yield Finding(
                rule="jobs", subject=job["id"], detail=f"{job['state']} with attempt {expected}"
            )
        if (job["state"] in _JOB_ENDS) != (job["ended_us"] is not None):
            yield Finding(
                rule="jobs", subject=job["id"], detail=f"{job['state']}, ended {job['ended_us']}"
            )
    yield from _leases_fit(fold)


def _leases_fit(fold: Fold) -> Iterator[Finding]:
    """A lease is open exactly while its attempt is live."""
    for lease in fold.rows["leases"].values():
        attempt = fold.rows["attempts"][lease["attempt_id"]]
        if attempt["ended_us"] != lease["released_us"]:
            yield Finding(
                rule="leases",
                subject=lease["id"],
                detail=f"released {lease['released_us']}, attempt ended {attempt['ended_us']}",
            )


def bill(steps: Iterable[tuple[int, int]], *, start_us: int, end_us: int) -> int:
    """Give the nano-dollars of [start, end) at step prices (from_us, nanos per hour).

    Each stretch at one price costs ``floor(price x length)``; the first price also holds before
    it was first seen.
    """
    ordered = list(steps)
    total = 0
    for index, (from_us, price) in enumerate(ordered):
        until_us = ordered[index + 1][0] if index + 1 < len(ordered) else end_us
        begin = start_us if index == 0 else max(start_us, from_us)
        length = min(end_us, until_us) - begin
        total += price * length // _US_PER_HOUR if length > 0 else 0
    return total


class _Ledger:
    """Entries sorted by whom they are about."""

    def __init__(self, entries: Iterable[Row]) -> None:
        self._entries = list(entries)
        self._usage: dict[str, list[Row]] = defaultdict(list)
        self._held: dict[str, int] = defaultdict(int)  # attempt -> GPU-ms over all classes
        self._pieces: dict[str, int] = defaultdict(int)  # attempt -> roundings
        self._accounts: dict[str, Row] = defaultdict(lambda: dict.fromkeys(_LEGS, 0))
        for entry in self._entries:
            if entry["kind"] == "usage":
                self._usage[entry["node_id"]].append(entry)
            for leg in entry["postings"]:
                for unit in _LEGS:
                    self._accounts[leg["account"]][unit] += leg[unit]
                kind, _, rest = leg["account"].partition(":")
                if kind == "attempt":
                    attempt_id = rest.rpartition(":")[0]
                    self._held[attempt_id] += leg["gpu_ms"]
                    self._pieces[attempt_id] += 1

    def balance(self) -> Iterator[Finding]:
        """Every entry balances, none comes twice, and no usage is negative."""
        seen: set[str] = set()
        for entry in self._entries:
            if entry["id"] in seen:
                yield Finding(rule="entries", subject=entry["id"], detail="posted twice")
            seen.add(entry["id"])
            for unit in _LEGS:
                off = sum(leg[unit] for leg in entry["postings"])
                if off:
                    yield Finding(
                        rule="balance", subject=entry["id"], detail=f"off by {off} {unit}"
                    )
            yield from _negative_shares(entry)
        for account, amounts in self._accounts.items():
            if not account.startswith("provider:") and min(amounts.values()) < 0:
                yield Finding(rule="negative", subject=account, detail=f"balance {amounts}")

    def nodes_tie(self, fold: Fold) -> Iterator[Finding]:
        """Per node: shares + idle + overhead = the bill, and held + idle = capacity x time."""
        for node_id in sorted(self._usage.keys() - fold.rows["nodes"].keys()):
            yield Finding(rule="bill", subject=node_id, detail="billed, but unknown")
        for node in fold.rows["nodes"].values():
            usage = sorted(self._usage.get(node["id"], ()), key=lambda entry: entry["start_us"])
            yield from self._node_ties(node, usage, fold.prices.get(node["flavor"], []))

    def _node_ties(
        self, node: Row, usage: list[Row], prices: list[tuple[int, int, int]]
    ) -> Iterator[Finding]:
        start_us = node["booting_us"]
        if start_us is None:
            if usage:
                yield Finding(rule="bill", subject=node["id"], detail="billed, but never booted")
            return
        end_us = usage[-1]["end_us"] if usage else start_us
        if node["gone_us"] is not None and node["gone_us"] != end_us:
            detail = f"gone at {node['gone_us']}, billed until {end_us}"
            yield Finding(rule="bill", subject=node["id"], detail=detail)
        yield from _gaps(node["id"], usage, start_us)
        expected = (
            ("usd_nanos", bill(((t, p) for t, p, _ in prices), start_us=start_us, end_us=end_us)),
            (
                "list_usd_nanos",
                bill(((t, p) for t, _, p in prices), start_us=start_us, end_us=end_us),
            ),
            ("gpu_ms", node["gpu_milli"] * (end_us - start_us) // _MILLI_US_PER_GPU_MS),
        )
        for unit, due in expected:
            origin, shared = _totals(usage, unit)
            if (origin, shared) != (due, due):
                detail = f"{unit}: due {due}, charged {origin}, shared out {shared}"
                yield Finding(rule="bill", subject=node["id"], detail=detail)

    def leases_tie(self, fold: Fold) -> Iterator[Finding]:
        """The classes of a closed lease add up to the GPU time that it held, within roundings."""
        for lease in fold.rows["leases"].values():
            if lease["released_us"] is None:
                continue
            due = sum(_held_gpu_ms(lease, fold.rows["nodes"][n]) for n in lease["node_ids"])
            booked = self._held[lease["attempt_id"]]
            if abs(booked - due) > self._pieces[lease["attempt_id"]] + len(lease["node_ids"]):
                yield Finding(
                    rule="leases",
                    subject=lease["id"],
                    detail=f"held {due} GPU-ms, classes add up to {booked}",
                )

    def budgets_hold(self, fold: Fold) -> Iterator[Finding]:
        """Reserved + spent <= limit at every instant, for every hard budget."""
        found = overspent(fold.money, jobs=fold.rows["jobs"], entries=self._entries)
        for budget, detail in found:
            yield Finding(rule="budget", subject=budget, detail=detail)


def _negative_shares(entry: Row) -> Iterator[Finding]:
    if entry["kind"] != "usage":
        return
    for leg in entry["postings"]:
        sign = -1 if leg["account"].startswith("provider:") else 1
        if any(sign * leg[unit] < 0 for unit in _LEGS):
            yield Finding(rule="negative", subject=entry["id"], detail=leg["account"])


def _gaps(node_id: str, usage: list[Row], start_us: int) -> Iterator[Finding]:
    for entry in usage:
        if entry["start_us"] != start_us or entry["end_us"] < start_us:
            detail = f"billed until {start_us}, then {entry['start_us']}-{entry['end_us']}"
            yield Finding(rule="gaps", subject=node_id, detail=detail)
        start_us = entry["end_us"]


def _totals(usage: list[Row], unit: str) -> tuple[int, int]:
    """Give what the provider charged and what was shared out, both positive."""
    origin = shared = 0
    for entry in usage:
        for leg in entry["postings"]:
            if leg["account"].startswith("provider:"):
                origin -= leg[unit]
            else:
                shared += leg[unit]
    return origin, shared


def _held_gpu_ms(lease: Row, node: Row) -> int:
    if node["booting_us"] is None:
        return 0
    start_us = max(lease["granted_us"], node["booting_us"])
    length: int = max(0, lease["released_us"] - start_us)
    return int(lease["gpu_milli"]) * length // _MILLI_US_PER_GPU_MS


def summary(findings: Iterable[Finding]) -> dict[str, Any]:
    """Give findings as plain data for ``lowtide audit --json``."""
    listed = [
        {"rule": finding.rule, "subject": finding.subject, "detail": finding.detail}
        for finding in findings
    ]
    return {"clean": not listed, "findings": listed}
