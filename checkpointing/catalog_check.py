"""Reading every byte of checkpoints again: is it what was committed, and what has changed?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from checkpointing.catalog import Checkpoint
from checkpointing.catalog_tree import NamedTensor, named_tensors
from checkpointing.errors import MissingObject
from checkpointing.hashing import blake3_hex
from checkpointing.keys import chunk_key
from checkpointing.manifest import ChunkRef
from checkpointing.storage import Storage

PARALLEL_READS: Final = 4
Tell = Callable[[int], None]
"""Hears how many more bytes are done."""


@dataclass(frozen=True, slots=True)
class WrongChunk:
    """A chunk whose bytes are not what its name says."""

    name: str
    why: str
    steps: tuple[int, ...]
    """Steps of the checkpoints that cannot be loaded for it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What distinguishes two checkpoints; tensors by name."""

    changed: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    reshaped: tuple[str, ...]
    """Of the changed ones, those with another dtype or shape."""
    equal: int
    shared_bytes: int
    """Bytes of the chunks that both have."""
    only_first_bytes: int
    only_second_bytes: int


def verify(
    storage: Storage, checkpoints: Iterable[Checkpoint], *, tell: Tell = lambda _count: None
) -> tuple[WrongChunk, ...]:
    """Read and hash every chunk once; return those that are wrong."""
    users: dict[str, set[int]] = {}
    chunks: dict[str, ChunkRef] = {}
    for checkpoint in checkpoints:
        for name, chunk in checkpoint.chunks.items():
            chunks[name] = chunk
            users.setdefault(name, set()).add(checkpoint.record.step)

    def check(chunk: ChunkRef) -> str | None:
        why = wrong(storage, chunk)
        tell(chunk.length)
        return why

    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        found = zip(chunks, pool.map(check, chunks.values()), strict=True)
        return tuple(
            WrongChunk(name, why, tuple(sorted(users[name]))) for name, why in found if why
        )


def wrong(storage: Storage, chunk: ChunkRef) -> str | None:
    """Say what is wrong with a stored chunk, or None."""
    try:
        return mismatch(chunk, storage.get(chunk_key(chunk.name)))
    except MissingObject:
        return "it is not there"


def mismatch(chunk: ChunkRef, data: bytes) -> str | None:
    """Say in what `data` differs from what `chunk` promises, or None."""
    if len(data) != chunk.length:
        return f"it has {len(data):,} bytes instead of {chunk.length:,}"
    return None if blake3_hex(data) == chunk.blake3 else "its bytes have changed"


def compare(storage: Storage, first: Checkpoint, second: Checkpoint) -> Difference:
    """Compare two checkpoints, byte by byte where their chunks differ."""
    old, new = _tensors(first), _tensors(second)
    both = [place for place in old if place in new]
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        same = list(pool.map(lambda place: _same(storage, old[place], new[place]), both))
    changed = [place for place, equal in zip(both, same, strict=True) if not equal]
    mine, theirs = first.chunks, second.chunks
    return Difference(
        changed=tuple(new[place].name for place in changed),
        added=tuple(one.name for place, one in new.items() if place not in old),
        removed=tuple(one.name for place, one in old.items() if place not in new),
        reshaped=tuple(new[at].name for at in changed if _kind(old[at]) != _kind(new[at])),
        equal=sum(same),
        shared_bytes=sum(one.length for name, one in mine.items() if name in theirs),
        only_first_bytes=sum(one.length for name, one in mine.items() if name not in theirs),
        only_second_bytes=sum(one.length for name, one in theirs.items() if name not in mine),
    )


def _tensors(checkpoint: Checkpoint) -> Mapping[object, NamedTensor]:
    """All tensors by rank and path, in the state's order."""
    return {
        (manifest.rank, tensor.path): tensor
        for manifest in checkpoint.manifests
        for tensor in named_tensors(manifest)
    }


def _kind(tensor: NamedTensor) -> tuple[object, ...]:
    return tensor.entry.dtype, tensor.entry.shape, tensor.entry.shard


def _same(storage: Storage, one: NamedTensor, other: NamedTensor) -> bool:
    if _kind(one) != _kind(other):
        return False
    if one.content == other.content:
        return True
    if one.has_own_chunks and other.has_own_chunks and _cut(one) == _cut(other):
        return False
    return _bytes(storage, one) == _bytes(storage, other)


def _cut(tensor: NamedTensor) -> tuple[int, ...]:
    return tuple(part.length for part in tensor.entry.parts)


def _bytes(storage: Storage, tensor: NamedTensor) -> str:
    """Return the hash of a tensor's bytes."""
    chunks = tensor.manifest.chunks
    pieces = [
        storage.get_range(chunk_key(chunks[part.chunk].name), part.offset, part.length)
        for part in tensor.entry.parts
    ]
    return blake3_hex(b"".join(pieces))
