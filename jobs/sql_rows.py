"""Rows, records and entries as columns of ``jobs.sql_tables``, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pydantic import Field

from jobs.codec import decode, encode
from jobs.events import Event, Record
from jobs.hash_chain import next_hash
from jobs.ledger.accounts import split_attempt_account
from jobs.ledger.entries import Entry, Posting
from jobs.recurrence import ScheduleRow
from jobs.rows import AttemptRow, BudgetRow, FlavorRow, JobRow, LeaseRow, NodeRow

Columns = dict[str, Any]
"""The values of one row of a table, by column."""

KINDS: dict[str, type] = {
    "jobs": JobRow,
    "attempts": AttemptRow,
    "leases": LeaseRow,
    "nodes": NodeRow,
    "flavors": FlavorRow,
    "budgets": BudgetRow,
    "schedules": ScheduleRow,
}
"""What each table of the present holds."""

_EVENT = Annotated[Event, Field(discriminator="kind")]

_EXTRA: dict[str, Callable[[Any], Columns]] = {
    "jobs": lambda row: {
        "state": row.state.value,
        "team": without_nul(row.spec.team),
        "submitted_us": row.submitted_us,
    },
    "attempts": lambda row: {
        "state": row.state.value,
        "job_id": row.job_id,
        "number": row.number,
    },
    "leases": lambda row: {"attempt_id": row.attempt_id},
    "nodes": lambda row: {"state": row.state.value, "requested_us": row.requested_us},
    "flavors": lambda _row: {},
    "budgets": lambda _row: {},
    "schedules": lambda _row: {},
}


def without_nul(text: str) -> str:
    """Give text that people chose as PostgreSQL can keep it: it has no NUL in a column."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def present_columns(table: str, row_id: str, row: object) -> Columns:
    """Give the columns of a row of the present."""
    return {"id": row_id, "body": encode(row).decode(), **_EXTRA[table](row)}


def read_row(table: str, body: str) -> Any:  # noqa: ANN401 - the kind follows from the table
    """Read a row of the present."""
    return decode(body, into=KINDS[table])


def record_columns(record: Record) -> Columns:
    """Give the columns of a journal record."""
    return {
        "seq": record.seq,
        "at_us": record.event.at_us,
        "subject": record.subject,
        "kind": record.event.kind,
        "cause": record.cause,
        "body": encode(record.event).decode(),
    }


def read_record(seq: int, subject: str, cause: str, body: str) -> Record:
    """Read a journal record."""
    event: Event = decode(body, into=_EVENT)
    return Record(seq=seq, subject=subject, event=event, cause=cause)


def entry_columns(entry: Entry, *, pos: int, prev_hash: str, body: str) -> Columns:
    """Give the columns of a ledger entry that follows ``prev_hash``."""
    return {
        "pos": pos,
        "id": entry.id,
        "kind": entry.kind.value,
        "posted_us": entry.posted_us,
        "start_us": entry.start_us,
        "end_us": entry.end_us,
        "node_id": entry.node_id,
        "flavor": entry.flavor,
        "prev_hash": prev_hash,
        "hash": next_hash(prev_hash, body=body),
        "body": body,
    }


def posting_columns(entry: Entry, *, pos: int) -> Iterator[Columns]:
    """Give the columns of each leg of an entry."""
    for leg, posting in enumerate(entry.postings):
        attempt_id, job_id, cost_class = _owner(posting)
        yield {
            "entry_pos": pos,
            "leg": leg,
            "account": posting.account,
            "usd_nanos": posting.usd_nanos,
            "gpu_ms": posting.gpu_ms,
            "list_usd_nanos": posting.list_usd_nanos,
            "attempt_id": attempt_id,
            "job_id": job_id,
            "cost_class": cost_class,
        }


def _owner(posting: Posting) -> tuple[str, str, str] | tuple[None, None, None]:
    owner = split_attempt_account(posting.account)
    if owner is None:
        return None, None, None
    attempt_id, cost_class = owner
    return attempt_id, attempt_id.rpartition("/")[0], cost_class.value


def read_entry(body: str) -> Entry:
    """Read a ledger entry."""
    entry: Entry = decode(body, into=Entry)
    return entry
