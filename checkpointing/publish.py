"""From a snapshot to a commit: chunks, then the manifest, then the commit record.

Nothing that a reader can reach names a chunk before it is stored, so a crash anywhere leaves the
previous commit as it was. In a gang, ranks other than 0 leave a manifest of their own part, and
rank 0 commits when all parts are in, or nobody does. Needs no torch: the uploader process runs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from checkpointing.clock import monotonic_us, now_us, pause
from checkpointing.commit import COMMIT, CommitRecord
from checkpointing.commit_log import CommitLog
from checkpointing.errors import CheckpointError
from checkpointing.hashing import blake3_hex, crc32c
from checkpointing.identity import Identity
from checkpointing.keys import (
    chunk_key,
    failure_key,
    intent_key,
    manifest_key,
    part_key,
    parts_prefix,
    split_name,
)
from checkpointing.manifest import ChunkRef, Manifest, RankPart, encode
from checkpointing.pins import pin
from checkpointing.provenance import position
from checkpointing.snapshot import Snapshot
from checkpointing.storage import Storage
from checkpointing.sweeps import SaveGuard

PARALLEL_PUTS: Final = 4
_POLL_S: Final = 0.05
_ROUNDS: Final = 5  # sweeps are minutes apart: a save that meets more than one is rare


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
        self,
        storage: Storage,
        *,
        log: CommitLog,
        identity: Identity,
        provenance: Mapping[str, str] | None = None,
        gang_deadline_s: float = 120,
    ) -> None:
        """`gang_deadline_s`: how long rank 0 waits for the parts of the others."""
        self._storage = storage
        self._log = log
        self._identity = identity
        self._gang_deadline_us = int(gang_deadline_s * 1_000_000)
        self._guard = SaveGuard(storage)
        self._provenance = dict(provenance or {})
        self._pins: list[str] = []
        self._unsettled: tuple[int, frozenset[str]] = (-1, frozenset())

    def adopt(self, manifest: str, *, chunks: frozenset[str]) -> None:
        """Build on the manifest of this key: pin it, and do not send its `chunks` again."""
        self._provenance["parent"] = manifest
        self._pins.append(pin(self._storage, manifest, who=self._identity))
        self._guard.adopt(chunks, is_there=lambda: self._storage.exists(manifest))

    def settle(self, step: int) -> None:
        """Learn that the gang committed `step`: the next save will hardly need older chunks."""
        published, chunks = self._unsettled
        if published == step:
            self._guard.keep(chunks)

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
        new_bytes = 0
        self._guard.begin()
        for _ in range(_ROUNDS):
            refs, sent = self._put_chunks(snapshot.chunks)
            new_bytes += sent
            names = frozenset(ref.name for ref in refs)
            manifest = self._manifest(snapshot, refs, prefix)
            data = encode(manifest)
            draft = self._draft_key(snapshot.step, blake3_hex(data))
            self._storage.put(draft, data)
            if not self._guard.lost(names, document=draft):
                self._unsettled = snapshot.step, names
                key = self._hand_in(manifest, data, draft=draft, prefix=prefix)
                return Published(snapshot.step, now_us(), manifest.length, new_bytes, key)
            self._storage.delete(draft)  # it names chunks that a sweep takes; the next one does not
        raise _swept_away()

    def _hand_in(self, manifest: Manifest, data: bytes, *, draft: str, prefix: str) -> str:
        """Make what is stored count, now that no sweep takes it; return its key."""
        if not self._identity.rank:
            self._commit(manifest, key=draft, blake3=blake3_hex(data))
            self.settle(manifest.step)
            self._drop_pins()
            return draft
        key = part_key(prefix, rank=self._identity.rank, blake3=blake3_hex(data))
        self._storage.put(key, data)
        self._storage.delete(draft)
        return key

    def _draft_key(self, step: int, blake3: str) -> str:
        who = self._identity
        if not who.rank:
            return manifest_key(who.job_id, step=step, blake3=blake3)
        return intent_key(who.job_id, session=who.session, step=step, rank=who.rank, blake3=blake3)

    def _drop_pins(self) -> None:
        while self._pins:  # our own commit names all that we need from here on
            self._storage.delete(self._pins.pop())

    def _put_chunks(self, chunks: Sequence[memoryview]) -> tuple[tuple[ChunkRef, ...], int]:
        with ThreadPoolExecutor(PARALLEL_PUTS) as pool:
            stored = list(pool.map(self._put_chunk, chunks))
        return tuple(ref for ref, _ in stored), sum(sent for _, sent in stored)

    def _put_chunk(self, data: memoryview) -> tuple[ChunkRef, int]:
        name, there = self._guard.place(blake3_hex(data))
        blake3, copy = split_name(name)
        ref = ChunkRef(blake3, length=data.nbytes, crc32c=crc32c(data), copy=copy)
        if there:
            return ref, 0
        self._storage.put(chunk_key(name), data, crc32c=ref.crc32c)
        self._guard.sent(name)
        return ref, data.nbytes

    def _manifest(self, snapshot: Snapshot, chunks: tuple[ChunkRef, ...], prefix: str) -> Manifest:
        rank = self._identity.rank
        return Manifest(
            job_id=self._identity.job_id,
            epoch=self._identity.epoch,
            step=snapshot.step,
            rank=rank,
            world_size=self._identity.world_size,
            tree=snapshot.tree,
            tensors=snapshot.tensors,
            chunks=chunks,
            parts=() if rank else self._await_parts(prefix),
            provenance=self._provenance | position(snapshot.tree),
        )

    def _commit(self, manifest: Manifest, *, key: str, blake3: str) -> None:
        self._log.append(
            CommitRecord(
                kind=COMMIT,
                epoch=self._identity.epoch,
                attempt_id=self._identity.attempt_id,
                session=self._identity.session,
                at_us=now_us(),
                step=manifest.step,
                manifest=key,
                manifest_blake3=blake3,
                length=manifest.length,
            )
        )

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


def _swept_away() -> CheckpointError:
    return CheckpointError(
        "save-overtaken",
        cause=f"The save was given up: {_ROUNDS} sweeps in a row took what it had just stored.",
        remedy="Training goes on and the next save tries again; sweep less often.",
    )


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
