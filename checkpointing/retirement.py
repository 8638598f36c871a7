"""The sweep: deletes what retention does not keep, exactly, under a root shared by many jobs.

Each job retires its own commits by its own policy. A chunk stays while any manifest, part or intent
of any job names it, committed or not; so other jobs' commits are all kept, as each of them decides.
What cannot be read is never guessed about: an unreadable commit record of ours, or an unreadable
manifest of anybody, and the sweep deletes nothing and says why. `sweeps` has the protocol by which
a sweep and the saves of all jobs go on at the same time. Needs no torch.

A sweep costs two listings of `jobs/`, one of `chunks/`, and the manifests not seen before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from checkpointing.clock import monotonic_us, now_us
from checkpointing.commit_log import CommitLog
from checkpointing.documents import read_needs
from checkpointing.environment import new_nonce
from checkpointing.errors import CheckpointError
from checkpointing.identity import Identity
from checkpointing.inventory import Inventory, Needs, take_inventory
from checkpointing.keys import CHUNKS, JOBS, StoredObject, chunk_key, hash_of
from checkpointing.retention import GRACE_US, ORPHAN_US, Retention, garbage
from checkpointing.storage import Storage
from checkpointing.sweeps import LIMIT_US, SweepLog

RECORDS_KEPT: Final = 32
"""The log outlives what it names, so that a sleeping zombie meets a taken number."""
_WORKERS: Final = 8
_BATCH: Final = 64  # deletions between two looks at the clock

Told = Callable[[int, int], None]
"""Hears how many of how many deletions are done."""


class Home(Protocol):
    """What a sweep needs of an `Archive`."""

    @property
    def storage(self) -> Storage:
        """The store."""

    @property
    def log(self) -> CommitLog:
        """The log of our job."""

    @property
    def identity(self) -> Identity:
        """Who we are."""

    @property
    def conditional(self) -> bool:
        """Whether the store honours conditional writes."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep deleted, or would delete."""

    deleted: tuple[StoredObject, ...] = ()
    refused: tuple[str, ...] = ()
    """Why it deleted less than it might have, one sentence each."""
    abandoned_uploads: int = 0
    waiting: tuple[StoredObject, ...] = ()
    """Chunks that nobody names and that are younger than the grace period."""

    @property
    def freed_bytes(self) -> int:
        """Bytes of all that was deleted."""
        return sum(item.length for item in self.deleted)


@dataclass(frozen=True, slots=True)
class _Plan:
    doomed: Mapping[str, StoredObject] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    records: frozenset[int] = frozenset()
    """Numbers of the commits whose manifests are stored."""
    waiting: tuple[StoredObject, ...] = ()


class Retirement:
    """Sweeps for one job. Run by rank 0 after a commit, now and then, or by an operator."""

    def __init__(
        self,
        home: Home,
        *,
        policy: Retention,
        grace_us: int = GRACE_US,
        orphan_us: int = ORPHAN_US,
    ) -> None:
        """Ask the store nothing yet. Manifests never change, so each is read once."""
        self._home = home
        self._policy = policy
        self._grace_us = grace_us
        self._orphan_us = orphan_us
        self._needs: dict[str, Needs] = {}
        self._sweeps = SweepLog(home.storage)
        self.protected: frozenset[str] = frozenset()
        """Keys of manifests that stay whatever the policy says: the restore point in use."""

    def plan(self) -> SweepReport:
        """Say what a sweep would delete now; write nothing."""
        plan = self._plan(self._home.storage.list(CHUNKS))
        return SweepReport(tuple(plan.doomed.values()), plan.refused, waiting=plan.waiting)

    def sweep(self, tell: Told = lambda _done, _of: None) -> SweepReport:
        """Delete garbage, trim the log, abort abandoned uploads; raise `StorageError`."""
        storage = self._home.storage
        chunks = storage.list(CHUNKS)
        plan = self._plan(chunks)
        report = SweepReport(refused=plan.refused, waiting=plan.waiting)
        if plan.doomed:
            report = self._delete(plan.doomed, chunks, report, tell)
        self._home.log.trim(keep=RECORDS_KEPT, needed=plan.records)
        before_us = now_us() - self._orphan_us
        aborted = sum(storage.abandon_uploads(p, older_than_us=before_us) for p in (CHUNKS, JOBS))
        return replace(report, abandoned_uploads=aborted)

    def _delete(
        self,
        doomed: Mapping[str, StoredObject],
        chunks: Sequence[StoredObject],
        report: SweepReport,
        tell: Told,
    ) -> SweepReport:
        """Announce `doomed`, look again what is needed by now, and delete the rest."""
        until_us = monotonic_us() + LIMIT_US
        seq = self._sweeps.begin(doomed.keys(), nonce=f"{new_nonce():015x}")
        if seq is None:
            return replace(report, refused=(*report.refused, "Another sweep is at work here."))
        again = self._plan(chunks, within=doomed.keys())
        sure = [item for key, item in again.doomed.items() if key in doomed]
        documents = [item for item in sure if not item.key.startswith(CHUNKS)]
        rest = [item for item in sure if item.key.startswith(CHUNKS)]
        deleted = self._delete_all((documents, rest), until_us, lambda n: tell(n, len(sure)))
        self._sweeps.end(seq)
        return replace(report, deleted=tuple(deleted), refused=again.refused)

    def _delete_all(
        self,
        groups: Sequence[Sequence[StoredObject]],
        until_us: int,
        tell: Callable[[int], None],
    ) -> list[StoredObject]:
        """Delete group after group: a manifest is gone before any chunk that it names."""
        deleted: list[StoredObject] = []
        with ThreadPoolExecutor(_WORKERS) as pool:
            for group in groups:
                for start in range(0, len(group), _BATCH):
                    if monotonic_us() > until_us:
                        return deleted
                    batch = group[start : start + _BATCH]
                    list(pool.map(self._home.storage.delete, [item.key for item in batch]))
                    deleted.extend(batch)
                    tell(len(deleted))
        return deleted

    def _plan(
        self, chunks: Sequence[StoredObject], *, within: Collection[str] | None = None
    ) -> _Plan:
        """Say what may go by now; of what was announced, if that is given.

        A manifest that was not announced stays, retired by now or not, and so do its chunks.
        """
        home = self._home
        history = home.log.history()  # first: the manifest of each of its commits is listed then
        if history.epoch > home.identity.epoch:
            return _Plan(refused=("A newer attempt of the job has taken over: it sweeps.",))
        found = take_inventory(
            home.storage.list(JOBS),
            history=history,
            job_id=home.identity.job_id,
            policy=self._policy,
            now_us=now_us(),
            protected=self.protected,
        )
        refused = [f"A commit record cannot be read: {why}" for why in history.unreadable]
        refused += self._read_all(found.documents)
        stored = {item.key for item in found.documents}
        records = frozenset(one.seq for one in history.commits if one.manifest in stored)
        if refused:
            return _Plan(refused=tuple(refused), records=records)
        going = found.going(self._needs, orphan_us=self._orphan_us, grace_us=self._grace_us)
        doomed = {item.key: item for item in going if within is None or item.key in within}
        if home.conditional or not found.others:
            loose = self._loose(chunks, found, doomed)
            old = garbage(loose, now_us=now_us(), grace_us=self._grace_us)
            doomed |= {item.key: item for item in old}
            young = tuple(item for item in loose if item.key not in doomed)
            return _Plan(doomed, records=records, waiting=young)
        why = "The store ignores conditional writes and other jobs use this root: chunks stay."
        return _Plan(doomed, (why,), records)

    def _loose(
        self, chunks: Sequence[StoredObject], found: Inventory, doomed: Mapping[str, StoredObject]
    ) -> list[StoredObject]:
        """Return the chunks that no document names, young ones included."""
        live = [self._needs[item.key] for item in found.documents if item.key not in doomed]
        needed = {chunk_key(name) for needs in live for name in needs.chunks}
        return [item for item in chunks if item.key not in needed]

    def _read_all(self, documents: Sequence[StoredObject]) -> list[str]:
        """Read the manifests not seen yet, forget those that are gone; say what is unreadable."""
        keys = {item.key for item in documents}
        self._needs = {key: needs for key, needs in self._needs.items() if key in keys}
        fresh = [key for key in keys if key not in self._needs]
        with ThreadPoolExecutor(_WORKERS) as pool:
            return sorted(why for why in pool.map(self._read, fresh) if why is not None)

    def _read(self, key: str) -> str | None:
        try:
            self._needs[key] = read_needs(self._home.storage, key, blake3=hash_of(key))
        except CheckpointError as error:  # damaged, or of a newer version: it may need anything
            return f"A manifest cannot be read: {error.cause}"
        return None
