"""Reads a store for the auditor: everything as plain JSON data, nothing interpreted."""

from __future__ import annotations

from typing import Any

from jobs.codec import to_data
from jobs.events import Record
from jobs.state import State
from jobs.store import JobStore
from scheduler.audit import Books, Finding, audit, audit_state
from scheduler.audit_fold import Fold

_TABLES = ("jobs", "attempts", "leases", "nodes", "flavors")


def audit_store(store: JobStore) -> list[Finding]:
    """Audit everything that a store holds; an empty list is a clean audit.

    Raises:
        UnreachableError: the database is away.
    """
    books = Books(
        records=(to_data(record) for record in store.records()),
        rows=rows_of(store.load()),
        entries=(to_data(entry) for entry in store.entries()),
    )
    return audit(books)


def rows_of(state: State) -> dict[str, dict[str, Any]]:
    """Give all rows as plain data, by table and id."""
    return {
        table: {row_id: to_data(row) for row_id, row in getattr(state, table).items()}
        for table in _TABLES
    }


class Watcher:
    """Audits a store again and again; what was folded once is not folded again."""

    def __init__(self, store: JobStore) -> None:
        """Watch ``store``."""
        self._store = store
        self._fold = Fold()
        self._faults: list[Finding] = []

    def look(self) -> list[Finding]:
        """Audit the store as it is now."""
        for record in self._store.records(after_seq=self._fold.seq):
            self._take(record)
        entries = [to_data(entry) for entry in self._store.entries()]
        rows = rows_of(self._store.load())
        return [*self._faults, *audit_state(self._fold, rows=rows, entries=entries)]

    def _take(self, record: Record) -> None:
        data = to_data(record)
        self._faults += [
            Finding(rule="legal", subject=data["subject"], detail=fault)
            for fault in self._fold.apply(data)
        ]
