"""From a snapshot to a commit: chunks, then the manifest, then the commit record.

Nothing that a reader can reach names a chunk before it is stored, so a crash anywhere leaves the
previous commit as it was. In a gang, ranks other than 0 leave a manifest of their own part, and
rank 0 commits when all parts are in, or nobody does. Needs no torch: the uploader process runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from checkpointing.clock import monotonic_us, now_us, pause
from checkpointing.commit import COMMIT, CommitRecord
from checkpointing.commit_log import CommitLog
from checkpointing.errors import CheckpointError
from checkpointing.hashing import blake3_hex, crc32c
from checkpointing.keys import chunk_key, failure_key, manifest_key, part_key, parts_prefix
from checkpointing.manifest import ChunkRef, Manifest, RankPart, encode
from checkpointing.snapshot import Snapshot
from checkpointing.storage import Storage

PARALLEL_PUTS: Final = 4
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Identity:
    """Who saves: one rank of one session of one attempt."""

    job_id: str
    attempt_id: str
    epoch: int
    session: int
    rank: int = 0
    world_size: int = 1


@dataclass(frozen=True, slots=True)
class Published:
    """A part that is safely stored; for rank 0, a commit."""

    step: int
    at_us: int
    length: int
    new_bytes: int
    """Bytes that the store did not hold yet and that were sent."""
    manifest: str


class Publisher:
    """Stores snapshots of one rank. Used by one thread or process at a time."""

    def __init__(
        self, storage: Storage, *, log: CommitLog, identity: Identity, gang_deadline_s: float = 120
    ) -> None:
        """`gang_deadline_s`: how long rank 0 waits for the parts of the others."""
        self._storage = storage
        self._log = log
        self._identity = identity
        self._gang_deadline_us = int(gang_deadline_s * 1_000_000)
        self._known: frozenset[str] = frozenset()
        self._unsettled: tuple[int, frozenset[str]] = (-1, frozenset())

    def know(self, chunks: frozenset[str]) -> None:
        """Take `chunks` as stored for good: a retained commit holds them."""
        self._known = chunks

    def settle(self, step: int) -> None:
        """Learn that the gang committed `step`: what we published for it is stored for good."""
        published, chunks = self._unsettled
        if published == step:
            self._known = chunks

    def publish(self, snapshot: Snapshot) -> Published:
        """Store a part and, as rank 0, commit; raise `CheckpointError` or `FencedOut`."""
        prefix = self._parts_prefix(snapshot.step)
        try:
            return self._publish(snapshot, prefix)
        except CheckpointError as error:
            if self._identity.rank:
                self._storage.put(
                    failure_key(prefix, rank=self._identity.rank), error.cause.encode()
                )
            raise

    def _publish(self, snapshot: Snapshot, prefix: str) -> Published:
        refs, new_bytes = self._put_chunks(snapshot.chunks)
        self._unsettled = snapshot.step, frozenset(ref.blake3 for ref in refs)
        manifest = self._manifest(snapshot, refs)
        if self._identity.rank:
            data = encode(manifest)
            key = part_key(prefix, rank=self._identity.rank, blake3=blake3_hex(data))
            self._storage.put(key, data)
        else:
            manifest = replace(manifest, parts=self._await_parts(prefix))
            key = self._commit(manifest)
            self.settle(snapshot.step)
        return Published(snapshot.step, now_us(), manifest.length, new_bytes, key)

    def _put_chunks(self, chunks: Sequence[memoryview]) -> tuple[tuple[ChunkRef, ...], int]:
        with ThreadPoolExecutor(PARALLEL_PUTS) as pool:
            stored = list(pool.map(self._put_chunk, chunks))
        return tuple(ref for ref, _ in stored), sum(sent for _, sent in stored)

    def _put_chunk(self, data: memoryview) -> tuple[ChunkRef, int]:
        ref = ChunkRef(blake3=blake3_hex(data), length=data.nbytes, crc32c=crc32c(data))
        if ref.blake3 in self._known:
            return ref, 0
        self._storage.put(chunk_key(ref.blake3), data, crc32c=ref.crc32c)
        return ref, data.nbytes

    def _manifest(self, snapshot: Snapshot, chunks: tuple[ChunkRef, ...]) -> Manifest:
        return Manifest(
            job_id=self._identity.job_id,
            epoch=self._identity.epoch,
            step=snapshot.step,
            rank=self._identity.rank,
            world_size=self._identity.world_size,
            tree=snapshot.tree,
            tensors=snapshot.tensors,
            chunks=chunks,
        )

    def _commit(self, manifest: Manifest) -> str:
        data = encode(manifest)
        name = blake3_hex(data)
        key = manifest_key(manifest.job_id, step=manifest.step, blake3=name)
        self._storage.put(key, data)
        self._log.append(
            CommitRecord(
                kind=COMMIT,
                epoch=self._identity.epoch,
                attempt_id=self._identity.attempt_id,
                session=self._identity.session,
                at_us=now_us(),
                step=manifest.step,
                manifest=key,
                manifest_blake3=name,
                length=manifest.length,
            )
        )
        return key

    def _await_parts(self, prefix: str) -> tuple[RankPart, ...]:
        others = range(1, self._identity.world_size)
        until_us = monotonic_us() + self._gang_deadline_us
        found: dict[int, RankPart] = {}
        while len(found) < len(others):
            found = self._parts(prefix)
            if monotonic_us() > until_us:
                raise _gang_late(sorted(set(others) - set(found)))
            if len(found) < len(others):
                pause(_POLL_S)
        return tuple(found[rank] for rank in others)

    def _parts(self, prefix: str) -> dict[int, RankPart]:
        found = {}
        for item in self._storage.list(prefix):
            rank, _, name = item.key.removeprefix(prefix).partition("-")
            if name == "failed":
                raise _gang_failed(int(rank), self._storage.get(item.key).decode())
            found[int(rank)] = RankPart(int(rank), item.key, name.removesuffix(".json"))
        return found

    def _parts_prefix(self, step: int) -> str:
        session = self._identity.session
        return parts_prefix(self._identity.job_id, session=session, step=step)


def _gang_late(ranks: Sequence[int]) -> CheckpointError:
    return CheckpointError(
        "gang-late",
        cause=f"The save was given up: ranks {list(ranks)} did not deliver in time.",
        remedy="Training goes on and the next save tries again; check those nodes.",
    )


def _gang_failed(rank: int, cause: str) -> CheckpointError:
    return CheckpointError(
        "gang-failed",
        cause=f"The save was given up: rank {rank} failed: {cause}",
        remedy="Training goes on and the next save tries again; mend that rank.",
    )
