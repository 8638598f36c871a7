"""``MemoryStore``: the JobStore of the simulator and of tests; nothing outlives the process.

It keeps references to frozen rows, records and entries, so a commit costs no more than what is
in the batch. Threads may read while one writes.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from threading import RLock
from typing import Any

from jobs.codec import encode
from jobs.events import Record
from jobs.hash_chain import GENESIS, Link, next_hash
from jobs.ledger.entries import Entry, EntryKind
from jobs.recurrence import ScheduleRow
from jobs.rows import AttemptRow, BudgetRow, FlavorRow, JobRow, LeaseRow, NodeRow
from jobs.state import State
from jobs.states import JobState, NodeState
from jobs.store import Batch, check_entry, check_sequence, fenced, submit_keys


@dataclass(slots=True)
class _Ledger:
    """Entries in posting order, found by id, attempt and node."""

    entries: list[Entry] = field(default_factory=list)
    by_id: dict[str, Entry] = field(default_factory=dict)
    by_attempt: dict[str, list[int]] = field(default_factory=dict)  # positions in ``entries``
    by_node: dict[str, list[int]] = field(default_factory=dict)
    billed_until: dict[str, int] = field(default_factory=dict)

    def check(self, entries: Iterable[Entry]) -> None:
        """Assert that entries balance and contradict none of the same id, nor each other."""
        fresh: dict[str, Entry] = {}
        for entry in entries:
            check_entry(entry)
            known = self.by_id.get(entry.id) or fresh.setdefault(entry.id, entry)
            assert known == entry, f"entry {entry.id} was posted with other contents: {known!r}"

    def add(self, entry: Entry) -> None:
        """Post an entry; the same one again is ignored."""
        if entry.id in self.by_id:
            return
        place = len(self.entries)
        self.entries.append(entry)
        self.by_id[entry.id] = entry
        self.by_node.setdefault(entry.node_id, []).append(place)
        for attempt_id in entry.attempt_ids:
            self.by_attempt.setdefault(attempt_id, []).append(place)
        if entry.kind is EntryKind.USAGE:
            until = self.billed_until.get(entry.node_id, entry.end_us)
            self.billed_until[entry.node_id] = max(until, entry.end_us)

    def touching(self, attempt_ids: Iterable[str], node_id: str | None) -> list[Entry]:
        """Give the entries of these attempts or this node, each once, in posting order."""
        places = {place for name in attempt_ids for place in self.by_attempt.get(name, ())}
        if node_id is not None:
            places.update(self.by_node.get(node_id, ()))
        return [self.entries[place] for place in sorted(places)]


class MemoryStore:
    """Everything in dictionaries; passes the contract suite of ``JobStore``."""

    def __init__(self) -> None:
        """Start empty, without a leader."""
        self._lock = RLock()
        self._rows: dict[str, dict[str, Any]] = {
            "jobs": {},
            "attempts": {},
            "leases": {},
            "nodes": {},
            "flavors": {},
            "budgets": {},
            "schedules": {},
        }
        self._journal: list[Record] = []
        self._by_subject: dict[str, list[Record]] = {}
        self._ledger = _Ledger()
        self._order: list[tuple[int, str]] = []  # (submitted_us, job id), ascending
        self._keys: dict[str, str] = {}  # idempotency key -> job id
        self._job_attempts: dict[str, list[str]] = {}
        self._logs: dict[tuple[str, int], bytearray] = {}
        self._holder = ""
        self._epoch = 0
        self._expires_us = 0

    # ------------------------------------------------------------------ leadership

    def acquire_leadership(self, holder: str, *, now_us: int, ttl_us: int) -> int | None:
        """Take or renew the leader's lease; None while somebody else holds it."""
        with self._lock:
            if self._holder != holder:
                if self._holder and now_us < self._expires_us:
                    return None
                self._holder = holder
                self._epoch += 1
            self._expires_us = now_us + ttl_us
            return self._epoch

    def release_leadership(self, holder: str) -> None:
        """Give the lease back at once."""
        with self._lock:
            if self._holder == holder:
                self._holder = ""

    # --------------------------------------------------------------------- writing

    def commit(self, batch: Batch, *, epoch: int) -> None:
        """Write a tick; all checks come first, so a refused batch leaves nothing behind."""
        with self._lock:
            self._check(batch, epoch=epoch)
            for table, row_id in batch.changes:
                self._put(table, row_id, getattr(batch.state, table)[row_id])
            for record in batch.records:
                self._journal.append(record)
                self._by_subject.setdefault(record.subject, []).append(record)
            self._keys.update(submit_keys(batch.records))
            for entry in batch.entries:
                self._ledger.add(entry)

    def _check(self, batch: Batch, *, epoch: int) -> None:
        if epoch != self._epoch or epoch == 0:
            raise fenced(epoch, now=self._epoch)
        check_sequence(batch.records, after_seq=len(self._journal))
        for key in submit_keys(batch.records):
            assert key not in self._keys, f"idempotency key {key!r} used twice"
        self._ledger.check(batch.entries)

    def _put(self, table: str, row_id: str, row: Any) -> None:  # noqa: ANN401 - any kind of row
        rows = self._rows[table]
        if row_id not in rows:
            if table == "jobs":
                insort(self._order, (row.submitted_us, row_id))
            elif table == "attempts":
                self._job_attempts.setdefault(row.job_id, []).append(row_id)
        rows[row_id] = row

    # --------------------------------------------------------------------- reading

    def load(self) -> State:
        """Give all rows as a State of the caller's own."""
        with self._lock:
            return State.from_rows(
                jobs=self._rows["jobs"].values(),
                attempts=self._rows["attempts"].values(),
                leases=self._rows["leases"].values(),
                nodes=self._rows["nodes"].values(),
                flavors=self._rows["flavors"].values(),
                budgets=self._rows["budgets"].values(),
                schedules=self._rows["schedules"].values(),
                seq=len(self._journal),
            )

    def last_seq(self) -> int:
        """Give the number of the newest record, 0 before the first."""
        return len(self._journal)

    def records(
        self, *, after_seq: int = 0, limit: int | None = None, subject: str | None = None
    ) -> Iterator[Record]:
        """Give the journal in order, all of it or one subject's."""
        with self._lock:
            if subject is None:
                end = None if limit is None else after_seq + limit
                return iter(self._journal[after_seq:end])
            known = list(self._by_subject.get(subject, ()))
        return islice((record for record in known if record.seq > after_seq), limit)

    def entries(
        self, *, attempt_ids: Iterable[str] | None = None, node_id: str | None = None
    ) -> Iterator[Entry]:
        """Give ledger entries in posting order, all or those that touch an attempt or node."""
        with self._lock:
            if attempt_ids is None and node_id is None:
                return iter(self._ledger.entries.copy())
            return iter(self._ledger.touching(attempt_ids or (), node_id))

    def chain(self) -> Iterator[Link]:
        """Give the hash chain; it is made when asked for, as memory has nobody to guard from."""
        prev_hash = GENESIS
        for pos, entry in enumerate(self.entries(), start=1):
            body = encode(entry).decode()
            link_hash = next_hash(prev_hash, body=body)
            yield Link(pos=pos, prev_hash=prev_hash, hash=link_hash, body=body)
            prev_hash = link_hash

    def billed_until(self, node_ids: Iterable[str]) -> Mapping[str, int]:
        """Give, for each node with usage entries, the end of the last one (microseconds)."""
        with self._lock:
            until = self._ledger.billed_until
            return {name: until[name] for name in node_ids if name in until}

    def job(self, job_id: str) -> JobRow | None:
        """Give one job, None when there is none."""
        return self._table("jobs").get(job_id)

    def jobs(
        self,
        *,
        states: Iterable[JobState] = (),
        team: str | None = None,
        after: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> list[JobRow]:
        """Give jobs, newest first by (submitted_us, id), after a cursor of the same pair."""
        wanted = frozenset(states)

        def fits(row: JobRow) -> bool:
            return (not wanted or row.state in wanted) and (team is None or row.spec.team == team)

        with self._lock:
            newest = (self._rows["jobs"][pair[1]] for pair in reversed(self._order))
            rest = (row for row in newest if after is None or (row.submitted_us, row.id) < after)
            return list(islice(filter(fits, rest), limit))

    def counts_by_state(self) -> Mapping[JobState, int]:
        """Give the number of jobs in each state that any job is in."""
        with self._lock:
            return Counter(row.state for row in self._table("jobs").values())

    def job_by_key(self, idempotency_key: str) -> JobRow | None:
        """Find the job that an earlier submit with this key made."""
        with self._lock:
            return self._table("jobs").get(self._keys.get(idempotency_key, ""))

    def attempts(self, job_id: str) -> list[AttemptRow]:
        """Give a job's attempts in order."""
        with self._lock:
            rows = self._rows["attempts"]
            return [rows[name] for name in self._job_attempts.get(job_id, ())]

    def attempt(self, attempt_id: str) -> AttemptRow | None:
        """Give one attempt, None when there is none."""
        return self._table("attempts").get(attempt_id)

    def lease(self, lease_id: str) -> LeaseRow | None:
        """Give one lease, None when there is none."""
        return self._table("leases").get(lease_id)

    def nodes(self, *, live_only: bool = True) -> list[NodeRow]:
        """Give nodes, oldest first."""
        with self._lock:
            rows: Iterable[NodeRow] = self._table("nodes").values()
            kept = [row for row in rows if not live_only or row.state is not NodeState.GONE]
        return sorted(kept, key=attrgetter("requested_us", "id"))

    def flavors(self) -> list[FlavorRow]:
        """Give the flavors that were ever priced, by name."""
        with self._lock:
            return sorted(self._table("flavors").values(), key=attrgetter("name"))

    def budgets(self) -> list[BudgetRow]:
        """Give the budgets that hold, by name."""
        with self._lock:
            rows: list[BudgetRow] = [
                row for row in self._table("budgets").values() if row.removed_us is None
            ]
        return sorted(rows, key=attrgetter("name"))

    def schedules(self) -> list[ScheduleRow]:
        """Give the schedules that were not removed, by id."""
        with self._lock:
            rows: list[ScheduleRow] = [
                row for row in self._table("schedules").values() if row.removed_us is None
            ]
        return sorted(rows, key=attrgetter("id"))

    def _table(self, name: str) -> dict[str, Any]:
        return self._rows[name]

    # ------------------------------------------------------------------------ logs

    def append_log(self, attempt_id: str, *, rank: int, offset: int, data: bytes) -> int:
        """Keep output at a byte offset; overlap is ignored, data beyond a gap is refused."""
        with self._lock:
            kept = self._logs.setdefault((attempt_id, rank), bytearray())
            if offset <= len(kept):
                kept += data[len(kept) - offset :]
            return len(kept)

    def read_log(
        self, attempt_id: str, *, rank: int, offset: int = 0, limit: int = 1_000_000
    ) -> bytes:
        """Give up to ``limit`` bytes of one rank's output from ``offset`` on."""
        with self._lock:
            return bytes(self._logs.get((attempt_id, rank), b"")[offset : offset + limit])

    def log_lengths(self, attempt_id: str) -> Mapping[int, int]:
        """Give the bytes kept of each rank that wrote anything."""
        with self._lock:
            found = [(key[1], len(log)) for key, log in self._logs.items() if key[0] == attempt_id]
            return {rank: length for rank, length in sorted(found) if length}

    def close(self) -> None:
        """Do nothing: there is no connection."""
