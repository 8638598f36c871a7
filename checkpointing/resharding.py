"""Reading sharded tensors under any number of ranks: stored boxes, cut to those wanted.

Which stored boxes overlap a wanted one, and where, is worked out by the resharding planner of
`torch.distributed.checkpoint`; what is fetched are the chunks under the overlaps (`boxes`).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from checkpointing.boxes import Wish, read_boxes
from checkpointing.errors import CorruptCheckpoint, corrupt
from checkpointing.manifest import ChunkRef, Manifest, TensorEntry
from checkpointing.sharded import ShardedValue
from checkpointing.storage import Storage
from checkpointing.tensor_bytes import expected_bytes, torch_dtype

_CHECKPOINT = "torch.distributed.checkpoint"


@dataclass(frozen=True, slots=True)
class Target:
    """The box of a sharded tensor that somebody wants."""

    sizes: tuple[int, ...]
    offsets: tuple[int, ...]
    finish: Callable[[torch.Tensor], object]
    """Makes of the box's tensor (on the CPU) what stands in the state."""


Place: TypeAlias = Callable[[ShardedValue], Target]


@dataclass(frozen=True, slots=True)
class _Stored:
    entry: TensorEntry
    offsets: tuple[int, ...]
    chunks: tuple[ChunkRef, ...]


def whole(value: ShardedValue) -> Target:
    """Want all of it, as a plain tensor."""
    return Target(value.shape, (0,) * len(value.shape), lambda tensor: tensor)


def read_sharded(
    storage: Storage, manifests: Sequence[Manifest], *, values: Sequence[ShardedValue], place: Place
) -> dict[str, object]:
    """Read the box that `place` wants of each of `values`; raise `CorruptCheckpoint`.

    `manifests` are those of all ranks that saved: each holds some of the shards.
    """
    if not values:
        return {}
    stored = _stored(manifests)
    wishes: list[Wish] = []
    found: dict[str, tuple[Target, torch.Tensor]] = {}
    for value in values:
        target = place(value)
        tensor = torch.empty(target.sizes, dtype=torch_dtype(value.dtype))
        wishes.extend(_wishes(value, stored.get(value.name, []), target, tensor))
        found[value.name] = (target, tensor)
    read_boxes(storage, wishes)
    return {name: target.finish(tensor) for name, (target, tensor) in found.items()}


def _stored(manifests: Sequence[Manifest]) -> Mapping[str, list[_Stored]]:
    found: dict[str, list[_Stored]] = {}
    for manifest in manifests:
        for entry in manifest.tensors:
            if entry.shard is not None:
                one = _Stored(entry, entry.shard.offsets, manifest.chunks)
                found.setdefault(entry.shard.name, []).append(one)
    return found


def _wishes(
    value: ShardedValue, stored: Sequence[_Stored], target: Target, tensor: torch.Tensor
) -> list[Wish]:
    for one in stored:
        _check(value, one.entry)
    wishes = [_wish(item, stored, tensor) for item in _overlaps(value, stored, target)]
    if sum(wish.target.numel() for wish in wishes) != math.prod(target.sizes):
        raise corrupt(f"the sharded tensor {value.name}", why="its shards do not make it up")
    return wishes


def _wish(item: Any, stored: Sequence[_Stored], tensor: torch.Tensor) -> Wish:  # noqa: ANN401 - ReadItem
    box = tensor
    for axis, (start, length) in enumerate(zip(item.dest_offsets, item.lengths, strict=True)):
        box = box.narrow(axis, start, length)
    one = stored[item.storage_index.index]
    return Wish(one.entry, one.chunks, tuple(item.storage_offsets), box)


def _overlaps(value: ShardedValue, stored: Sequence[_Stored], target: Target) -> Sequence[Any]:
    metadata = importlib.import_module(f"{_CHECKPOINT}.metadata")
    planner = importlib.import_module(f"{_CHECKPOINT}.planner_helpers")

    def box(offsets: Sequence[int], sizes: Sequence[int]) -> object:
        return metadata.ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))

    saved = metadata.TensorStorageMetadata(
        properties=metadata.TensorProperties(dtype=torch_dtype(value.dtype)),
        size=torch.Size(value.shape),
        chunks=[box(one.offsets, one.entry.shape) for one in stored],
    )
    if not math.prod(target.sizes):
        return []
    wanted = [box(target.offsets, target.sizes)]
    found: Sequence[Any] = planner.create_read_items_for_chunk_list(value.name, saved, wanted)
    return found


def _check(value: ShardedValue, entry: TensorEntry) -> None:
    assert entry.shard is not None, entry
    size = sum(part.length for part in entry.parts)
    alike = entry.dtype == value.dtype and entry.shard.shape == value.shape
    if not alike or size != expected_bytes(entry.dtype, entry.shape):
        raise _unfitting(value)


def _unfitting(value: ShardedValue) -> CorruptCheckpoint:
    return corrupt(f"the sharded tensor {value.name}", why="a shard is not of its type and shape")
