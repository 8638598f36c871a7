"""One job's checkpoints in one store, as one attempt sees them: claim, restore, retire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from checkpointing.clock import now_us
from checkpointing.commit import CLAIM, CommitRecord
from checkpointing.commit_log import CommitLog
from checkpointing.environment import new_nonce
from checkpointing.errors import CorruptCheckpoint
from checkpointing.keys import CHUNKS, JOBS, StoredObject, job_prefix
from checkpointing.manifest import Manifest
from checkpointing.publish import Identity
from checkpointing.restore import RestorePoint, load_commit, read_manifest
from checkpointing.retention import GRACE_US, Retention, garbage, kept_commits, marked
from checkpointing.storage import Storage, keeps_conditions

_RECORDS_KEPT = 32  # the log outlives what it names, so that a sleeping zombie meets a taken number


@dataclass(frozen=True, slots=True)
class Archive:
    """A store, a job's log in it, and who we are."""

    storage: Storage
    log: CommitLog
    identity: Identity
    conditional: bool
    """Whether the store honours conditional writes (else: the weaker mode of `commit_log`)."""

    def claim(self) -> None:
        """Announce our epoch, as rank 0, before looking for a restore point; or be fenced out."""
        who = self.identity
        self.log.append(CommitRecord(CLAIM, who.epoch, who.attempt_id, who.session, at_us=now_us()))

    def load(self, record: CommitRecord) -> RestorePoint:
        """Load this rank's part of a commit, verified."""
        who = self.identity
        return load_commit(self.storage, record, rank=who.rank, world_size=who.world_size)


def open_archive(storage: Storage, identity: Identity) -> Archive:
    """Probe the store and open the job's log."""
    probe = f"{job_prefix(identity.job_id)}probes/{new_nonce():015x}"
    conditional = keeps_conditions(storage, probe_key=probe)
    log = CommitLog(storage, job_id=identity.job_id, conditional=conditional)
    return Archive(storage, log, identity, conditional)


def next_epoch(storage: Storage, *, job_id: str) -> int:
    """Return an epoch above all others, for a process that nobody gave one."""
    return CommitLog(storage, job_id=job_id).history().epoch + 1


class Retirement:
    """Deletes what retention does not keep. Run by rank 0 after a commit, now and then."""

    def __init__(self, archive: Archive, *, policy: Retention, grace_us: int = GRACE_US) -> None:
        """Manifests never change, so each is read once."""
        self._archive = archive
        self._policy = policy
        self._grace_us = grace_us
        self._manifests: dict[str, Manifest] = {}
        self.protected: frozenset[str] = frozenset()
        """Manifests that stay whatever the policy says: the restore point in use."""

    def sweep(self) -> tuple[str, ...]:
        """Delete garbage of this job and trim its log; return the deleted keys.

        Chunks are shared under a root: they are swept only while the root has no other job.
        """
        kept = kept_commits(
            self._archive.log.history().commits,
            policy=self._policy,
            now_us=now_us(),
            protected=self.protected,
        )
        needed = marked(pair for record in kept for pair in self._manifests_of(record))
        doomed = garbage(self._objects(), needed=needed, now_us=now_us(), grace_us=self._grace_us)
        for key in doomed:
            self._archive.storage.delete(key)
        self._archive.log.trim(keep=_RECORDS_KEPT, needed={record.seq for record in kept})
        return doomed

    def _objects(self) -> tuple[StoredObject, ...]:
        storage = self._archive.storage
        ours = job_prefix(self._archive.identity.job_id)
        found = [*storage.list(f"{ours}manifests/"), *storage.list(f"{ours}parts/")]
        if all(item.key.startswith(ours) for item in storage.list(JOBS)):
            found.extend(storage.list(CHUNKS))
        return tuple(found)

    def _manifests_of(self, record: CommitRecord) -> Iterator[tuple[str, Manifest]]:
        top = self._read(record.manifest, record.manifest_blake3)
        if top is None:
            return
        yield record.manifest, top
        for part in top.parts:
            found = self._read(part.key, part.blake3)
            if found is not None:
                yield part.key, found

    def _read(self, key: str, blake3: str) -> Manifest | None:
        if key not in self._manifests:
            try:
                self._manifests[key] = read_manifest(self._archive.storage, key, blake3=blake3)
            except CorruptCheckpoint:
                return None  # nobody can load it, so it needs nothing
        return self._manifests[key]
