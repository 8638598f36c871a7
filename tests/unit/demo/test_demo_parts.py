"""The demo's table and proofs: they say NO when something is wrong."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from jobs.codec import to_data
from jobs.ledger.statement import overview, statement
from scheduler.demo.cast import KILL_ROLE, NOTICE_ROLE, parts
from scheduler.demo.proof import audit_clean, books_tie, digest_in, equal_bytes
from scheduler.demo.table import closing_table, make_row


def books(**changes: int) -> dict[str, Any]:
    """Give an overview in which one job (60), idle (30) and overhead (10) make the bill (100)."""
    parts_of = {"idle": 30, "overhead": 10, "bill": 100, **changes}
    return {
        "jobs": {"a": {"total": {"usd_nanos": parts_of.pop("job", 60)}}},
        **{name: {"usd_nanos": amount} for name, amount in parts_of.items()},
    }


def test_the_books_tie_to_the_nano_or_the_proof_fails() -> None:
    """One nano-dollar too much is too much; an empty bill proves nothing."""
    assert books_tie(books()).holds
    assert not books_tie(books(bill=101)).holds
    assert not books_tie(books(job=0, idle=0, overhead=0, bill=0)).holds


def test_equal_bytes_need_an_eviction_and_equal_digests() -> None:
    """A job that was never evicted, or whose digest is missing, proves nothing."""
    ours = digest_in(f"noise\nweights blake3 {'a' * 64}\n")
    assert equal_bytes("x", evictions=1, ours=ours, plain="a" * 64).holds
    assert not equal_bytes("x", evictions=0, ours=ours, plain="a" * 64).holds
    assert not equal_bytes("x", evictions=1, ours=ours, plain="b" * 64).holds
    assert not equal_bytes("x", evictions=1, ours=None, plain=None).holds


def test_a_finding_fails_the_audit_proof() -> None:
    """What the auditor found is shown."""
    assert audit_clean({"findings": []}).holds
    assert "negative idle" in audit_clean({"findings": ["negative idle"]}).detail


def test_the_cast_covers_what_the_demo_promises() -> None:
    """Six jobs and more, a gang, a tight deadline, a window, and both kinds of eviction."""
    specs = [part.spec() for part in parts()]
    assert len(specs) >= 6
    assert {NOTICE_ROLE, KILL_ROLE} <= {part.shows for part in parts()}
    assert sum(spec.get("nodes", 1) == 2 for spec in specs) == 1
    assert sum("deadline" in spec for spec in specs) == 2


def test_the_table_fits_its_page_and_shows_every_job() -> None:
    """Also a job that never held a GPU."""
    detail = {
        "job": {
            "id": "a-1",
            "spec": {"name": "a"},
            "state": "queued",
            "attempts": 0,
            "evictions": 0,
            "waited_ms": 5,
        },
        "attempts": [],
    }
    row = make_row(detail, to_data(statement("a-1", [])), shows="waiting")
    console = Console(width=112)
    with console.capture() as captured:
        console.print(closing_table([row], to_data(overview([]))))
    lines = captured.get().splitlines()
    assert any("queued" in line for line in lines)
    assert max(len(line) for line in lines) <= 112
