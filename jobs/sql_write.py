"""The write side of ``SqlStore``: what one tick does inside its one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice

from sqlalchemy import Connection, Insert, Table, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs import sql_tables as t
from jobs.codec import encode
from jobs.events import Record
from jobs.hash_chain import GENESIS
from jobs.ledger.entries import Entry
from jobs.sql_rows import (
    Columns,
    entry_columns,
    posting_columns,
    present_columns,
    record_columns,
    without_nul,
)
from jobs.store import Batch, check_entry, check_sequence, fenced, submit_keys

MANY = 500
"""How many values go into one ``IN``: far below the limits of both databases."""

Upsert = sqlite.Insert | postgresql.Insert


def chunks(names: Iterable[str]) -> Iterator[list[str]]:
    """Cut a list of names into pieces that fit into one query."""
    rest = iter(names)
    while piece := list(islice(rest, MANY)):
        yield piece


def insert_or(table: Table, *, dialect: str) -> Upsert:
    """Start an INSERT that can say what to do on a conflict."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def insert_many(connection: Connection, statement: Insert, rows: list[Columns]) -> None:
    """Insert rows through the driver's ``executemany``; no rows are fine."""
    if rows:
        connection.execute(statement, rows)


@cache
def _upsert(dialect: str, table: Table) -> Insert:
    statement = insert_or(table, dialect=dialect)
    kept = {"pos", "id"}
    new = {c.name: statement.excluded[c.name] for c in table.c if c.name not in kept}
    return statement.on_conflict_do_update(index_elements=["id"], set_=new)


def check_epoch(connection: Connection, *, epoch: int) -> None:
    """Refuse all but the present leader, and hold the lease still until the transaction ends.

    Raises:
        FencedError: the epoch is another one.
    """
    now = connection.scalar(select(t.leader.c.epoch).with_for_update()) or 0
    if epoch != now or epoch == 0:
        raise fenced(epoch, now=now)


def take_lease(connection: Connection, holder: str, *, now_us: int, ttl_us: int) -> int | None:
    """Take or renew the leader's lease; None while somebody else holds it."""
    row = connection.execute(select(t.leader).with_for_update()).one()
    epoch: int = row.epoch
    if row.holder != holder:
        if row.holder and now_us < row.expires_us:
            return None
        epoch += 1
    connection.execute(
        update(t.leader).values(holder=holder, epoch=epoch, expires_us=now_us + ttl_us)
    )
    return epoch


def write_batch(connection: Connection, batch: Batch) -> None:
    """Write records, rows and entries."""
    _write_journal(connection, batch.records)
    _write_present(connection, batch)
    fresh = _fresh(connection, batch.entries)
    if fresh:
        _write_ledger(connection, fresh)


def _write_journal(connection: Connection, records: Sequence[Record]) -> None:
    if not records:
        return  # spares the query
    last = connection.scalar(select(func.max(t.journal.c.seq))) or 0
    check_sequence(records, after_seq=last)
    insert_many(connection, insert(t.journal), [record_columns(record) for record in records])
    keys = submit_keys(records)
    for piece in chunks(map(without_nul, keys)):
        used = connection.scalars(
            select(t.submit_keys.c.key).where(t.submit_keys.c.key.in_(piece))
        ).all()
        assert not used, f"idempotency key {used[0]!r} used twice"
    rows = [{"key": without_nul(key), "job_id": job_id} for key, job_id in keys.items()]
    insert_many(connection, insert(t.submit_keys), rows)


def _write_present(connection: Connection, batch: Batch) -> None:
    rows: dict[str, list[Columns]] = {}
    for table, row_id in batch.changes:
        row = getattr(batch.state, table)[row_id]
        rows.setdefault(table, []).append(present_columns(table, row_id, row))
    for table, columns in rows.items():
        insert_many(connection, _upsert(connection.dialect.name, t.PRESENT[table]), columns)


def _fresh(connection: Connection, entries: Sequence[Entry]) -> dict[str, tuple[Entry, str]]:
    """Give, by id, the entries that are not there yet with their canonical JSON."""
    known = _bodies(connection, [entry.id for entry in entries])
    fresh: dict[str, tuple[Entry, str]] = {}
    for entry in entries:
        check_entry(entry)
        body = encode(entry).decode()
        before = fresh[entry.id][1] if entry.id in fresh else known.get(entry.id)
        if before is None:
            fresh[entry.id] = entry, body
        else:
            assert before == body, f"entry {entry.id} was posted with other contents: {before}"
    return fresh


def _bodies(connection: Connection, ids: list[str]) -> dict[str, str]:
    table = t.ledger_entries.c
    found: dict[str, str] = {}
    for piece in chunks(ids):
        rows = connection.execute(select(table.id, table.body).where(table.id.in_(piece)))
        found.update((row.id, row.body) for row in rows)
    return found


def _write_ledger(connection: Connection, fresh: dict[str, tuple[Entry, str]]) -> None:
    table = t.ledger_entries.c
    newest = select(table.pos, table.hash).order_by(table.pos.desc()).limit(1)
    last = connection.execute(newest).one_or_none()
    before, prev_hash = (last.pos, last.hash) if last else (0, GENESIS)
    entries: list[Columns] = []
    postings: list[Columns] = []
    touched: list[Columns] = []
    for pos, (entry, body) in enumerate(fresh.values(), start=before + 1):
        entries.append(entry_columns(entry, pos=pos, prev_hash=prev_hash, body=body))
        prev_hash = entries[-1]["hash"]
        postings += posting_columns(entry, pos=pos)
        touched += (
            {"attempt_id": name, "entry_pos": pos} for name in dict.fromkeys(entry.attempt_ids)
        )
    insert_many(connection, insert(t.ledger_entries), entries)
    insert_many(connection, insert(t.ledger_postings), postings)
    insert_many(connection, insert(t.ledger_attempts), touched)
