"""Verified loading: every byte is checked before any of it is used.

A manifest must have the hash that its commit names, a chunk the hash that the manifest names. What
does not verify is fetched once more and then refused; the caller falls back to an older commit.
Nothing is applied here: a whole state comes back, or an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from checkpointing.chunk_reads import PARALLEL_GETS, read_chunk
from checkpointing.commit import CommitRecord
from checkpointing.documents import read_document
from checkpointing.errors import corrupt
from checkpointing.manifest import Manifest
from checkpointing.regions import reserve
from checkpointing.resharding import Place, read_sharded, whole
from checkpointing.sharded import sharded_values, without_shards
from checkpointing.state_tree import unflatten
from checkpointing.storage import Storage
from checkpointing.tensor_bytes import build, expected_bytes


@dataclass(frozen=True, slots=True)
class Loaded:
    """One manifest's state, verified."""

    manifest: Manifest
    state: object
    chunks: frozenset[str]
    """Names of the chunks that it was read from."""


@dataclass(frozen=True, slots=True)
class Moved:
    """That a commit was saved by another number of ranks, and what each of them had of its own."""

    rank: int
    """This rank's place among those that load."""
    states: tuple[Loaded, ...]
    """One per rank that saved."""


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """A commit as one rank sees it: the shared state and the rank's own."""

    record: CommitRecord
    shared: Loaded
    own: Loaded
    """For rank 0 the same as `shared`; for a rank that did not exist, rank 0's."""
    moved: Moved | None = None
    """Set if another number of ranks saved it."""

    @property
    def length(self) -> int:
        """Bytes that were loaded."""
        extra = 0 if self.own is self.shared else self.own.manifest.length
        return self.shared.manifest.length + extra


def load_commit(
    storage: Storage,
    record: CommitRecord,
    *,
    rank: int = 0,
    world_size: int = 1,
    place: Place = whole,
) -> RestorePoint:
    """Load what `rank` needs of the commit; raise `CorruptCheckpoint` if any byte is wrong.

    `place` says which box of each sharded tensor it needs, and makes a tensor of it.
    """
    manifest = read_document(storage, record.manifest, blake3=record.manifest_blake3)
    values = sharded_values(manifest.tree)
    same = manifest.world_size == world_size
    wanted = manifest.parts[rank - 1 : rank] if rank else ()
    parts = {
        part.rank: (part.key, read_document(storage, part.key, blake3=part.blake3))
        for part in (manifest.parts if values or not same else wanted)
    }
    everybody = [manifest, *(part for _, part in parts.values())]
    tensors = read_sharded(storage, everybody, values=values, place=place)
    shared = load_manifest(storage, manifest, key=record.manifest, sharded=tensors)
    if same:
        own = load_manifest(storage, parts[rank][1], key=parts[rank][0]) if rank else shared
        return RestorePoint(record, shared, own)
    others = [load_manifest(storage, part, key=key) for key, part in parts.values()]
    states = (shared, *others)
    own = states[rank] if rank < len(states) else shared
    return RestorePoint(record, shared, own, Moved(rank, states))


def load_manifest(
    storage: Storage,
    manifest: Manifest,
    *,
    key: str,
    sharded: Mapping[str, object] | None = None,
) -> Loaded:
    """Load all that `manifest`, found under `key`, names; raise `CorruptCheckpoint`.

    Its shards are left out: they are parts of the `sharded` tensors, given by name.
    """
    plain = without_shards(manifest)
    for number in range(len(plain.tensors)):
        _check_size(plain, number, key=key)
    regions = reserve(plain)
    with ThreadPoolExecutor(PARALLEL_GETS) as pool:
        reads = [
            pool.submit(read_chunk, storage, ref, target=target)
            for ref, target in zip(regions.chunks, regions.targets, strict=True)
        ]
        for read in reads:
            read.result()
    tensors = [
        build(entry.dtype, shape=entry.shape, data=regions.bytes_of(entry))
        for entry in plain.tensors
    ]
    names = frozenset(chunk.name for chunk in manifest.chunks)
    return Loaded(manifest, unflatten(manifest.tree, tensors, sharded=sharded), names)


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
