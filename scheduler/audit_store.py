"""Reads a store for the auditor: everything as plain JSON data, nothing interpreted."""

from __future__ import annotations

from itertools import islice
from typing import Any

from jobs.codec import to_data
from jobs.errors import ConflictError
from jobs.events import Record
from jobs.hash_chain import broken_links
from jobs.state import State
from jobs.store import JobStore
from scheduler.audit import Books, Finding, audit, audit_state
from scheduler.audit_fold import Fold

_TRIES = 5
_TABLES = ("jobs", "attempts", "leases", "nodes", "flavors", "budgets", "schedules")


def audit_store(store: JobStore) -> list[Finding]:
    """Audit everything that a store holds; an empty list is a clean audit.

    A leader may be writing meanwhile: the books are read again until nothing was added to them.

    Raises:
        UnreachableError: the database is away.
        ConflictError: it never held still.
    """
    for _ in range(_TRIES):
        seq = store.last_seq()
        books = Books(
            records=[to_data(record) for record in store.records()],
            rows=rows_of(store.load()),
            entries=[to_data(entry) for entry in store.entries()],
        )
        links = broken_links(store.chain())
        if store.last_seq() == seq:
            return [*audit(books), *(_broken(text) for text in links)]
    raise ConflictError(
        "The database changes faster than it can be read.",
        remedy="Audit at a calmer time, or stop the server meanwhile.",
    )


def _broken(text: str) -> Finding:
    return Finding(rule="hash-chain", subject="ledger", detail=text)


def rows_of(state: State) -> dict[str, dict[str, Any]]:
    """Give all rows as plain data, by table and id."""
    return {
        table: {row_id: to_data(row) for row_id, row in getattr(state, table).items()}
        for table in _TABLES
    }


class Watcher:
    """Audits a store again and again; what was read once is not read again.

    Journal and ledger are append-only and rows are frozen, so what is new is at their ends, and a
    row that is the same object is the same row.
    """

    def __init__(self, store: JobStore) -> None:
        """Watch ``store``."""
        self._store = store
        self._fold = Fold()
        self._faults: list[Finding] = []
        self._entries: list[dict[str, Any]] = []
        self._rows: dict[tuple[str, str], tuple[object, dict[str, Any]]] = {}

    def look(self) -> list[Finding]:
        """Audit the store as it is now."""
        for record in self._store.records(after_seq=self._fold.seq):
            self._take(record)
        new = islice(self._store.entries(), len(self._entries), None)
        self._entries += [to_data(entry) for entry in new]
        state = self._store.load()
        rows = {
            table: {row_id: self._row(table, row_id, row) for row_id, row in kept.items()}
            for table, kept in ((table, getattr(state, table)) for table in _TABLES)
        }
        return [*self._faults, *audit_state(self._fold, rows=rows, entries=self._entries)]

    def _row(self, table: str, row_id: str, row: object) -> dict[str, Any]:
        known = self._rows.get((table, row_id))
        if known is None or known[0] is not row:
            known = self._rows[table, row_id] = (row, to_data(row))
        return known[1]

    def _take(self, record: Record) -> None:
        data = to_data(record)
        self._faults += [
            Finding(rule="legal", subject=data["subject"], detail=fault)
            for fault in self._fold.apply(data)
        ]
