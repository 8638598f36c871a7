"""The auditor sees what is wrong: books are falsified in each way, and each is found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulated_day import day
from jobs.codec import to_data
from scheduler.audit import Books, audit, bill, summary
from scheduler.audit_store import audit_store, rows_of
from scheduler.simulator import simulate

ROOT = Path(__file__).resolve().parents[2]
Data = dict[str, Any]

pytestmark = pytest.mark.simulation


@cache
def true_books() -> Data:
    """The books of a short day, as plain data."""
    store = simulate(day(jobs=25, seed=11)).store
    assert audit_store(store) == []
    return {
        "records": [to_data(record) for record in store.records()],
        "rows": rows_of(store.load()),
        "entries": [to_data(entry) for entry in store.entries()],
    }


def findings(books: Data) -> list[str]:
    """The rules that the auditor finds broken."""
    return [f.rule for f in audit(Books(**books))]


def event(books: Data, kind: str, **wanted: Any) -> Data:
    """The first event of a kind (with these values)."""
    for record in books["records"]:
        found: Data = record["event"]
        if found["kind"] == kind and all(found[name] == value for name, value in wanted.items()):
            return found
    raise AssertionError(kind)


def usage(books: Data) -> Data:
    """A usage entry that an attempt shares in."""
    return next(e for e in books["entries"] if e["kind"] == "usage" and e["attempt_ids"])


def a_leg(books: Data) -> Data:
    """What an attempt pays in it."""
    legs = usage(books)["postings"]
    return next(leg for leg in legs if leg["account"].startswith("attempt:"))


def drop_record(books: Data) -> None:
    """A record is gone."""
    del books["records"][len(books["records"]) // 2]


def twice_submitted(books: Data) -> None:
    """A job was accepted twice."""
    first = next(r for r in books["records"] if r["event"]["kind"] == "job-submitted")
    books["records"].append({**first, "seq": books["records"][-1]["seq"] + 1})


def ended_twice(books: Data) -> None:
    """A job that is over ends again."""
    last = next(r for r in books["records"] if r["event"]["kind"] == "job-ended")
    books["records"].append({**last, "seq": books["records"][-1]["seq"] + 1})


def lost_job(books: Data) -> None:
    """A row is gone from the table."""
    books["rows"]["jobs"].pop(next(iter(books["rows"]["jobs"])))


def wrong_row(books: Data) -> None:
    """A row says something that the journal does not."""
    next(iter(books["rows"]["jobs"].values()))["evictions"] += 1


def overfull(books: Data) -> None:
    """More GPUs are held than the node has."""
    event(books, "attempt-leased")["gpu_milli"] = 64_000


def short_gang(books: Data) -> None:
    """A gang starts without one of its nodes."""
    lease = event(books, "attempt-leased")
    lease["node_ids"] = lease["node_ids"][:-1]


def unbalanced(books: Data) -> None:
    """A nano-dollar appears from nowhere."""
    a_leg(books)["usd_nanos"] += 1


def dearer(books: Data) -> None:
    """A bill is a nano-dollar too high, on both sides."""
    entry = usage(books)
    a_leg(books)["usd_nanos"] += 1
    entry["postings"][0]["usd_nanos"] -= 1


def listed_dearer(books: Data) -> None:
    """The list price of an interval is wrong, on both sides."""
    a_leg(books)["list_usd_nanos"] += 1
    usage(books)["postings"][0]["list_usd_nanos"] -= 1


def longer(books: Data) -> None:
    """A GPU-millisecond too much is booked, on both sides."""
    a_leg(books)["gpu_ms"] += 1
    usage(books)["postings"][0]["gpu_ms"] -= 1


def posted_twice(books: Data) -> None:
    """An entry is in the ledger twice."""
    books["entries"].append(deepcopy(usage(books)))


def missing_entry(books: Data) -> None:
    """An entry is gone."""
    books["entries"].remove(usage(books))


def negative_idle(books: Data) -> None:
    """An attempt pays too much and idle is negative, so that it balances."""
    entry, leg = usage(books), a_leg(books)
    extra = {**leg, "account": "idle:x", "usd_nanos": -5, "gpu_ms": 0, "list_usd_nanos": 0}
    leg["usd_nanos"] += 5
    entry["postings"].append(extra)


def reclassed_away(books: Data) -> None:
    """More useful time is moved to another class than there was."""
    entry, leg = deepcopy(usage(books)), a_leg(books)
    less = {**leg, **{unit: -3 * leg[unit] for unit in ("usd_nanos", "gpu_ms", "list_usd_nanos")}}
    more = {**leg, **{unit: 3 * leg[unit] for unit in ("usd_nanos", "gpu_ms", "list_usd_nanos")}}
    more["account"] = leg["account"].rpartition(":")[0] + ":stall"
    books["entries"].append({**entry, "id": "x", "kind": "reclass", "postings": [less, more]})


FORGERIES: list[tuple[Callable[[Data], None], str]] = [
    (drop_record, "legal"),
    (twice_submitted, "legal"),
    (ended_twice, "legal"),
    (lost_job, "fold"),
    (wrong_row, "fold"),
    (overfull, "legal"),
    (short_gang, "legal"),
    (unbalanced, "balance"),
    (dearer, "bill"),
    (listed_dearer, "bill"),
    (longer, "bill"),
    (posted_twice, "entries"),
    (missing_entry, "gaps"),
    (negative_idle, "negative"),
    (reclassed_away, "negative"),
]


@pytest.mark.parametrize(
    ("forge", "rule"), FORGERIES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_forgery_is_found(forge: Callable[[Data], None], rule: str) -> None:
    """Clean books with one falsehood are not clean, and the finding names the broken rule."""
    books = deepcopy(true_books())
    assert findings(books) == []
    forge(books)
    assert rule in findings(books)


def test_the_auditor_shares_no_code_with_what_it_audits() -> None:
    """It imports nothing of ours but its own files."""
    program = (
        "import sys, scheduler.audit as audit\n"
        "ours = ('jobs', 'cluster', 'checkpointing', 'scheduler')\n"
        "print(sorted(m for m in sys.modules if m.partition('.')[0] in ours))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    own = ["audit", "audit_budgets", "audit_fold", "audit_rows", "audit_schedules"]
    own = [f"scheduler.{name}" for name in own]
    assert done.stdout.strip() == str(["scheduler", *own])


def test_a_bill_is_the_sum_of_floors_over_stretches_at_one_price() -> None:
    """A third of an hour at two prices, cut at the change; the change is a new stretch."""
    steps = [(0, 1_000_000_001), (600_000_000, 2_000_000_000)]
    assert bill(steps, start_us=0, end_us=1_200_000_000) == 166_666_666 + 333_333_333
    assert bill(steps, start_us=700_000_000, end_us=700_000_000) == 0
    assert bill(steps, start_us=-3_600_000_000, end_us=0) == 1_000_000_001


def test_the_summary_is_plain_data() -> None:
    """`lowtide audit --json` prints it as it is."""
    assert summary([]) == {"clean": True, "findings": []}
    books = deepcopy(true_books())
    drop_record(books)
    told = summary(audit(Books(**books)))
    assert told["clean"] is False
    assert set(told["findings"][0]) == {"rule", "subject", "detail"}
