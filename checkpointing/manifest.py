"""The manifest: what a checkpoint consists of, as canonical JSON. Pure; no pickle anywhere.

Format `lowtide-checkpoint`, version 1. Canonical means: keys sorted, no spaces, ASCII, no NaN; so
the same checkpoint has the same bytes and the same BLAKE3.
"""

from __future__ import annotations

import json
from collections.abc import ItemsView, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

from checkpointing.errors import CheckpointError, CorruptCheckpoint, corrupt
from checkpointing.hashing import HEX_LENGTH
from checkpointing.keys import chunk_name

FORMAT: Final = "lowtide-checkpoint"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """A content-addressed run of bytes."""

    blake3: str
    """Identity: BLAKE3-256 of the bytes, lower-case hex."""
    length: int
    crc32c: int
    copy: int = 0
    """Which object holds the bytes: 0 the original, else a numbered copy (see `sweeps`)."""

    @property
    def name(self) -> str:
        """The chunk's name in the store (see `keys`)."""
        return chunk_name(self.blake3, copy=self.copy)


@dataclass(frozen=True, slots=True)
class Part:
    """`length` bytes from `offset` of the chunk numbered `chunk` in the manifest's list."""

    chunk: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Shard:
    """Which box of a sharded tensor a stored tensor is; the box's sizes are the entry's shape."""

    name: str
    """The same for all shards of one tensor, on every rank: its path in the state (`sharded`)."""
    shape: tuple[int, ...]
    """Of the whole tensor."""
    offsets: tuple[int, ...]
    """Where the box starts, in elements, one number per dimension."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One stored tensor: row-major bytes, little-endian unless the dtype says otherwise."""

    dtype: str
    """`torch.bfloat16` and the like, or `numpy:<f8`."""
    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    shard: Shard | None = None
    """Set if this is a shard: the boxes of all ranks' manifests together are the tensor."""


@dataclass(frozen=True, slots=True)
class RankPart:
    """Where the part of another rank of the gang is: a manifest of its own."""

    rank: int
    key: str
    blake3: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One checkpoint (rank 0's manifest), or one rank's part of it."""

    job_id: str
    epoch: int
    step: int
    """Steps completed; the step to run next."""
    rank: int
    world_size: int
    tree: object
    """The state as tagged JSON (see `state_tree`), tensors by their number in `tensors`."""
    tensors: tuple[TensorEntry, ...]
    chunks: tuple[ChunkRef, ...]
    parts: tuple[RankPart, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Where the state comes from (see `provenance`): code, data, parent, environment."""

    @property
    def length(self) -> int:
        """Bytes of all chunks of this part."""
        return sum(chunk.length for chunk in self.chunks)


def canonical(value: object) -> bytes:
    """Return the canonical JSON of `value`, which must hold JSON types only."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def encode(manifest: Manifest) -> bytes:
    """Return the manifest's canonical bytes."""
    return canonical(
        {
            "format": FORMAT,
            "version": VERSION,
            "job": manifest.job_id,
            "epoch": manifest.epoch,
            "step": manifest.step,
            "rank": manifest.rank,
            "world_size": manifest.world_size,
            "tree": manifest.tree,
            "tensors": [tensor_json(tensor) for tensor in manifest.tensors],
            "chunks": [_chunk_json(chunk) for chunk in manifest.chunks],
            "parts": [[part.rank, part.key, part.blake3] for part in manifest.parts],
            "provenance": dict(manifest.provenance),
        }
    )


def decode(data: bytes, *, key: str) -> Manifest:
    """Parse and check a manifest; raise `CorruptCheckpoint`, or name a newer version."""
    fields = parse_object(data, key=key, wanted_format=FORMAT, version=VERSION)
    try:
        return Manifest(
            job_id=text(fields["job"]),
            epoch=whole(fields["epoch"]),
            step=whole(fields["step"]),
            rank=whole(fields["rank"]),
            world_size=whole(fields["world_size"]),
            tree=fields["tree"],
            tensors=tuple(tensor_from_json(item) for item in items(fields["tensors"])),
            chunks=tuple(_chunk(item) for item in items(fields["chunks"])),
            parts=tuple(_rank_part(item) for item in items(fields["parts"])),
            provenance={name: text(value) for name, value in _pairs(fields["provenance"])},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise corrupt(key, why=f"a field is missing or of the wrong kind ({error})") from error


def parse_object(data: bytes, *, key: str, wanted_format: str, version: int) -> dict[str, object]:
    """Parse a JSON object of ours, checking its format name and version."""
    fields = parse_format(data, key=key, wanted_format=wanted_format)
    check_version(fields, key=key, version=version)
    return fields


def parse_format(data: bytes, *, key: str, wanted_format: str) -> dict[str, object]:
    """Parse a JSON object of ours, of any version."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise corrupt(key, why="it is not JSON") from error
    if not isinstance(fields, dict) or fields.get("format") != wanted_format:
        raise corrupt(key, why=f"it is not a {wanted_format}")
    return cast("dict[str, object]", fields)


def check_version(fields: Mapping[str, object], *, key: str, version: int) -> None:
    """Raise `CheckpointError` for a newer version; only for bytes that are known to be right."""
    found = fields.get("version")
    if type(found) is not int or found < 1:
        raise corrupt(key, why=f"its version is {found!r}")
    if found > version:
        raise CheckpointError(
            "checkpoint-newer",
            cause=f"{key} was written in version {found} of the format; this is version {version}.",
            remedy="Install the Lowtide version that wrote it, or a newer one.",
        )


def whole(value: object) -> int:
    """Return `value` if it is a whole number >= 0, or raise `TypeError`."""
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def text(value: object) -> str:
    """Return `value` if it is a text, or raise `TypeError`."""
    if type(value) is not str:
        raise TypeError(f"{value!r} is not a text")
    return value


def digest(value: object) -> str:
    """Return `value` if it looks like a BLAKE3-256 in hex, or raise `TypeError`."""
    found = text(value)
    if len(found) != HEX_LENGTH or set(found) - set("0123456789abcdef"):
        raise TypeError(f"{found!r} is not a hash")
    return found


def items(value: object) -> list[object]:
    """Return `value` if it is a list, or raise `TypeError`."""
    if type(value) is not list:
        raise TypeError(f"{value!r} is not a list")
    return value


def fields_of(value: object) -> Mapping[str, object]:
    """Return `value` if it is an object, or raise `TypeError`."""
    if type(value) is not dict:
        raise TypeError(f"{value!r} is not an object")
    return value


def check_parts(manifest: Manifest, *, key: str) -> None:
    """Raise `CorruptCheckpoint` where a tensor points outside its chunks."""
    for number, tensor in enumerate(manifest.tensors):
        for part in tensor.parts:
            inside = part.chunk < len(manifest.chunks)
            if not inside or part.offset + part.length > manifest.chunks[part.chunk].length:
                raise _outside(key, number)


def _outside(key: str, number: int) -> CorruptCheckpoint:
    return corrupt(key, why=f"tensor {number} points outside its chunks")


def tensor_json(tensor: TensorEntry) -> dict[str, object]:
    """Return a tensor's entry as JSON types."""
    parts = [[part.chunk, part.offset, part.length] for part in tensor.parts]
    fields: dict[str, object] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "parts": parts}
    if tensor.shard is None:
        return fields
    shard = tensor.shard
    return {**fields, "shard": [shard.name, list(shard.shape), list(shard.offsets)]}


def tensor_from_json(value: object) -> TensorEntry:
    """Read what `tensor_json` made; raise `TypeError`, `KeyError` or `ValueError`."""
    fields = fields_of(value)
    shape = tuple(whole(size) for size in items(fields["shape"]))
    parts = tuple(_part(item) for item in items(fields["parts"]))
    shard = _shard(fields["shard"], shape) if "shard" in fields else None
    return TensorEntry(text(fields["dtype"]), shape, parts, shard)


def _shard(value: object, sizes: tuple[int, ...]) -> Shard:
    name, whole_shape, starts = items(value)
    shape = tuple(whole(size) for size in items(whole_shape))
    offsets = tuple(whole(start) for start in items(starts))
    for start, size, limit in zip(offsets, sizes, shape, strict=True):
        if start + size > limit:
            raise ValueError(f"a shard of {name!r} reaches beyond its tensor")
    return Shard(text(name), shape, offsets)


def _part(value: object) -> Part:
    chunk, offset, length = items(value)
    return Part(chunk=whole(chunk), offset=whole(offset), length=whole(length))


def _chunk_json(chunk: ChunkRef) -> list[object]:
    copy = [chunk.copy] if chunk.copy else []
    return [chunk.blake3, chunk.length, chunk.crc32c, *copy]


def _chunk(value: object) -> ChunkRef:
    name, length, crc, *more = items(value)
    (copy,) = more or [0]
    return ChunkRef(digest(name), whole(length), whole(crc), whole(copy))


def _pairs(value: object) -> ItemsView[str, object]:
    return fields_of(value).items()


def _rank_part(value: object) -> RankPart:
    rank, key, name = items(value)
    return RankPart(rank=whole(rank), key=text(key), blake3=digest(name))
