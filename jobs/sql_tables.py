"""The tables of ``SqlStore``. They come into being by the migrations beside this file.

Each row of the present is kept as canonical JSON (``body``) beside the columns that queries
need; ``pos`` keeps the order in which rows first appeared. ``journal`` and ``ledger_*`` are
append-only: triggers refuse UPDATE and DELETE.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)

HEAD = "0003"
"""The newest revision under ``jobs/migrations/versions`` (a test holds it to that)."""

APPEND_ONLY = {
    "journal": ("seq",),
    "ledger_entries": ("pos",),
    "ledger_postings": ("entry_pos", "leg"),
    "ledger_attempts": ("attempt_id", "entry_pos"),
}
"""Append-only tables and their primary keys."""

# SQLite numbers rows only when their key is called INTEGER (which holds 64 bits there).
Serial = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()


def _column(name: str, kind: type = Text, **options: object) -> Column[object]:
    return Column(name, kind, nullable=False, **options)  # type: ignore[arg-type]


def _present(name: str, *columns: Column[object] | Index) -> Table:
    """Make a table of rows that change: ``pos``, ``id``, what queries need, ``body``."""
    pos = Column("pos", Serial, primary_key=True, autoincrement=True)
    return Table(name, metadata, pos, _column("id", unique=True), *columns, _column("body"))


jobs = _present(
    "jobs",
    _column("state"),
    _column("team"),
    _column("submitted_us", BigInteger),
    Index("jobs_newest", "submitted_us", "id"),
    Index("jobs_state", "state", "submitted_us", "id"),
    Index("jobs_team", "team", "submitted_us", "id"),
)
attempts = _present(
    "attempts",
    _column("job_id"),
    _column("number", BigInteger),
    _column("state"),
    Index("attempts_job", "job_id", "number"),
)
leases = _present("leases", _column("attempt_id", index=True))
nodes = _present(
    "nodes",
    _column("state"),
    _column("requested_us", BigInteger),
    Index("nodes_state", "state", "requested_us", "id"),
)
flavors = _present("flavors")
budgets = _present("budgets")
schedules = _present("schedules")

submit_keys = Table(
    "submit_keys", metadata, Column("key", Text, primary_key=True), _column("job_id")
)

leader = Table(
    "leader",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1: there is one row
    _column("holder"),  # "" = given back
    _column("epoch", BigInteger),
    _column("expires_us", BigInteger),
)

journal = Table(
    "journal",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=False),
    _column("at_us", BigInteger),
    _column("subject"),
    _column("kind"),
    _column("cause"),
    _column("body"),
    Index("journal_subject", "subject", "seq"),
)

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("pos", Serial, primary_key=True, autoincrement=False),  # 1, 2, ... without a gap
    _column("id", unique=True),
    _column("kind"),
    _column("posted_us", BigInteger),
    _column("start_us", BigInteger),
    _column("end_us", BigInteger),
    _column("node_id"),
    _column("flavor"),
    _column("prev_hash"),
    _column("hash"),
    _column("body"),
    Index("ledger_entries_node", "node_id", "kind", "end_us"),
    Index("ledger_entries_start", "start_us"),
)

ledger_postings = Table(
    "ledger_postings",
    metadata,
    Column("entry_pos", Serial, ForeignKey("ledger_entries.pos"), primary_key=True),
    Column("leg", SmallInteger, primary_key=True, autoincrement=False),
    _column("account"),
    _column("usd_nanos", BigInteger),
    _column("gpu_ms", BigInteger),
    _column("list_usd_nanos", BigInteger),
    Column("attempt_id", Text),  # with ``job_id`` and ``cost_class``: of an attempt's account
    Column("job_id", Text),
    Column("cost_class", Text),
    Index("ledger_postings_account", "account"),
    Index("ledger_postings_job", "job_id", "cost_class"),
)

ledger_attempts = Table(
    "ledger_attempts",
    metadata,
    Column("attempt_id", Text, primary_key=True),
    Column("entry_pos", Serial, ForeignKey("ledger_entries.pos"), primary_key=True),
)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("attempt_id", Text, primary_key=True),
    Column("rank", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    _column("size", Integer),
    _column("data", LargeBinary),
)

PRESENT = {
    table.name: table for table in (jobs, attempts, leases, nodes, flavors, budgets, schedules)
}
