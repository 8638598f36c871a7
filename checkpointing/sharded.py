"""Sharded tensors (`DTensor`) by global shape and boxes: what is saved by whom, under which name.

Each rank saves the box that it holds, as a tensor of its own manifest with a `Shard`. Of equal
boxes (replicated mesh dimensions) only the one at coordinate 0 is saved. Rank 0's tree says that
there is a sharded tensor, by a `ShardedValue`; `resharding` reads it again. Nothing here imports
`torch.distributed.tensor`, which takes longer than a restart should.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import torch

from checkpointing.manifest import (
    Manifest,
    Shard,
    TensorEntry,
    canonical,
    fields_of,
    items,
    text,
    whole,
)

DTensor: TypeAlias = Any
"""`torch.distributed.tensor.DTensor`, whose module may never be needed."""

_DTENSOR: Final = "torch.distributed.tensor"
_PLAIN_KEYS: Final = frozenset({str, int, bool, type(None)})


@dataclass(frozen=True, slots=True)
class ShardedValue:
    """A sharded tensor as rank 0's tree names it; its bytes are in many manifests."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    placements: tuple[int | None, ...]
    """Per mesh dimension: the tensor dimension that is sharded over it, None if replicated."""
    mesh_names: tuple[str, ...] | None
    """Names of the mesh's dimensions, if it has any."""

    def as_json(self) -> dict[str, object]:
        """Return JSON types."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "placements": list(self.placements),
            "mesh": None if self.mesh_names is None else list(self.mesh_names),
        }

    @staticmethod
    def from_json(value: object) -> ShardedValue:
        """Read what `as_json` made; raise `KeyError`, `TypeError` or `ValueError`."""
        fields = fields_of(value)
        names = fields["mesh"]
        return ShardedValue(
            name=text(fields["name"]),
            dtype=text(fields["dtype"]),
            shape=tuple(whole(size) for size in items(fields["shape"])),
            placements=tuple(_dimension(one) for one in items(fields["placements"])),
            mesh_names=None if names is None else tuple(text(name) for name in items(names)),
        )


def is_sharded(tensor: object) -> bool:
    """Whether `tensor` is a `DTensor`; nothing is before its module was imported."""
    kind = getattr(sys.modules.get(_DTENSOR), "DTensor", None)
    return kind is not None and isinstance(tensor, kind)


def may_shard() -> bool:
    """Whether this process can have sharded tensors at all."""
    return _DTENSOR in sys.modules


def sharding_refusal(tensor: DTensor) -> str | None:
    """Say why a `DTensor` cannot be kept, or None."""
    if any(place.is_partial() for place in tensor.placements):
        return "a sum that is still spread over the ranks (Partial); redistribute it first"
    local = tensor.to_local()
    if type(local) not in {torch.Tensor, torch.nn.Parameter} or local.layout is not torch.strided:
        return f"sharded, and its shards are {type(local).__name__} of layout {local.layout}"
    return None


def path_name(path: Sequence[object]) -> str:
    """Name what lies at `path` in a state; the same on every rank, and never that of another."""
    parts = [part if type(part) in _PLAIN_KEYS else {"key": repr(part)} for part in path]
    return canonical(parts).decode("ascii")


def described(tensor: DTensor, *, name: str) -> ShardedValue:
    """Return what rank 0's tree says of `tensor`."""
    names = tensor.device_mesh.mesh_dim_names
    return ShardedValue(
        name=name,
        dtype=str(tensor.dtype),
        shape=tuple(tensor.shape),
        placements=tuple(getattr(place, "dim", None) for place in tensor.placements),
        mesh_names=None if names is None else tuple(names),
    )


def shard_of(tensor: DTensor, *, name: str) -> tuple[Shard, torch.Tensor] | None:
    """Return the box that this rank saves and its bytes; None if it is empty or another's."""
    coordinate = tensor.device_mesh.get_coordinate()
    if coordinate is None:
        return None
    copies = zip(coordinate, tensor.placements, strict=True)
    if any(at and place.is_replicate() for at, place in copies):
        return None
    local = tensor.to_local()
    sizes, offsets = box_of(tensor)
    assert tuple(local.shape) == sizes, (name, local.shape, sizes)
    if local.numel() == 0:
        return None
    return Shard(name, tuple(tensor.shape), offsets), local


def box_of(tensor: DTensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the sizes and the offsets of the box of `tensor` that this rank holds."""
    utilities = importlib.import_module(f"{_DTENSOR}._utils")
    sizes, offsets = utilities.compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    return tuple(sizes), tuple(offsets)


def sharded_values(tree: object) -> list[ShardedValue]:
    """Find the sharded tensors that a tree names, each once."""
    found: dict[str, ShardedValue] = {}
    waiting = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, Mapping):
            if "sharded" in item:
                value = ShardedValue.from_json(item["sharded"])
                found[value.name] = value
            else:
                waiting.extend(item.values())
    return list(found.values())


def without_shards(manifest: Manifest) -> Manifest:
    """Return the manifest with its shards empty, and without the chunks that only they need."""
    plain = [entry for entry in manifest.tensors if entry.shard is None]
    kept = sorted({part.chunk for entry in plain for part in entry.parts})
    numbers = {old: new for new, old in enumerate(kept)}
    tensors = [
        TensorEntry("torch.uint8", (0,), ())
        if entry.shard is not None
        else replace(entry, parts=tuple(replace(p, chunk=numbers[p.chunk]) for p in entry.parts))
        for entry in manifest.tensors
    ]
    chunks = tuple(manifest.chunks[number] for number in kept)
    return replace(manifest, tensors=tuple(tensors), chunks=chunks)


def _dimension(value: object) -> int | None:
    return None if value is None else whole(value)
