"""A checkpoint as files that plain tools read: safetensors for tensors, JSON for the rest.

    DIR/model.safetensors       one file per object of the session, names as in its state_dict
    DIR/optimizer.safetensors
    DIR/rank-0.safetensors      what each rank had for itself: random generators, loader
    DIR/tree.json               everything that is not a tensor, and where each tensor went

Tied tensors stand under each of their names. Shards are put together again. Every chunk is verified
before its bytes are written; the folder appears whole, by a rename, or not at all. Needs no torch.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from checkpointing.catalog import Checkpoint
from checkpointing.catalog_check import PARALLEL_READS, Tell, mismatch
from checkpointing.catalog_tree import leaves, sharded_name
from checkpointing.errors import CheckpointError, corrupt
from checkpointing.keys import chunk_key
from checkpointing.manifest import ChunkRef, Manifest, TensorEntry
from checkpointing.safetensors_layout import Column, column, plan_file
from checkpointing.storage import Storage

FORMAT: Final = "lowtide-restored"
_SHARED: Final = "shared"


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a stored tensor goes: a file, its name there."""

    file: str
    name: str


@dataclass(slots=True)
class _File:
    names: set[str] = field(default_factory=set)
    """Names that are given away."""
    columns: dict[str, Column] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    """Dtypes that the format has not, by tensor; their bytes are written as `U8`."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of a chunk that go to a place in a file."""

    file: str
    name: str
    at: int
    """Offset in the tensor."""
    start: int
    """Offset in the chunk."""
    length: int


def export(
    storage: Storage,
    checkpoint: Checkpoint,
    folder: Path,
    *,
    tell: Tell = lambda _count: None,
) -> dict[str, int]:
    """Write `checkpoint` to `folder`, which must be new or empty; return bytes by file.

    Raises `CheckpointError`: the folder is in use, the disk is full, or a chunk is wrong.
    """
    _check_folder(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            sizes = _written(storage, checkpoint, aside, tell)
            aside.chmod(0o755)
            aside.replace(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(
            "restore-to-failed",
            cause=f"{folder} cannot be written: {error.strerror or error}.",
            remedy="Name a new folder on a disk with room, which you may write.",
        ) from error
    return sizes


def runs(
    whole: Sequence[int], *, offsets: Sequence[int], box: Sequence[int]
) -> Iterator[tuple[int, int, int]]:
    """Yield (offset in the box, offset in the whole, length), in elements, of each straight run.

    A box of a row-major tensor is a number of runs: one if only the first dimension is cut.
    """
    if math.prod(box) == 0:
        return
    inner = len(box)
    while inner and box[inner - 1] == whole[inner - 1]:
        inner -= 1
    outer = max(inner - 1, 0)
    length = math.prod(box[outer:])
    strides = [math.prod(whole[place + 1 :]) for place in range(len(whole))]
    for number, index in enumerate(itertools.product(*(range(size) for size in box[:outer]))):
        places = [*index, *([0] * (len(box) - outer))]
        at = sum(
            (place + start) * stride
            for place, start, stride in zip(places, offsets, strides, strict=True)
        )
        yield number * length, at, length


def _written(storage: Storage, checkpoint: Checkpoint, folder: Path, tell: Tell) -> dict[str, int]:
    files: dict[str, _File] = {}
    pieces: dict[str, list[_Piece]] = {}
    trees = [_placed(manifest, files, pieces) for manifest in checkpoint.manifests]
    shards = _placed_shards(checkpoint, files, pieces)
    with ExitStack() as stack:
        writers = {}
        for name, one in files.items():
            head, starts = plan_file(one.columns, metadata={"format": "pt", **one.dtypes})
            stream = stack.enter_context((folder / name).open("wb"))
            stream.write(head)
            stream.truncate(len(head) + sum(item.length for item in one.columns.values()))
            stream.flush()
            writers[name] = stream.fileno(), starts
        _fill(storage, checkpoint, pieces, writers, tell)
        for descriptor, _ in writers.values():
            os.fsync(descriptor)
    (folder / "tree.json").write_text(_tree_json(checkpoint, trees, shards), encoding="utf-8")
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _placed(
    manifest: Manifest, files: dict[str, _File], pieces: dict[str, list[_Piece]]
) -> dict[int, list[Spot]]:
    """Give every tensor of a manifest its places; note which bytes of which chunks go there."""
    spots: dict[int, list[Spot]] = {}
    for leaf in leaves(manifest.tree):
        if leaf.tensor is None:
            continue
        entry = manifest.tensors[leaf.tensor]
        spot = _spot(leaf.path, manifest.rank)
        spot = _unused(spot, files.setdefault(spot.file, _File()))
        spots.setdefault(leaf.tensor, []).append(spot)
        _place(entry, manifest, spot, files, pieces)
    return spots


def _placed_shards(
    checkpoint: Checkpoint, files: dict[str, _File], pieces: dict[str, list[_Piece]]
) -> dict[str, list[Spot]]:
    """Give every sharded tensor its places, one for each of its names in rank 0's tree."""
    spots: dict[str, list[Spot]] = {}
    for leaf in leaves(checkpoint.manifests[0].tree):
        name = sharded_name(leaf.value)
        if name is not None:
            spot = _spot(leaf.path, 0)
            spots.setdefault(name, []).append(_unused(spot, files.setdefault(spot.file, _File())))
    for manifest in checkpoint.manifests:
        for entry in manifest.tensors:
            for spot in spots.get(entry.shard.name, ()) if entry.shard is not None else ():
                _place(entry, manifest, spot, files, pieces)
    return spots


def _place(
    entry: TensorEntry,
    manifest: Manifest,
    spot: Spot,
    files: dict[str, _File],
    pieces: dict[str, list[_Piece]],
) -> None:
    """Describe a tensor in its file, and note which bytes go there."""
    one = files[spot.file]
    shape = entry.shape if entry.shard is None else entry.shard.shape
    size = sum(part.length for part in entry.parts)
    item = size // max(1, math.prod(entry.shape))
    made = column(entry.dtype, shape=shape, length=item * math.prod(shape))
    one.columns[spot.name] = made
    if made.dtype == "U8" and entry.dtype != "torch.uint8":
        one.dtypes[spot.name] = f"{entry.dtype} {list(shape)}"
    for chunk, piece in _pieces(entry, manifest, spot, item):
        pieces.setdefault(chunk, []).append(piece)


def _spot(path: tuple[object, ...], rank: int) -> Spot:
    names = [str(part) for part in path]
    if names[0:1] == [_SHARED] and len(names) > 1:
        return Spot(f"{quote(names[1], safe='')}.safetensors", ".".join(names[2:]) or names[1])
    return Spot(f"rank-{rank}.safetensors", ".".join(names[1:]) or ".".join(names) or "state")


def _unused(spot: Spot, one: _File) -> Spot:
    """Paths that differ only in where their dots are would be one name: number them."""
    name, number = spot.name, 1
    while name in one.names:
        number += 1
        name = f"{spot.name}#{number}"
    one.names.add(name)
    return Spot(spot.file, name)


def _pieces(
    entry: TensorEntry, manifest: Manifest, spot: Spot, item: int
) -> Iterator[tuple[str, _Piece]]:
    """Cut a tensor at the borders of its chunks and, if it is a shard, of its runs."""
    if entry.shard is None:
        straight = [(0, 0, sum(part.length for part in entry.parts))]
    else:
        shard = entry.shard
        found = runs(shard.shape, offsets=shard.offsets, box=entry.shape)
        straight = [(box * item, at * item, length * item) for box, at, length in found]
    begin = 0
    for part in entry.parts:
        end = begin + part.length
        for box, at, length in straight:
            first, last = max(begin, box), min(end, box + length)
            if first < last:
                piece = _Piece(
                    spot.file,
                    spot.name,
                    at=at + first - box,
                    start=part.offset + first - begin,
                    length=last - first,
                )
                yield manifest.chunks[part.chunk].name, piece
        begin = end


def _fill(
    storage: Storage,
    checkpoint: Checkpoint,
    pieces: dict[str, list[_Piece]],
    writers: dict[str, tuple[int, dict[str, int]]],
    tell: Callable[[int], None],
) -> None:
    """Read each chunk once, verify it, and put its bytes where they belong."""

    def fill(chunk: ChunkRef) -> None:
        data = memoryview(_verified(storage, chunk))
        for piece in pieces.get(chunk.name, ()):
            descriptor, starts = writers[piece.file]
            view = data[piece.start : piece.start + piece.length]
            _write_at(descriptor, view, starts[piece.name] + piece.at)
        tell(chunk.length)

    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        for done in [pool.submit(fill, chunk) for chunk in checkpoint.chunks.values()]:
            done.result()


def _verified(storage: Storage, chunk: ChunkRef) -> bytes:
    data = storage.get(chunk_key(chunk.name))
    why = mismatch(chunk, data)
    if why is not None:
        raise corrupt(chunk_key(chunk.name), why=why)
    return data


def _write_at(descriptor: int, data: memoryview, at: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, at)
        data, at = data[count:], at + count


def _tree_json(
    checkpoint: Checkpoint,
    spots: Sequence[dict[int, list[Spot]]],
    shards: dict[str, list[Spot]],
) -> str:
    record = checkpoint.record
    ranks = [
        {"rank": one.rank, "state": _with_spots(one.tree, places, shards)}
        for one, places in zip(checkpoint.manifests, spots, strict=True)
    ]
    body = {
        "format": FORMAT,
        "job": checkpoint.manifests[0].job_id,
        "step": record.step,
        "commit": record.seq,
        "manifest_blake3": record.manifest_blake3,
        "provenance": dict(checkpoint.manifests[0].provenance),
        "ranks": ranks,
    }
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def _with_spots(value: object, spots: dict[int, list[Spot]], shards: dict[str, list[Spot]]) -> Any:  # noqa: ANN401 - JSON
    """Return a tree in which each tensor is replaced by its file and name."""
    if isinstance(value, dict):
        sharded = sharded_name(value)
        if sharded is not None:
            return _where(shards[sharded][0])
        if isinstance(value.get("tensor"), int) and len(value) == 1:
            return _where(spots[value["tensor"]][0])
        return {name: _with_spots(item, spots, shards) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_spots(item, spots, shards) for item in value]
    return value


def _where(spot: Spot) -> dict[str, object]:
    return {"tensor": {"file": spot.file, "name": spot.name}}


def _check_folder(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise CheckpointError(
            "restore-to-exists",
            cause=f"{folder} is there already and not an empty folder.",
            remedy="Name a new folder; nothing is ever overwritten.",
        )
