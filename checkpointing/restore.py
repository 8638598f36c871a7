"""Verified loading: every byte is checked before any of it is used.

A manifest must have the hash that its commit names, a chunk the hash that the manifest names. What
does not verify is fetched once more and then refused; the caller falls back to an older commit.
Nothing is applied here: a whole state comes back, or an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple

from checkpointing.commit import CommitRecord
from checkpointing.errors import CheckpointError, MissingObject, corrupt
from checkpointing.hashing import blake3_hex
from checkpointing.keys import chunk_key
from checkpointing.manifest import ChunkRef, Manifest, Part, check_parts, decode
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
    manifest = read_manifest(storage, record.manifest, blake3=record.manifest_blake3)
    if manifest.world_size != world_size:
        raise _world_mismatch(manifest, world_size)
    shared = _load(storage, manifest, key=record.manifest)
    if rank == 0:
        return RestorePoint(record, shared, shared)
    part = manifest.parts[rank - 1]
    own = _load(storage, read_manifest(storage, part.key, blake3=part.blake3), key=part.key)
    return RestorePoint(record, shared, own)


def read_manifest(storage: Storage, key: str, *, blake3: str) -> Manifest:
    """Read and verify one manifest; raise `CorruptCheckpoint`."""
    manifest = decode(_fetch(storage, key, expected=blake3), key=key)
    check_parts(manifest, key=key)
    return manifest


def _load(storage: Storage, manifest: Manifest, *, key: str) -> Loaded:
    buffers = [bytearray(_size(manifest, number, key)) for number in range(len(manifest.tensors))]
    with ThreadPoolExecutor(PARALLEL_GETS) as pool:
        list(pool.map(_filler(storage, buffers), _jobs(manifest)))
    tensors = [
        build(entry.dtype, shape=entry.shape, data=data)
        for entry, data in zip(manifest.tensors, buffers, strict=True)
    ]
    names = frozenset(chunk.blake3 for chunk in manifest.chunks)
    return Loaded(manifest, unflatten(manifest.tree, tensors), names)


class _Piece(NamedTuple):
    tensor: int
    at: int
    part: Part


def _jobs(manifest: Manifest) -> Iterator[tuple[ChunkRef, list[_Piece]]]:
    pieces: dict[int, list[_Piece]] = {number: [] for number in range(len(manifest.chunks))}
    for tensor, entry in enumerate(manifest.tensors):
        at = 0
        for part in entry.parts:
            pieces[part.chunk].append(_Piece(tensor, at, part))
            at += part.length
    return ((manifest.chunks[number], wanted) for number, wanted in pieces.items())


def _filler(
    storage: Storage, buffers: list[bytearray]
) -> Callable[[tuple[ChunkRef, list[_Piece]]], None]:
    def fill(job: tuple[ChunkRef, list[_Piece]]) -> None:
        ref, wanted = job
        data = memoryview(_fetch(storage, chunk_key(ref.blake3), expected=ref.blake3))
        for tensor, at, part in wanted:
            view = memoryview(buffers[tensor])
            view[at : at + part.length] = data[part.offset : part.offset + part.length]

    return fill


def _fetch(storage: Storage, key: str, *, expected: str) -> bytes:
    """Get an object whose BLAKE3 must be `expected`, once more if the first bytes are wrong."""
    why = ""
    for _ in range(_TRIES):
        try:
            data = storage.get(key)
        except MissingObject:
            why = "it is not there"
            continue
        if blake3_hex(data) == expected:
            return data
        why = f"its hash does not match ({len(data)} bytes found)"
    raise corrupt(key, why=why)


def _size(manifest: Manifest, number: int, key: str) -> int:
    entry = manifest.tensors[number]
    size = sum(part.length for part in entry.parts)
    if size != expected_bytes(entry.dtype, entry.shape):
        raise corrupt(key, why=f"tensor {number} has {size} bytes, not what its shape needs")
    return size


def _world_mismatch(manifest: Manifest, world_size: int) -> CheckpointError:
    return CheckpointError(
        "restore-world-size",
        cause=(
            f"The checkpoint of step {manifest.step} was saved by {manifest.world_size} ranks "
            f"and this training has {world_size}."
        ),
        remedy=f"Start it with {manifest.world_size} ranks, or as a new job.",
    )


def state_fields(loaded: Loaded) -> Mapping[str, object]:
    """Return the state as the mapping that a session saved; raise `CorruptCheckpoint`."""
    if not isinstance(loaded.state, dict):
        raise corrupt("a manifest", why="its state is not a mapping")
    return loaded.state
