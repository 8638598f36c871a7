"""The first tables: the present, the journal, the ledger, the logs, the leader's lease.

Revision: 0001, after nothing. A migration is never changed once it is released.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from jobs.migrations.append_only import refuse_changes

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make all tables, their indexes and triggers."""
    _present()
    _journal()
    _ledger()
    _logs()
    _leader()
    refuse_changes("journal", key=("seq",))
    refuse_changes("ledger_entries", key=("pos",))
    refuse_changes("ledger_postings", key=("entry_pos", "leg"))
    refuse_changes("ledger_attempts", key=("attempt_id", "entry_pos"))


def _text(name: str, **options: Any) -> sa.Column[str]:  # noqa: ANN401
    return sa.Column(name, sa.Text(), nullable=False, **options)


def _int(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _key(name: str, kind: Any = _SERIAL, *args: Any) -> sa.Column[Any]:  # noqa: ANN401
    return sa.Column(name, kind, *args, primary_key=True, autoincrement=False)


def _present_table(name: str, *columns: sa.Column[Any]) -> None:
    pos: sa.Column[int] = sa.Column("pos", _SERIAL, primary_key=True, autoincrement=True)
    op.create_table(name, pos, _text("id", unique=True), *columns, _text("body"))


def _present() -> None:
    _present_table("jobs", _text("state"), _text("team"), _int("submitted_us"))
    op.create_index("jobs_newest", "jobs", ["submitted_us", "id"])
    op.create_index("jobs_state", "jobs", ["state", "submitted_us", "id"])
    op.create_index("jobs_team", "jobs", ["team", "submitted_us", "id"])
    _present_table("attempts", _text("job_id"), _int("number"), _text("state"))
    op.create_index("attempts_job", "attempts", ["job_id", "number"])
    _present_table("leases", _text("attempt_id"))
    op.create_index("ix_leases_attempt_id", "leases", ["attempt_id"])
    _present_table("nodes", _text("state"), _int("requested_us"))
    op.create_index("nodes_state", "nodes", ["state", "requested_us", "id"])
    _present_table("flavors")


def _journal() -> None:
    texts = (_text("subject"), _text("kind"), _text("cause"), _text("body"))
    op.create_table("journal", _key("seq"), _int("at_us"), *texts)
    op.create_index("journal_subject", "journal", ["subject", "seq"])
    op.create_table("submit_keys", _key("key", sa.Text()), _text("job_id"))


def _ledger() -> None:
    times = (_int("posted_us"), _int("start_us"), _int("end_us"))
    texts = (_text(name) for name in ("node_id", "flavor", "prev_hash", "hash", "body"))
    op.create_table(
        "ledger_entries", _key("pos"), _text("id", unique=True), _text("kind"), *times, *texts
    )
    op.create_index("ledger_entries_node", "ledger_entries", ["node_id", "kind", "end_us"])
    op.create_index("ledger_entries_start", "ledger_entries", ["start_us"])
    amounts = (_int("usd_nanos"), _int("gpu_ms"), _int("list_usd_nanos"))
    owner = (sa.Column(name, sa.Text()) for name in ("attempt_id", "job_id", "cost_class"))
    entry = _key("entry_pos", _SERIAL, sa.ForeignKey("ledger_entries.pos"))
    leg = _key("leg", sa.SmallInteger())
    op.create_table("ledger_postings", entry, leg, _text("account"), *amounts, *owner)
    op.create_index("ledger_postings_account", "ledger_postings", ["account"])
    op.create_index("ledger_postings_job", "ledger_postings", ["job_id", "cost_class"])
    entry = _key("entry_pos", _SERIAL, sa.ForeignKey("ledger_entries.pos"))
    op.create_table("ledger_attempts", _key("attempt_id", sa.Text()), entry)


def _logs() -> None:
    op.create_table(
        "log_chunks",
        _key("attempt_id", sa.Text()),
        _key("rank", sa.Integer()),
        _key("offset", sa.BigInteger()),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )


def _leader() -> None:
    key = _key("id", sa.Integer())
    table = op.create_table("leader", key, _text("holder"), _int("epoch"), _int("expires_us"))
    op.bulk_insert(table, [{"id": 1, "holder": "", "epoch": 0, "expires_us": 0}])
