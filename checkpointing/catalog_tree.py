"""What a manifest holds, by path, read from its tagged JSON without torch. Pure.

A path is written as people write it: `shared.model.0.weight`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from checkpointing.manifest import Manifest, Part, TensorEntry

Path = tuple[object, ...]
SHARDED: Final = "sharded"
_PAIRS: Final = ("dict", "odict", "counter")
_ITEMS: Final = ("list", "tuple")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value of a state. `tensor` is its number, or None for a plain value."""

    path: Path
    tensor: int | None
    value: object = None
    """The plain value, or its tagged JSON where people have no shorter form."""

    @property
    def name(self) -> str:
        """The path in one text."""
        return _joined(self.path)


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A stored tensor under one of its names; tied tensors have several."""

    path: Path
    entry: TensorEntry
    manifest: Manifest

    @property
    def name(self) -> str:
        """The path in one text, with the rank in front if it is not rank 0's."""
        front = f"rank {self.manifest.rank}: " if self.manifest.rank else ""
        return front + _joined(self.path)

    @property
    def content(self) -> tuple[tuple[str, int, int], ...]:
        """Where its bytes are: equal for two tensors only if their bytes are equal."""
        return tuple(
            (self.manifest.chunks[part.chunk].blake3, part.offset, part.length)
            for part in self.entry.parts
        )

    @property
    def has_own_chunks(self) -> bool:
        """Whether it shares no chunk with a neighbour: then other chunks mean other bytes."""
        return all(_fills(part, self.manifest) for part in self.entry.parts)


def leaves(tree: object, path: Path = ()) -> Iterator[Leaf]:
    """Yield every value of a tagged tree, in its order."""
    if not isinstance(tree, Mapping):
        yield Leaf(path, None, tree)
        return
    tag = next((name for name in tree if name != "metadata"), "")
    content: Any = tree.get(tag)
    children = _children(tag, content)
    if tag == "tensor" and isinstance(content, int):
        yield Leaf(path, content)
    elif tag == SHARDED:
        yield Leaf(path, None, tree)  # its bytes are in the manifests of many ranks
    elif children is None:
        yield from _other(tree, path)
    else:
        for key, item in children:
            yield from leaves(item, (*path, key))


def _children(tag: str, content: Any) -> Iterable[tuple[object, object]] | None:  # noqa: ANN401
    """Return what a container holds, None for what is no container."""
    if tag in _PAIRS:
        return [(_plain(key), item) for key, item in content]
    if tag in _ITEMS:
        return enumerate(content)
    if tag == "deque":
        return enumerate(content[1])
    if tag == "composite":
        return [*map(tuple, content["parts"]), (content["kind"], content["settings"])]
    return None


def named_tensors(manifest: Manifest) -> Iterator[NamedTensor]:
    """Yield every tensor of a manifest under each of its names, and its shards."""
    for entry in manifest.tensors:
        if entry.shard is not None:
            yield NamedTensor(shard_path(entry.shard.name), entry, manifest)
    for leaf in leaves(manifest.tree):
        if leaf.tensor is not None and leaf.tensor < len(manifest.tensors):
            yield NamedTensor(leaf.path, manifest.tensors[leaf.tensor], manifest)


def shard_path(name: str) -> Path:
    """Return the path in a shard's name (see `sharded.path_name`)."""
    return tuple(str(part) if isinstance(part, dict) else part for part in json.loads(name))


def sharded_name(value: object) -> str | None:
    """Return the name of the sharded tensor that a leaf's value stands for, or None."""
    found: Any = value.get(SHARDED) if isinstance(value, Mapping) else None
    return str(found["name"]) if isinstance(found, Mapping) else None


def shown(value: object) -> str:
    """Write a plain value for people."""
    plain = _plain(value)
    return plain if isinstance(plain, str) else repr(plain)


def _joined(path: Path) -> str:
    return ".".join(str(part) for part in path)


def _other(tree: Mapping[str, object], path: Path) -> Iterator[Leaf]:
    """A kind of value that this module knows nothing of: its tensors, or it itself."""
    found = list(_nested(tree, path))
    yield from found or [Leaf(path, None, tree)]


def _nested(value: object, path: Path) -> Iterator[Leaf]:
    if isinstance(value, Mapping):
        if isinstance(value.get("tensor"), int) and len(value) == 1:
            yield Leaf(path, value["tensor"])
            return
        for name, item in value.items():
            yield from _nested(item, (*path, name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, item in enumerate(value):
            yield from _nested(item, (*path, index))


def _plain(value: object) -> object:
    """Return what a tagged scalar stands for, if people write it shortly."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return value
    ((tag, content),) = value.items()
    match tag, content:
        case "float", str():
            return struct.unpack(">d", bytes.fromhex(content))[0]
        case (("dtype" | "device"), str()):
            return content
        case (("tuple" | "list" | "size"), list()):
            return tuple(_plain(item) for item in content)
        case _:
            return value


def _fills(part: Part, manifest: Manifest) -> bool:
    return part.offset == 0 and part.length == manifest.chunks[part.chunk].length
