"""What a save through `torch.distributed.checkpoint` consists of: plans to parts, and back.

A rank's part holds the tensors of its plan as shards named by their FQN, and in its tree the other
objects, as tagged JSON. The commit's own tree holds how FQNs map to paths in the state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch.distributed.checkpoint import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    SavePlan,
    SavePlanner,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import WriteItem, WriteItemType

from checkpointing.clock import now_us
from checkpointing.commit import CommitRecord
from checkpointing.documents import read_document
from checkpointing.errors import CheckpointError, UnsupportedState, corrupt
from checkpointing.layout import Layout, plan_layout
from checkpointing.manifest import ChunkRef, Manifest, Shard, TensorEntry
from checkpointing.restore import load_manifest, state_fields
from checkpointing.snapshot import Snapshot
from checkpointing.state_tree import flatten
from checkpointing.storage import Storage
from checkpointing.tensor_bytes import TensorLeaf, expected_bytes, raw_leaf_bytes, torch_dtype
from checkpointing.tensor_kinds import is_plain

_OBJECTS: Final = "objects"
_PATHS: Final = "paths"


@dataclass(frozen=True, slots=True, eq=False)
class Gathered(Snapshot):
    """A snapshot whose chunks are views of the tensors themselves, where they are large."""

    views: tuple[memoryview, ...] = ()

    @property
    def chunks(self) -> tuple[memoryview, ...]:
        """The bytes of each chunk."""
        return self.views


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stored tensor is: its entry, and the chunks that the entry counts in."""

    entry: TensorEntry
    chunks: tuple[ChunkRef, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A commit, as a load needs it."""

    record: CommitRecord
    metadata: Metadata
    places: Mapping[MetadataIndex, Place]
    objects: Mapping[str, object]
    """By FQN; what is no tensor."""


def gathered(plan: SavePlan, planner: SavePlanner, *, step: int) -> Gathered:
    """Resolve a plan: large tensors are not copied, so they must not change before it is stored."""
    objects = {
        item.index.fqn: _object(planner, item)
        for item in plan.items
        if item.type is WriteItemType.BYTE_IO
    }
    flat = flatten({_OBJECTS: objects})
    shards = [_leaf(planner, item) for item in plan.items if item.tensor_data is not None]
    return _laid((*flat.leaves, *shards), tree=flat.tree, step=step)


def top_tree(planner_data: object, *, step: int) -> Gathered:
    """Return the commit's own part: how FQNs map to paths in the state, if the planner said so."""
    paths = planner_data if isinstance(planner_data, dict) else {}
    return _laid((), tree=flatten({_PATHS: paths}).tree, step=step)


def read_parts(storage: Storage, record: CommitRecord) -> Found:
    """Read the manifests of a commit and the objects in it; raise `CorruptCheckpoint`."""
    top = read_document(storage, record.manifest, blake3=record.manifest_blake3)
    objects: dict[str, object] = {}
    places: dict[MetadataIndex, Place] = {}
    tensors: dict[str, TensorStorageMetadata] = {}
    for part in top.parts:
        manifest = read_document(storage, part.key, blake3=part.blake3)
        state = state_fields(load_manifest(storage, manifest, key=part.key))
        objects |= cast("dict[str, object]", state[_OBJECTS])
        _add_shards(manifest, key=part.key, places=places, tensors=tensors)
    others = {fqn: BytesStorageMetadata() for fqn in objects}
    paths = state_fields(load_manifest(storage, top, key=record.manifest))[_PATHS]
    metadata = Metadata(state_dict_metadata={**tensors, **others}, planner_data=paths)
    return Found(record, metadata, places, objects)


def _add_shards(
    manifest: Manifest,
    *,
    key: str,
    places: dict[MetadataIndex, Place],
    tensors: dict[str, TensorStorageMetadata],
) -> None:
    for entry in manifest.tensors:
        if entry.shard is None:
            continue
        if sum(part.length for part in entry.parts) != expected_bytes(entry.dtype, entry.shape):
            raise corrupt(key, why=f"{entry.shard.name} has not the bytes that its shape needs")
        offsets = torch.Size(entry.shard.offsets)
        places[MetadataIndex(entry.shard.name, offsets)] = Place(entry, manifest.chunks)
        known = tensors.setdefault(
            entry.shard.name,
            TensorStorageMetadata(
                properties=TensorProperties(dtype=torch_dtype(entry.dtype)),
                size=torch.Size(entry.shard.shape),
                chunks=[],
            ),
        )
        known.chunks.append(ChunkStorageMetadata(offsets, torch.Size(entry.shape)))


def _object(planner: SavePlanner, item: WriteItem) -> object:
    look_up = getattr(planner, "lookup_object", None)
    if look_up is None:
        raise CheckpointError(
            "dcp-planner",
            cause=f"{type(planner).__name__} only hands out bytes, which may be a pickle.",
            remedy="Derive it from DefaultSavePlanner, which has lookup_object().",
        )
    return look_up(item.index)


def _leaf(planner: SavePlanner, item: WriteItem) -> TensorLeaf:
    data, fqn = item.tensor_data, item.index.fqn
    assert data is not None, item
    tensor = cast("torch.Tensor", planner.resolve_data(item))
    if not is_plain(tensor):
        raise UnsupportedState(
            "state-unsupported",
            cause=f"{fqn} is a {type(tensor).__name__} of layout {tensor.layout} and {tensor.dtype}"
            " that cannot be checkpointed through torch.distributed.checkpoint.",
            remedy="Keep its parts in the state, or save it with a Session.",
        )
    shard = Shard(fqn, tuple(data.size), tuple(data.chunk.offsets))
    return TensorLeaf(tensor.detach(), "shards", shard)


def _laid(leaves: Sequence[TensorLeaf], *, tree: object, step: int) -> Gathered:
    layout = plan_layout([leaf.nbytes for leaf in leaves], groups=[leaf.group for leaf in leaves])
    entries = tuple(
        TensorEntry(leaf.dtype, leaf.shape, layout.parts(number), leaf.shard)
        for number, leaf in enumerate(leaves)
    )
    views = _views(leaves, layout)
    return Gathered(step, now_us(), tree, entries, (), memoryview(b""), views)


def _views(leaves: Sequence[TensorLeaf], layout: Layout) -> tuple[memoryview, ...]:
    members: list[list[tuple[int, int, int, int]]] = [[] for _ in layout.chunks]
    for number, parts in enumerate(layout.pieces):
        start = 0
        for part in parts:
            members[part.chunk].append((number, start, part.offset, part.length))
            start += part.length
    views: list[memoryview] = []
    raw: dict[int, memoryview] = {}  # of the tensor at hand: others are packed, or done
    for (low, high), inside in zip(layout.chunks, members, strict=True):
        packed = memoryview(bytearray(0 if len(inside) == 1 else high - low))
        for number, start, offset, length in inside:
            raw = {number: raw.get(number) or _raw(leaves[number])}
            piece = raw[number][start : start + length]
            if len(inside) == 1:
                packed = piece
            else:
                packed[offset : offset + length] = piece
        views.append(packed)
    return tuple(views)


def _raw(leaf: TensorLeaf) -> memoryview:
    """Return a leaf's bytes: its own memory where they lie in order on the CPU, else a copy."""
    tensor = leaf.source
    lazy = not isinstance(tensor, torch.Tensor) or tensor.is_conj() or tensor.is_neg()
    if lazy or not cast("torch.Tensor", tensor).is_cpu or not cast("Any", tensor).is_contiguous():
        return memoryview(raw_leaf_bytes(leaf))
    found = cast("torch.Tensor", tensor)
    flat = found.as_strided((found.numel(),), (1,)).view(torch.uint8)
    return flat.numpy().data
