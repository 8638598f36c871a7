"""Where each tensor lies in the arena, and where the arena is cut into chunks. Pure.

Chunks are 16 to 32 MiB (smaller only at the end of a group). A large tensor has chunks of its own
and small ones of a group share one, so that a tensor which does not change keeps its chunks and is
not sent again. A group lies together wherever its tensors stand in the state: the adapters between
the frozen layers of a model make one small chunk, not one in every chunk of the model.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from checkpointing.manifest import Part

CHUNK_BYTES: Final = 16 * 2**20
"""A chunk holds at least this much, and less than twice as much."""
_ALIGNMENT: Final = 64  # a cache line; every dtype's own alignment divides it


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets in bytes. `chunks` are half-open ranges that hold every tensor between them."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    chunks: tuple[tuple[int, int], ...]
    pieces: tuple[tuple[Part, ...], ...]
    """Per tensor, which bytes of which chunks it is."""

    @property
    def total_bytes(self) -> int:
        """Bytes of arena in use."""
        return self.chunks[-1][1] if self.chunks else 0

    def parts(self, index: int) -> tuple[Part, ...]:
        """Say which bytes of which chunks are tensor `index`; none for an empty tensor."""
        return self.pieces[index]


def plan_layout(
    sizes: Sequence[int], *, groups: Sequence[str], chunk_bytes: int = CHUNK_BYTES
) -> Layout:
    """Lay out tensors of `sizes` bytes; `groups` (one name each) never share a chunk.

    The newest plans are remembered: a training asks for the same one at every save.
    """
    assert len(sizes) == len(groups), (len(sizes), len(groups))
    return _planned(tuple(sizes), tuple(groups), chunk_bytes)


@lru_cache(maxsize=4)
def _planned(sizes: tuple[int, ...], groups: tuple[str, ...], chunk_bytes: int) -> Layout:
    offsets = [0] * len(sizes)
    chunks: list[tuple[int, int]] = []
    cursor = opened = 0
    rank = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    order = sorted(range(len(sizes)), key=lambda index: rank[groups[index]])
    previous = groups[0] if groups else ""
    for index in order:
        size, group = sizes[index], groups[index]
        alone = size >= chunk_bytes
        if group != previous or alone or cursor + size - opened >= 2 * chunk_bytes:
            opened = cursor = _close(chunks, opened, cursor)
        offsets[index] = cursor
        if alone:
            chunks.extend(_cuts(cursor, cursor + size, chunk_bytes))
            opened = cursor = _aligned(cursor + size)
        cursor = _aligned(cursor + size) if not alone else cursor
        previous = group
    _close(chunks, opened, cursor)
    pieces = tuple(
        tuple(_overlaps(start, start + size, chunks)) if size else ()
        for start, size in zip(offsets, sizes, strict=True)
    )
    return Layout(tuple(offsets), sizes, tuple(chunks), pieces)


def _close(chunks: list[tuple[int, int]], opened: int, cursor: int) -> int:
    if cursor > opened:
        chunks.append((opened, cursor))
    return cursor


def _cuts(start: int, end: int, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    while end - start >= 2 * chunk_bytes:
        yield start, start + chunk_bytes
        start += chunk_bytes
    yield start, end


def _overlaps(start: int, end: int, chunks: Sequence[tuple[int, int]]) -> Iterator[Part]:
    number = bisect_right(chunks, start, key=_first) - 1
    while number < len(chunks) and chunks[number][0] < end:
        low, high = chunks[number]
        first, last = max(start, low), min(end, high)
        if first < last:
            yield Part(chunk=number, offset=first - low, length=last - first)
        number += 1


def _first(chunk: tuple[int, int]) -> int:
    return chunk[0]


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
