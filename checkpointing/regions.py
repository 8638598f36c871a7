"""Memory that a checkpoint is read into: each chunk straight to where its tensors will lie.

Consecutive chunks of one tensor share a region, so that the tensor is a view of it and nothing is
copied after the read. Regions are separate mappings, each freed with the last tensor in it.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from checkpointing.manifest import ChunkRef, Manifest, Part, TensorEntry

_MAPPED_BYTES: Final = 1 << 20  # smaller regions are ordinary memory: mappings are few


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """`targets` has one writable view per chunk, in the manifest's order."""

    chunks: tuple[ChunkRef, ...]
    targets: tuple[memoryview, ...]
    _homes: tuple[tuple[memoryview, int], ...]
    """The region of each chunk, and the offset of the chunk in it."""

    def bytes_of(self, entry: TensorEntry) -> memoryview:
        """Return a tensor's bytes: a view where they lie together, else a copy."""
        if not entry.parts:
            return memoryview(b"")
        if _is_run(entry.parts, self.chunks):
            region, offset = self._homes[entry.parts[0].chunk]
            start = offset + entry.parts[0].offset
            return region[start : start + sum(part.length for part in entry.parts)]
        pieces = (self.targets[p.chunk][p.offset : p.offset + p.length] for p in entry.parts)
        return memoryview(bytearray(b"".join(pieces)))


def reserve(manifest: Manifest) -> Regions:
    """Take memory for all chunks of `manifest`."""
    homes: list[tuple[memoryview, int]] = []
    for run in _runs(manifest):
        region = _memory(sum(chunk.length for chunk in run))
        offset = 0
        for chunk in run:
            homes.append((region, offset))
            offset += chunk.length
    targets = tuple(
        region[offset : offset + chunk.length]
        for chunk, (region, offset) in zip(manifest.chunks, homes, strict=True)
    )
    return Regions(manifest.chunks, targets, tuple(homes))


def _runs(manifest: Manifest) -> list[list[ChunkRef]]:
    """Cut the chunks into runs that some tensor goes through."""
    joined: set[int] = set()
    for entry in manifest.tensors:
        if _is_run(entry.parts, manifest.chunks):
            joined.update(part.chunk for part in entry.parts[1:])
    runs: list[list[ChunkRef]] = []
    for number, chunk in enumerate(manifest.chunks):
        if number in joined:
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return runs


def _is_run(parts: Sequence[Part], chunks: Sequence[ChunkRef]) -> bool:
    """Say whether the parts follow each other without a gap when the chunks do."""
    return all(
        after.chunk == before.chunk + 1
        and after.offset == 0
        and before.offset + before.length == chunks[before.chunk].length
        for before, after in pairwise(parts)
    )


def _memory(size: int) -> memoryview:
    if size < _MAPPED_BYTES:
        return memoryview(bytearray(size))
    region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Fresh pages are what a read into memory waits for: 2 MiB at a time, not 4 KiB.
        region.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(region)
