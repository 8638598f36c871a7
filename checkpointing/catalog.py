"""Looking at a job's checkpoints from outside: which there are, and what each holds.

For operators: nothing is claimed, nothing is applied, and only `retirement` ever deletes. Needs no
torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from checkpointing.archive import Archive, open_log
from checkpointing.commit import CommitRecord, History
from checkpointing.documents import read_document
from checkpointing.errors import CheckpointError, CorruptCheckpoint
from checkpointing.identity import Identity
from checkpointing.keys import JOBS, commits_prefix, job_of
from checkpointing.manifest import ChunkRef, Manifest
from checkpointing.retention import Retention, kept_commits
from checkpointing.storage import Storage

NEWEST: Final = "newest"
RETIRED: Final = "retired"
_READERS: Final = 8
_STEP: Final = "step="


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A commit and the manifests that it stands for, rank 0's first."""

    record: CommitRecord
    manifests: tuple[Manifest, ...]

    @property
    def chunks(self) -> Mapping[str, ChunkRef]:
        """All chunks by name; what several ranks or tensors share is there once."""
        return {chunk.name: chunk for one in self.manifests for chunk in one.chunks}

    @property
    def length_bytes(self) -> int:
        """Bytes of all chunks."""
        return sum(chunk.length for chunk in self.chunks.values())


@dataclass(frozen=True, slots=True)
class CommitLine:
    """One commit as a list shows it."""

    record: CommitRecord
    checkpoint: Checkpoint | None
    """None if its manifest, or a rank's part, cannot be read."""
    state: str
    """`newest`, `kept`, `would be retired`, `retired`, or `damaged: ` and why."""
    new_bytes: int
    """Bytes of the chunks that the commit before did not have."""


class Catalog:
    """The checkpoints of one job."""

    def __init__(self, storage: Storage, *, job_id: str) -> None:
        """Read the log with the keys that the environment names."""
        self.storage = storage
        self.job_id = job_id
        self._log = open_log(storage, job_id=job_id)
        self.history: History = self._log.history()

    def read(self, record: CommitRecord) -> Checkpoint:
        """Read and verify a commit's manifests; raise `CorruptCheckpoint`."""
        top = read_document(self.storage, record.manifest, blake3=record.manifest_blake3)
        parts = (read_document(self.storage, p.key, blake3=p.blake3) for p in top.parts)
        return Checkpoint(record, (top, *parts))

    def find(self, wanted: str) -> CommitRecord:
        """Return the commit called `newest`, a number, or `step=N`; raise `CheckpointError`."""
        for record in self.history.commits:
            if wanted in {NEWEST, str(record.seq), f"{_STEP}{record.step}"}:
                return record
        raise _no_commit(self, wanted)

    def lines(self, policy: Retention, *, now_us: int) -> tuple[CommitLine, ...]:
        """Describe every commit, newest first, as `policy` would treat it."""
        commits = self.history.commits
        kept = {record.seq for record in kept_commits(commits, policy=policy, now_us=now_us)}
        with ThreadPoolExecutor(_READERS) as pool:
            found = list(pool.map(self._tried, commits))
        return tuple(
            CommitLine(
                record,
                None if isinstance(one, str) else one,
                one if isinstance(one, str) else _state(place, kept=record.seq in kept),
                _new_bytes(found, place),
            )
            for place, (record, one) in enumerate(zip(commits, found, strict=True))
        )

    def archive(self, *, conditional: bool = True) -> Archive:
        """Return the job's archive as an operator sees it: with the epoch of the newest attempt."""
        who = Identity(self.job_id, "operator", self.history.epoch, session=0)
        return Archive(self.storage, self._log, who, conditional)

    def is_retired(self, record: CommitRecord) -> bool:
        """Whether a sweep has deleted the commit's manifest: never the newest commit's."""
        first = self.history.commits[0]
        return record.seq != first.seq and not self.storage.exists(record.manifest)

    def _tried(self, record: CommitRecord) -> Checkpoint | str:
        try:
            return self.read(record)
        except CorruptCheckpoint as error:
            return RETIRED if self.is_retired(record) else f"damaged: {error.cause}"


def jobs_under(storage: Storage) -> tuple[str, ...]:
    """Return the ids of all jobs under a root."""
    return tuple(sorted({job_of(item.key) for item in storage.list(JOBS)}))


def open_catalog(storage: Storage, *, job_id: str | None) -> Catalog:
    """Open a job's catalog, the only job's if none is named; raise `CheckpointError`."""
    if job_id is None:
        found = jobs_under(storage)
        if len(found) != 1:
            raise _which_job(storage, found)
        job_id = found[0]
    elif not storage.list(commits_prefix(job_id)):
        raise _which_job(storage, jobs_under(storage), job_id)
    return Catalog(storage, job_id=job_id)


def _state(place: int, *, kept: bool) -> str:
    if place == 0:
        return NEWEST
    return "kept" if kept else "would be retired"


def _new_bytes(found: Sequence[Checkpoint | str], place: int) -> int:
    mine = found[place]
    before = found[place + 1] if place + 1 < len(found) else None
    if isinstance(mine, str):
        return 0
    old = before.chunks.keys() if isinstance(before, Checkpoint) else ()
    return sum(chunk.length for name, chunk in mine.chunks.items() if name not in old)


def _no_commit(catalog: Catalog, wanted: str) -> CheckpointError:
    there = ", ".join(str(record.seq) for record in catalog.history.commits) or "none"
    return CheckpointError(
        "commit-unknown",
        cause=f"Job {catalog.job_id} has no commit {wanted}; there are: {there}.",
        remedy=f"Name one of them by its number, as {_STEP}N, or as {NEWEST}.",
    )


def _which_job(
    storage: Storage, found: Sequence[str], wanted: str | None = None
) -> CheckpointError:
    if not found:
        return CheckpointError(
            "checkpoints-none",
            cause=f"{storage.uri} holds no checkpoints.",
            remedy="Check the place: it is what LOWTIDE_CHECKPOINT_URI or save_to names.",
        )
    what = f"no job {wanted!r}" if wanted is not None else f"the checkpoints of {len(found)} jobs"
    return CheckpointError(
        "job-unknown" if wanted is not None else "job-ambiguous",
        cause=f"{storage.uri} holds {what}.",
        remedy=f"Name one with --job: {', '.join(found[:20])}{' ...' if len(found) > 20 else ''}",  # noqa: PLR2004
    )
