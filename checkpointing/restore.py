"""Verified loading: every byte is checked before any of it is used.

A manifest must have the hash that its commit names, a chunk the hash that the manifest names. What
does not verify is fetched once more and then refused; the caller falls back to an older commit.
Nothing is applied here: a whole state comes back, or an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from checkpointing.commit import CommitRecord
from checkpointing.documents import read_document
from checkpointing.errors import CheckpointError, MissingObject, corrupt
from checkpointing.hashing import blake3_hex
from checkpointing.keys import chunk_key
from checkpointing.manifest import ChunkRef, Manifest
from checkpointing.regions import reserve
from checkpointing.state_tree import unflatten
from checkpointing.storage import Storage
from checkpointing.tensor_bytes import build, expected_bytes

PARALLEL_GETS: Final = 4
_TRIES: Final = 2


@dataclass(frozen=True, slots=True)
class Loaded:
    """One manifest's state, verified."""

    manifest: Manifest
    state: object
    chunks: frozenset[str]
    """Names of the chunks that it was read from."""


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """A commit as one rank sees it: the replicated state and the rank's own."""

    record: CommitRecord
    shared: Loaded
    own: Loaded
    """For rank 0 the same as `shared`."""

    @property
    def length(self) -> int:
        """Bytes that were loaded."""
        extra = 0 if self.own is self.shared else self.own.manifest.length
        return self.shared.manifest.length + extra


def load_commit(
    storage: Storage, record: CommitRecord, *, rank: int = 0, world_size: int = 1
) -> RestorePoint:
    """Load what `rank` needs of the commit; raise `CorruptCheckpoint` if any byte is wrong."""
    manifest = read_document(storage, record.manifest, blake3=record.manifest_blake3)
    if manifest.world_size != world_size:
        raise _world_mismatch(manifest, world_size)
    shared = load_manifest(storage, manifest, key=record.manifest)
    if rank == 0:
        return RestorePoint(record, shared, shared)
    part = manifest.parts[rank - 1]
    own = read_document(storage, part.key, blake3=part.blake3)
    return RestorePoint(record, shared, load_manifest(storage, own, key=part.key))


def load_manifest(storage: Storage, manifest: Manifest, *, key: str) -> Loaded:
    """Load all that `manifest`, found under `key`, names; raise `CorruptCheckpoint`."""
    for number in range(len(manifest.tensors)):
        _check_size(manifest, number, key=key)
    regions = reserve(manifest)
    with ThreadPoolExecutor(PARALLEL_GETS) as pool:
        reads = [
            pool.submit(read_chunk, storage, ref, target=target)
            for ref, target in zip(regions.chunks, regions.targets, strict=True)
        ]
        for read in reads:
            read.result()
    tensors = [
        build(entry.dtype, shape=entry.shape, data=regions.bytes_of(entry))
        for entry in manifest.tensors
    ]
    names = frozenset(chunk.name for chunk in manifest.chunks)
    return Loaded(manifest, unflatten(manifest.tree, tensors), names)


def read_chunk(storage: Storage, ref: ChunkRef, *, target: memoryview) -> None:
    """Fill `target` with a chunk, once more if the first bytes are wrong; raise if they stay so."""
    key, why = chunk_key(ref.name), ""
    for _ in range(_TRIES):
        try:
            count = storage.get_into(key, target)
        except MissingObject:
            why = "it is not there"
            continue
        if count == ref.length and blake3_hex(target) == ref.blake3:
            return
        why = f"its hash does not match ({count} bytes found)"
    raise corrupt(key, why=why)


def state_fields(loaded: Loaded) -> Mapping[str, object]:
    """Return the state as the mapping that a session saved; raise `CorruptCheckpoint`."""
    if not isinstance(loaded.state, dict):
        raise corrupt("a manifest", why="its state is not a mapping")
    return loaded.state


def _check_size(manifest: Manifest, number: int, *, key: str) -> None:
    entry = manifest.tensors[number]
    size = sum(part.length for part in entry.parts)
    if size != expected_bytes(entry.dtype, entry.shape):
        raise corrupt(key, why=f"tensor {number} has {size} bytes, not what its shape needs")


def _world_mismatch(manifest: Manifest, world_size: int) -> CheckpointError:
    return CheckpointError(
        "restore-world-size",
        cause=(
            f"The checkpoint of step {manifest.step} was saved by {manifest.world_size} ranks "
            f"and this training has {world_size}."
        ),
        remedy=f"Start it with {manifest.world_size} ranks, or as a new job.",
    )
