"""Reading boxes of stored tensors: only the chunks that hold wanted bytes are fetched, each once.

The bytes of a box lie between its first and its last element, row-major, so whoever wants a few
rows of a large shard fetches the chunks of those rows. A chunk is verified as a whole, always.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from checkpointing.chunk_reads import PARALLEL_GETS, read_chunk
from checkpointing.manifest import ChunkRef, TensorEntry
from checkpointing.storage import Storage
from checkpointing.tensor_bytes import copy_elements, torch_dtype


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """A box of one stored tensor, and the tensor of the box's shape that receives it."""

    entry: TensorEntry
    chunks: Sequence[ChunkRef]
    """Of the manifest that `entry` is in."""
    offsets: tuple[int, ...]
    target: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """The bytes of a stored tensor from `start` on that a wish needs."""

    wish: Wish
    start: int
    data: memoryview


@dataclass(frozen=True, slots=True, eq=False)
class _Fetch:
    """One chunk, and where parts of it go: (window bytes, offset in the chunk)."""

    ref: ChunkRef
    slices: list[tuple[memoryview, int]] = field(default_factory=list)


def read_boxes(storage: Storage, wishes: Sequence[Wish]) -> None:
    """Fill the targets; raise `CorruptCheckpoint` if a chunk does not verify.

    Targets are touched only when every chunk has verified.
    """
    windows = [_window(wish) for wish in wishes if wish.target.numel()]
    fetches: dict[str, _Fetch] = {}
    for window in windows:
        _plan(window, fetches)
    with ThreadPoolExecutor(PARALLEL_GETS) as pool:
        list(pool.map(lambda fetch: _perform(storage, fetch), fetches.values()))
    for window in windows:
        _deliver(window)


def _window(wish: Wish) -> _Window:
    item = torch_dtype(wish.entry.dtype).itemsize
    strides = _strides(wish.entry.shape)
    first = sum(map(math.prod, zip(wish.offsets, strides, strict=True)))
    last = first + sum(
        (size - 1) * stride for size, stride in zip(wish.target.shape, strides, strict=True)
    )
    return _Window(wish, first * item, memoryview(bytearray((last + 1 - first) * item)))


def _plan(window: _Window, fetches: dict[str, _Fetch]) -> None:
    at, end = 0, window.start + window.data.nbytes
    for part in window.wish.entry.parts:
        low, high = max(at, window.start), min(at + part.length, end)
        if low < high:
            ref = window.wish.chunks[part.chunk]
            fetch = fetches.setdefault(ref.name, _Fetch(ref))
            view = window.data[low - window.start : high - window.start]
            fetch.slices.append((view, part.offset + low - at))
        at += part.length


def _perform(storage: Storage, fetch: _Fetch) -> None:
    view, offset = fetch.slices[0]
    if len(fetch.slices) == 1 and offset == 0 and view.nbytes == fetch.ref.length:
        read_chunk(storage, fetch.ref, target=view)
        return
    chunk = memoryview(bytearray(fetch.ref.length))
    read_chunk(storage, fetch.ref, target=chunk)
    for view, offset in fetch.slices:
        view[:] = chunk[offset : offset + view.nbytes]


def _deliver(window: _Window) -> None:
    wish = window.wish
    flat = torch.frombuffer(window.data, dtype=torch.uint8).view(torch_dtype(wish.entry.dtype))
    box = flat.as_strided(tuple(wish.target.shape), _strides(wish.entry.shape))
    copy_elements(box, wish.target)


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
