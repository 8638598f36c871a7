"""``SqlStore``: jobs, journal, ledger and logs in SQLite (WAL) or PostgreSQL.

A tick is one transaction that first checks the leader's epoch; a crash at any instant leaves
all of a tick or nothing of it. Reads are short transactions of their own, so any thread or
process may read while the leader writes. Open one with ``jobs.store_open.open_store``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, func, select, tuple_, union, update

from jobs import sql_tables as t
from jobs.events import Record
from jobs.hash_chain import Link
from jobs.ledger.entries import Entry, EntryKind
from jobs.recurrence import ScheduleRow
from jobs.rows import AttemptRow, BudgetRow, FlavorRow, JobRow, LeaseRow, NodeRow
from jobs.sql_engine import reading, writing
from jobs.sql_rows import read_entry, read_record, read_row, without_nul
from jobs.sql_write import check_epoch, chunks, insert_or, take_lease, write_batch
from jobs.state import State
from jobs.states import JobState, NodeState
from jobs.store import Batch

PAGE = 1_000  # lines of the journal or ledger read in one short transaction


class SqlStore:
    """A JobStore over SQLAlchemy Core; rows of the database never leave it."""

    def __init__(self, engine: Engine) -> None:
        """Use a database whose tables are of this version."""
        self._engine = engine

    # ------------------------------------------------------------------ leadership

    def acquire_leadership(self, holder: str, *, now_us: int, ttl_us: int) -> int | None:
        """Take or renew the leader's lease; None while somebody else holds it."""
        with writing(self._engine) as connection:
            return take_lease(connection, holder, now_us=now_us, ttl_us=ttl_us)

    def release_leadership(self, holder: str) -> None:
        """Give the lease back at once."""
        with writing(self._engine) as connection:
            connection.execute(
                update(t.leader).where(t.leader.c.holder == holder).values(holder="")
            )

    # --------------------------------------------------------------------- writing

    def commit(self, batch: Batch, *, epoch: int) -> None:
        """Write a tick in one transaction; an exception rolls all of it back."""
        with writing(self._engine) as connection:
            check_epoch(connection, epoch=epoch)
            write_batch(connection, batch)

    # ----------------------------------------------------------- the present, whole

    def load(self) -> State:
        """Read all rows as of one instant, as a State of the caller's own."""
        rows: dict[str, list[Any]] = {}
        with reading(self._engine, one_snapshot=True) as connection:
            seq = connection.scalar(select(func.max(t.journal.c.seq))) or 0
            for name, table in t.PRESENT.items():
                bodies = connection.scalars(select(table.c.body).order_by(table.c.pos))
                rows[name] = [read_row(name, body) for body in bodies]
        return State.from_rows(seq=seq, **rows)

    # ---------------------------------------------------------- journal and ledger

    def last_seq(self) -> int:
        """Give the number of the newest record, 0 before the first."""
        with reading(self._engine) as connection:
            return connection.scalar(select(func.max(t.journal.c.seq))) or 0

    def records(
        self, *, after_seq: int = 0, limit: int | None = None, subject: str | None = None
    ) -> Iterator[Record]:
        """Give the journal in order, all of it or one subject's, a page at a time."""
        c = t.journal.c
        query = select(c.seq, c.subject, c.cause, c.body).order_by(c.seq)
        if subject is not None:
            query = query.where(c.subject == subject)
        for row in self._pages(query, c.seq, after=after_seq, limit=limit):
            yield read_record(row.seq, row.subject, row.cause, row.body)

    def entries(
        self, *, attempt_ids: Iterable[str] | None = None, node_id: str | None = None
    ) -> Iterator[Entry]:
        """Give ledger entries in posting order, all or those that touch an attempt or node."""
        c = t.ledger_entries.c
        query = select(c.pos, c.body).order_by(c.pos)
        if attempt_ids is not None or node_id is not None:
            query = query.where(c.pos.in_(_touching(attempt_ids or (), node_id)))
        for row in self._pages(query, c.pos):
            yield read_entry(row.body)

    def chain(self) -> Iterator[Link]:
        """Give the ledger's hash chain in posting order, for ``hash_chain.broken_links``."""
        c = t.ledger_entries.c
        query = select(c.pos, c.prev_hash, c.hash, c.body).order_by(c.pos)
        for row in self._pages(query, c.pos):
            yield Link(pos=row.pos, prev_hash=row.prev_hash, hash=row.hash, body=row.body)

    def billed_until(self, node_ids: Iterable[str]) -> Mapping[str, int]:
        """Give, for each node with usage entries, the end of the last one (microseconds)."""
        c = t.ledger_entries.c
        until: dict[str, int] = {}
        with reading(self._engine) as connection:
            for piece in chunks(node_ids):
                usage = (c.kind == EntryKind.USAGE.value) & c.node_id.in_(piece)
                query = select(c.node_id, func.max(c.end_us)).where(usage).group_by(c.node_id)
                until.update((name, end_us) for name, end_us in connection.execute(query))
        return until

    def _pages(
        self,
        query: Select[Any],
        key: ColumnElement[Any],
        *,
        after: int = 0,
        limit: int | None = None,
    ) -> Iterator[Any]:
        """Give rows in key order; between two pages no transaction is open."""
        while limit is None or limit > 0:
            size = PAGE if limit is None else min(PAGE, limit)
            with reading(self._engine) as connection:
                rows = connection.execute(query.where(key > after).limit(size)).all()
            yield from rows
            if len(rows) < size:
                return
            after = rows[-1][0]
            limit = None if limit is None else limit - size

    # ---------------------------------------------------------- the present, in parts

    def job(self, job_id: str) -> JobRow | None:
        """Give one job, None when there is none."""
        return self._one("jobs", job_id)  # type: ignore[no-any-return]

    def jobs(
        self,
        *,
        states: Iterable[JobState] = (),
        team: str | None = None,
        after: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> list[JobRow]:
        """Give jobs, newest first by (submitted_us, id), after a cursor of the same pair."""
        c = t.jobs.c
        query = select(c.body).order_by(c.submitted_us.desc(), c.id.desc()).limit(limit)
        wanted = sorted({state.value for state in states})
        if wanted:
            query = query.where(c.state.in_(wanted))
        if team is not None:
            query = query.where(c.team == without_nul(team))
        if after is not None:
            query = query.where(tuple_(c.submitted_us, c.id) < tuple_(*after))
        return self._rows("jobs", query)

    def counts_by_state(self) -> Mapping[JobState, int]:
        """Give the number of jobs in each state that any job is in."""
        c = t.jobs.c
        with reading(self._engine) as connection:
            rows = connection.execute(select(c.state, func.count()).group_by(c.state))
            return {JobState(state): count for state, count in rows}

    def job_by_key(self, idempotency_key: str) -> JobRow | None:
        """Find the job that an earlier submit with this key made."""
        keys = t.submit_keys.c
        job_id = (
            select(keys.job_id).where(keys.key == without_nul(idempotency_key)).scalar_subquery()
        )
        rows: list[JobRow] = self._rows("jobs", select(t.jobs.c.body).where(t.jobs.c.id == job_id))
        return rows[0] if rows else None

    def attempts(self, job_id: str) -> list[AttemptRow]:
        """Give a job's attempts in order."""
        c = t.attempts.c
        return self._rows("attempts", select(c.body).where(c.job_id == job_id).order_by(c.number))

    def attempt(self, attempt_id: str) -> AttemptRow | None:
        """Give one attempt, None when there is none."""
        return self._one("attempts", attempt_id)  # type: ignore[no-any-return]

    def lease(self, lease_id: str) -> LeaseRow | None:
        """Give one lease, None when there is none."""
        return self._one("leases", lease_id)  # type: ignore[no-any-return]

    def nodes(self, *, live_only: bool = True) -> list[NodeRow]:
        """Give nodes, oldest first."""
        c = t.nodes.c
        query = select(c.body).order_by(c.requested_us, c.id)
        if live_only:
            live = [state.value for state in NodeState if state is not NodeState.GONE]
            query = query.where(c.state.in_(live))
        return self._rows("nodes", query)

    def flavors(self) -> list[FlavorRow]:
        """Give the flavors that were ever priced, by name."""
        return self._rows("flavors", select(t.flavors.c.body).order_by(t.flavors.c.id))

    def budgets(self) -> list[BudgetRow]:
        """Give the budgets that hold, by name."""
        rows: list[BudgetRow] = self._rows(
            "budgets", select(t.budgets.c.body).order_by(t.budgets.c.id)
        )
        return [row for row in rows if row.removed_us is None]

    def schedules(self) -> list[ScheduleRow]:
        """Give the schedules that were not removed, by id."""
        rows: list[ScheduleRow] = self._rows(
            "schedules", select(t.schedules.c.body).order_by(t.schedules.c.id)
        )
        return [row for row in rows if row.removed_us is None]

    def _one(self, table: str, row_id: str) -> Any:  # noqa: ANN401 - the kind follows from the table
        c = t.PRESENT[table].c
        rows = self._rows(table, select(c.body).where(c.id == row_id))
        return rows[0] if rows else None

    def _rows(self, table: str, query: Select[Any]) -> list[Any]:
        with reading(self._engine) as connection:
            return [read_row(table, body) for body in connection.scalars(query)]

    # ------------------------------------------------------------------------ logs

    def append_log(self, attempt_id: str, *, rank: int, offset: int, data: bytes) -> int:
        """Keep output at a byte offset; overlap is ignored, data beyond a gap is refused."""
        with writing(self._engine) as connection:
            length = connection.scalar(_log_length(attempt_id, rank)) or 0
            fresh = data[length - offset :] if offset <= length else b""
            if not fresh:
                return length
            chunk = {
                "attempt_id": attempt_id,
                "rank": rank,
                "offset": length,
                "size": len(fresh),
                "data": fresh,
            }
            # Two appends at once both write at ``length``: the second one keeps nothing, and
            # its caller sends the rest again.
            statement = insert_or(
                t.log_chunks, dialect=connection.dialect.name
            ).on_conflict_do_nothing()
            connection.execute(statement, chunk)
            return connection.scalar(_log_length(attempt_id, rank)) or 0

    def read_log(
        self, attempt_id: str, *, rank: int, offset: int = 0, limit: int = 1_000_000
    ) -> bytes:
        """Give up to ``limit`` bytes of one rank's output from ``offset`` on."""
        c = t.log_chunks.c
        mine = (c.attempt_id == attempt_id) & (c.rank == rank)
        first = select(func.max(c.offset)).where(mine, c.offset <= offset).scalar_subquery()
        query = select(c.offset, c.data).where(mine, c.offset >= first, c.offset < offset + limit)
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(c.offset)).all()
        if not rows:
            return b""
        begin = offset - rows[0].offset
        return b"".join(row.data for row in rows)[begin : begin + limit]

    def log_lengths(self, attempt_id: str) -> Mapping[int, int]:
        """Give the bytes kept of each rank that wrote anything."""
        c = t.log_chunks.c
        query = (
            select(c.rank, func.max(c.offset + c.size))
            .where(c.attempt_id == attempt_id)
            .group_by(c.rank)
            .order_by(c.rank)
        )
        with reading(self._engine) as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def close(self) -> None:
        """Let go of connections."""
        self._engine.dispose()


def _touching(attempt_ids: Iterable[str], node_id: str | None) -> Any:  # noqa: ANN401 - SELECT
    """Select the positions of the entries that touch an attempt or the node."""
    entries, links = t.ledger_entries.c, t.ledger_attempts.c
    queries: list[Select[Any]] = [
        select(links.entry_pos).where(links.attempt_id.in_(piece)) for piece in chunks(attempt_ids)
    ]
    if node_id is not None:
        queries.append(select(entries.pos).where(entries.node_id == node_id))
    return union(*queries) if queries else select(entries.pos).where(entries.pos < 0)


def _log_length(attempt_id: str, rank: int) -> Select[Any]:
    c = t.log_chunks.c
    return select(func.max(c.offset + c.size)).where(c.attempt_id == attempt_id, c.rank == rank)
