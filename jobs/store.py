"""Where the present, the journal, the ledger and the logs are kept: one Protocol.

``MemoryStore`` (``jobs.memory_store``) and ``SqlStore`` (``jobs.sql_store``) pass the same
contract suite. There is one writer, the leading controller; readers may be many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from jobs.events import Record
from jobs.ledger.entries import Entry
from jobs.rows import AttemptRow, JobRow, NodeRow
from jobs.state import State
from jobs.states import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One tick: records, the rows they changed and the entries they caused."""

    records: tuple[Record, ...]
    entries: tuple[Entry, ...]
    changes: tuple[tuple[str, str], ...]  # (table, id) of rows to be written, from ``state``
    state: State


class JobStore(Protocol):
    """Durable storage. Every method may raise ``UnreachableError`` when the database is away."""

    def acquire_leadership(self, holder: str, *, now_us: int, ttl_us: int) -> int | None:
        """Take or renew the leader's lease.

        Returns:
            The fencing epoch (grows by one with each new holder), or None while somebody
            else's lease has not expired.
        """

    def release_leadership(self, holder: str) -> None:
        """Give the lease back at once (a clean stop)."""

    def load(self) -> State:
        """Read all rows."""

    def commit(self, batch: Batch, *, epoch: int) -> None:
        """Write a tick in ONE transaction: records, rows, entries.

        An entry whose id is there already is ignored when equal.

        Raises:
            FencedError: a newer leader exists; nothing was written.
            AssertionError: the first record does not follow the last one stored.
        """

    def records(self, *, after_seq: int = 0, limit: int | None = None) -> Iterator[Record]:
        """Give the journal in order."""

    def entries(
        self, *, attempt_ids: Iterable[str] | None = None, node_id: str | None = None
    ) -> Iterator[Entry]:
        """Give ledger entries in posting order, all or those that touch an attempt or node."""

    def billed_until(self, node_ids: Iterable[str]) -> Mapping[str, int]:
        """Give, for each node with usage entries, the end of the last one (microseconds)."""

    def job(self, job_id: str) -> JobRow | None:
        """Give one job, None when there is none."""

    def jobs(
        self,
        *,
        states: Iterable[JobState] = (),
        team: str | None = None,
        after: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> list[JobRow]:
        """Give jobs, newest first by (submitted_us, id), after a cursor of the same pair."""

    def job_by_key(self, idempotency_key: str) -> JobRow | None:
        """Find the job that an earlier submit with this key made."""

    def attempts(self, job_id: str) -> list[AttemptRow]:
        """Give a job's attempts in order."""

    def nodes(self, *, live_only: bool = True) -> list[NodeRow]:
        """Give nodes, oldest first."""

    def append_log(self, attempt_id: str, *, rank: int, offset: int, data: bytes) -> int:
        """Keep output of one rank at a byte offset; overlap with what is there is ignored.

        Returns:
            The stream's length after the call; data beyond a gap is refused (length unchanged).
        """

    def read_log(
        self, attempt_id: str, *, rank: int, offset: int = 0, limit: int = 1_000_000
    ) -> bytes:
        """Give up to ``limit`` bytes of one rank's output from ``offset`` on."""

    def close(self) -> None:
        """Let go of connections."""
