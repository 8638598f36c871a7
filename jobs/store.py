"""Where the present, the journal, the ledger and the logs are kept: one Protocol.

``MemoryStore`` (``jobs.memory_store``) and ``SqlStore`` (``jobs.sql_store``) pass the same
contract suite. There is one writer, the leading controller; readers may be many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from jobs.errors import FencedError
from jobs.events import JobSubmitted, Record
from jobs.hash_chain import Link
from jobs.ledger.entries import Entry
from jobs.recurrence import ScheduleRow
from jobs.rows import AttemptRow, BudgetRow, FlavorRow, JobRow, LeaseRow, NodeRow
from jobs.state import State
from jobs.states import JobState

MAX_AMOUNT = 2**63 - 1
"""Of one posting: 9.2 billion dollars in nanos. More is refused, never wrapped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One tick: records, the rows they changed and the entries they caused."""

    records: tuple[Record, ...]
    entries: tuple[Entry, ...]
    changes: tuple[tuple[str, str], ...]  # (table, id) of rows to be written, from ``state``
    state: State


def check_sequence(records: Iterable[Record], *, after_seq: int) -> None:
    """Assert that the records number on from ``after_seq`` without a gap."""
    for seq, record in enumerate(records, start=after_seq + 1):
        assert record.seq == seq, f"record {record.seq} where {seq} was due"


def submit_keys(records: Iterable[Record]) -> dict[str, str]:
    """Give the idempotency keys of the submits among the records, with their jobs.

    The controller looks a key up before it makes a job, so a key used twice is a bug of ours.
    """
    keys: dict[str, str] = {}
    for event in (record.event for record in records):
        if isinstance(event, JobSubmitted) and event.idempotency_key:
            assert event.idempotency_key not in keys, f"{event.idempotency_key!r} used twice"
            keys[event.idempotency_key] = event.job_id
    return keys


def check_entry(entry: Entry) -> None:
    """Assert that an entry balances and that its amounts fit the 64 bits of a database."""
    entry.check()
    for leg in entry.postings:
        amounts = (leg.usd_nanos, leg.gpu_ms, leg.list_usd_nanos)
        assert all(-MAX_AMOUNT <= amount <= MAX_AMOUNT for amount in amounts), f"too big: {leg!r}"


def fenced(epoch: int, *, now: int) -> FencedError:
    """Say that ``epoch`` may not write any more (or never might)."""
    return FencedError(
        f"Leader epoch {epoch} may not write; the epoch is {now} now.",
        remedy="Stop this server, or start it again to follow the new leader.",
    )


class JobStore(Protocol):
    """Durable storage. Every method may raise ``UnreachableError`` when the database is away."""

    def acquire_leadership(self, holder: str, *, now_us: int, ttl_us: int) -> int | None:
        """Take or renew the leader's lease.

        Returns:
            The fencing epoch (grows by one with each new holder), or None while somebody
            else's lease has not expired. A holder that renews late keeps its epoch if nobody
            took over meanwhile, so a holder's name must be new in each process.
        """

    def release_leadership(self, holder: str) -> None:
        """Give the lease back at once (a clean stop)."""

    def load(self) -> State:
        """Read all rows, as a State of the caller's own."""

    def commit(self, batch: Batch, *, epoch: int) -> None:
        """Write a tick in ONE transaction: records, rows, entries.

        An entry whose id is there already is ignored when equal. Readers see all of a tick or
        nothing of it.

        Raises:
            FencedError: ``epoch`` is not the present leader's; nothing was written.
            AssertionError: a record does not follow the last one stored, an entry does not
                balance, is beyond 64 bits or contradicts the stored one of its id, an
                idempotency key comes twice; nothing was written.
        """

    def last_seq(self) -> int:
        """Give the number of the newest record, 0 before the first."""

    def records(
        self, *, after_seq: int = 0, limit: int | None = None, subject: str | None = None
    ) -> Iterator[Record]:
        """Give the journal in order, all of it or one subject's."""

    def entries(
        self, *, attempt_ids: Iterable[str] | None = None, node_id: str | None = None
    ) -> Iterator[Entry]:
        """Give ledger entries in posting order, all or those that touch an attempt or node.

        With attempts and a node given, an entry that touches either is given, once.
        """

    def chain(self) -> Iterator[Link]:
        """Give the ledger's hash chain in posting order, for ``hash_chain.broken_links``."""

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

    def counts_by_state(self) -> Mapping[JobState, int]:
        """Give the number of jobs in each state that any job is in."""

    def job_by_key(self, idempotency_key: str) -> JobRow | None:
        """Find the job that an earlier submit with this key made."""

    def attempts(self, job_id: str) -> list[AttemptRow]:
        """Give a job's attempts in order."""

    def attempt(self, attempt_id: str) -> AttemptRow | None:
        """Give one attempt, None when there is none."""

    def lease(self, lease_id: str) -> LeaseRow | None:
        """Give one lease, None when there is none."""

    def nodes(self, *, live_only: bool = True) -> list[NodeRow]:
        """Give nodes, oldest first."""

    def flavors(self) -> list[FlavorRow]:
        """Give the flavors that were ever priced, by name."""

    def budgets(self) -> list[BudgetRow]:
        """Give the budgets that hold, by name."""

    def schedules(self) -> list[ScheduleRow]:
        """Give the schedules that were not removed, by id."""

    def append_log(self, attempt_id: str, *, rank: int, offset: int, data: bytes) -> int:
        """Keep output of one rank at a byte offset; overlap with what is there is ignored.

        Returns:
            The stream's length after the call; data beyond a gap is refused (length unchanged).
        """

    def read_log(
        self, attempt_id: str, *, rank: int, offset: int = 0, limit: int = 1_000_000
    ) -> bytes:
        """Give up to ``limit`` bytes of one rank's output from ``offset`` on."""

    def log_lengths(self, attempt_id: str) -> Mapping[int, int]:
        """Give the bytes kept of each rank that wrote anything."""

    def close(self) -> None:
        """Let go of connections."""
