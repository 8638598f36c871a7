"""What a manifest holds, by path, read from its tagged JSON without torch. Pure.

A path is written as people write it: `shared.model.0.weight`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from checkpointing.manifest import Manifest, Part, TensorEntry

Path = tuple[object, ...]
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
    if tag == "tensor" and isinstance(content, int):
        yield Leaf(path, content)
    elif tag in _PAIRS:
        for key, item in content:
            yield from leaves(item, (*path, _plain(key)))
    elif tag in _ITEMS or tag == "deque":
        items = content[1] if tag == "deque" else content
        for index, item in enumerate(items):
            yield from leaves(item, (*path, index))
    else:
        yield from _other(tree, path)


def named_tensors(manifest: Manifest) -> Iterator[NamedTensor]:
    """Yield every tensor of a manifest under each of its names."""
    for leaf in leaves(manifest.tree):
        if leaf.tensor is not None and leaf.tensor < len(manifest.tensors):
            yield NamedTensor(leaf.path, manifest.tensors[leaf.tensor], manifest)


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
