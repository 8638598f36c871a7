"""Any nested state as tagged JSON plus a list of tensors, and back, exactly.

None, booleans, integers and texts stand for themselves; everything else is an object with one key,
its tag: `dict`, `odict`, `counter`, `list`, `tuple`, `deque`, `size`, `float`, `complex`, `bytes`,
`tensor`, `scalar` (numpy), `dtype`, `device`, `composite` (a tensor made of tensors, see
`tensor_kinds`), `sharded` (a DTensor, see `sharded`). Types are matched exactly: a subclass would
come back as its base, so it is refused, with its path.

What is kept of sharing: the same view of the same storage (tied weights) is stored once and comes
back as one object; different views of one storage come back as equal tensors of their own. Strides
and `requires_grad` are not kept: tensors come back row-major.
"""

from __future__ import annotations

import base64
import struct
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

import numpy as np
import torch

from checkpointing.errors import CheckpointError, UnsupportedState, corrupt
from checkpointing.manifest import canonical
from checkpointing.sharded import (
    DTensor,
    ShardedValue,
    described,
    is_sharded,
    path_name,
    shard_of,
    sharding_refusal,
)
from checkpointing.tensor_bytes import TensorLeaf, torch_dtype
from checkpointing.tensor_kinds import is_plain, put_together, refusal, take_apart

_MAX_DEPTH: Final = 100
_PLAIN: Final = frozenset({type(None), bool, int, str})
_METADATA: Final = "_metadata"
_UNREADABLE: Final = (
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class FlatState:
    """A state taken apart: JSON for the shape, tensors for the bulk."""

    tree: object
    leaves: tuple[TensorLeaf, ...]


def flatten(state: object, *, frozen: Collection[int] = ()) -> FlatState:
    """Take `state` apart without copying any tensor; raise `UnsupportedState` with the path.

    Tensors at the addresses `frozen` are not being trained, and get groups of their own: chunks
    without a trained tensor in them stay the same, and are not sent again.
    """
    flattener = _Flattener(frozen)
    tree = flattener.encode(state, ())
    return FlatState(tree, tuple(flattener.leaves))


def unflatten(
    tree: object, tensors: Sequence[object], *, sharded: Mapping[str, object] | None = None
) -> object:
    """Put a state together again; raise `CorruptCheckpoint` for a tree that nothing wrote.

    `sharded` holds the sharded tensors by name; one that is not in it stays a `ShardedValue`.
    """
    try:
        return _Unflattener(tensors, sharded or {}).decode(tree)
    except CheckpointError:
        raise
    except _UNREADABLE as error:
        raise corrupt("a manifest", why=f"its tree cannot be read ({error})") from error


@dataclass(frozen=True, slots=True)
class ShardsOf:
    """Stands in a state for one that rank 0 saves, but for the shards that this rank holds."""

    state: object


class _Flattener:
    """Walks a state once, numbering the tensors it meets."""

    def __init__(self, frozen: Collection[int]) -> None:
        self.leaves: list[TensorLeaf] = []
        self._frozen = frozen
        self._numbers: dict[object, int] = {}
        self._composites: dict[int, object] = {}
        self._shard_names: dict[object, str] = {}
        self._alive: list[object] = []  # an id means something while its owner lives
        self._keeping = True

    def encode(self, value: object, path: tuple[object, ...]) -> object:
        """Return the tagged JSON of `value`, which was found at `path`."""
        if type(value) in _PLAIN:
            return value
        if len(path) > _MAX_DEPTH:
            _refuse(value, path, "nested deeper than 100 levels, or it contains itself")
        encoder = _ENCODERS.get(type(value))
        if encoder is not None:
            return encoder(self, value, path)
        if isinstance(value, torch.Tensor):
            return self.tensor(value, path)
        if not isinstance(value, np.generic):
            _refuse(value, path, "the format has no exact form for this type")
        return _scalar(value, path)

    def pairs(self, value: Mapping[Any, Any], path: tuple[object, ...]) -> list[object]:
        """Encode the items of a mapping, in their order."""
        return [
            [
                key if type(key) in _PLAIN else self.encode(key, (*path, key)),
                item if type(item) in _PLAIN else self.encode(item, (*path, key)),
            ]
            for key, item in value.items()
        ]

    def sequence(self, value: Iterable[object], path: tuple[object, ...]) -> list[object]:
        """Encode the items of a sequence."""
        return [self.encode(item, (*path, index)) for index, item in enumerate(value)]

    def ordered(self, value: OrderedDict[Any, Any], path: tuple[object, ...]) -> object:
        """Encode an ordered dict, with the module versions that torch hangs on a state_dict."""
        encoded: dict[str, object] = {"odict": self.pairs(value, path)}
        if hasattr(value, _METADATA):
            encoded["metadata"] = self.encode(getattr(value, _METADATA), (*path, _METADATA))
        return encoded

    def tensor(self, value: torch.Tensor, path: tuple[object, ...]) -> object:
        """Give a tensor its number; the same view of the same storage has the same one."""
        if is_plain(value):
            group = _group(path)
            if self._frozen and value.data_ptr() in self._frozen:
                group += "/frozen"
            return {"tensor": self._number(value, _identity(value), group)}
        if is_sharded(value):
            return self._sharded(value, path)
        why = refusal(value)
        if why is not None:
            _refuse(value, path, why)
        return self._composite(value, path)

    def _composite(self, value: torch.Tensor, path: tuple[object, ...]) -> object:
        if id(value) not in self._composites:
            found = take_apart(value)
            parts = [
                [name, self.encode(part, (*path, name))]
                for name, part in sorted(found.parts.items())
            ]
            settings = self.encode(dict(found.settings), path)
            self._composites[id(value)] = {
                "composite": {"kind": found.kind, "parts": parts, "settings": settings}
            }
            self._alive.append(value)
        return self._composites[id(value)]

    def _sharded(self, value: DTensor, path: tuple[object, ...]) -> object:
        why = sharding_refusal(value)
        if why is not None:
            _refuse(value, path, why)
        local = value.to_local()
        identity = (_identity(local), tuple(value.shape)) if local.numel() else id(value)
        name = self._shard_names.get(identity)
        if name is None:
            name = self._shard_names[identity] = path_name(path)
            self._alive.append(value)
            found = shard_of(value, name=name)
            if found is not None:
                shard, local = found
                self.leaves.append(TensorLeaf(local, f"shards/{_group(path)}", shard))
        return {"sharded": described(value, name=name).as_json()}

    def shards(self, value: ShardsOf, path: tuple[object, ...]) -> None:
        """Keep this rank's shards in `value` and nothing else of it."""
        here = self._keeping
        self._keeping = False
        self.encode(value.state, path)
        self._keeping = here

    def array(self, value: np.ndarray, path: tuple[object, ...]) -> object:
        """Give an array its number."""
        if value.dtype.hasobject or value.dtype.names is not None:
            _refuse(value, path, f"an array of dtype {value.dtype}")
        address = value.__array_interface__["data"][0]
        identity = ("numpy", address, value.shape, value.strides, value.dtype.str)
        return {"tensor": self._number(value, identity, _group(path))}

    def _number(self, value: torch.Tensor | np.ndarray, identity: object, group: str) -> int:
        if not self._keeping:
            return 0
        number = self._numbers.setdefault(identity, len(self.leaves))  # hashed once: it is long
        if number == len(self.leaves):
            self.leaves.append(TensorLeaf(source=value, group=group))
        return number


class _Unflattener:
    """Reads tagged JSON, with the tensors at hand."""

    def __init__(self, tensors: Sequence[object], sharded: Mapping[str, object]) -> None:
        self._tensors = tensors
        self._sharded = sharded
        self._composites: dict[bytes, torch.Tensor] = {}

    def decode(self, value: object) -> Any:  # noqa: ANN401 - a state is anything
        """Return what `value` stands for."""
        if type(value) in _PLAIN:
            return value
        fields = cast("Mapping[str, Any]", value)
        (tag,) = fields.keys() - {"metadata"}
        return _DECODERS[tag](self, fields)

    def pairs(self, value: Iterable[Any]) -> list[tuple[Any, Any]]:
        """Decode the items of a mapping."""
        return [(self.decode(key), self.decode(item)) for key, item in value]

    def sequence(self, value: Iterable[object]) -> list[Any]:
        """Decode the items of a sequence."""
        return [self.decode(item) for item in value]

    def ordered(self, fields: Mapping[str, Any]) -> OrderedDict[Any, Any]:
        """Decode an ordered dict and what hangs on it."""
        found: OrderedDict[Any, Any] = OrderedDict(self.pairs(fields["odict"]))
        if "metadata" in fields:
            setattr(found, _METADATA, self.decode(fields["metadata"]))
        return found

    def tensor(self, fields: Mapping[str, Any]) -> object:
        """Return the numbered tensor; tied ones are one object."""
        return self._tensors[fields["tensor"]]

    def sharded(self, fields: Mapping[str, Any]) -> object:
        """Return the sharded tensor of that name, or what is known of it."""
        value = ShardedValue.from_json(fields["sharded"])
        return self._sharded.get(value.name, value)

    def composite(self, fields: Mapping[str, Any]) -> torch.Tensor:
        """Put a tensor together; the same parts are one object."""
        found = fields["composite"]
        key = canonical(found)
        if key not in self._composites:
            parts = {name: self.decode(part) for name, part in found["parts"]}
            settings = self.decode(found["settings"])
            self._composites[key] = put_together(found["kind"], parts=parts, settings=settings)
        return self._composites[key]


_Encoder = Callable[[_Flattener, Any, tuple[object, ...]], object]
_ENCODERS: Final[Mapping[type, _Encoder]] = {
    dict: lambda flat, value, path: {"dict": flat.pairs(value, path)},
    OrderedDict: _Flattener.ordered,
    Counter: lambda flat, value, path: {"counter": flat.pairs(value, path)},
    list: lambda flat, value, path: {"list": flat.sequence(value, path)},
    tuple: lambda flat, value, path: {"tuple": flat.sequence(value, path)},
    deque: lambda flat, value, path: {"deque": [value.maxlen, flat.sequence(value, path)]},
    torch.Size: lambda _flat, value, _path: {"size": list(value)},
    float: lambda _flat, value, _path: {"float": _float_hex(value)},
    complex: lambda _flat, value, _path: {
        "complex": [_float_hex(value.real), _float_hex(value.imag)]
    },
    bytes: lambda _flat, value, _path: {"bytes": base64.b64encode(value).decode("ascii")},
    torch.dtype: lambda _flat, value, _path: {"dtype": str(value)},
    torch.device: lambda _flat, value, _path: {"device": str(value)},
    np.ndarray: _Flattener.array,
    ShardsOf: _Flattener.shards,
}

_Decoder = Callable[[_Unflattener, Mapping[str, Any]], object]
_DECODERS: Final[Mapping[str, _Decoder]] = {
    "dict": lambda tree, fields: dict(tree.pairs(fields["dict"])),
    "odict": _Unflattener.ordered,
    "counter": lambda tree, fields: Counter(dict(tree.pairs(fields["counter"]))),
    "list": lambda tree, fields: tree.sequence(fields["list"]),
    "tuple": lambda tree, fields: tuple(tree.sequence(fields["tuple"])),
    "deque": lambda tree, fields: deque(
        tree.sequence(fields["deque"][1]), maxlen=fields["deque"][0]
    ),
    "size": lambda _tree, fields: torch.Size(fields["size"]),
    "float": lambda _tree, fields: _from_hex(fields["float"]),
    "complex": lambda _tree, fields: complex(*map(_from_hex, fields["complex"])),
    "bytes": lambda _tree, fields: base64.b64decode(fields["bytes"]),
    "tensor": _Unflattener.tensor,
    "composite": _Unflattener.composite,
    "sharded": _Unflattener.sharded,
    "scalar": lambda _tree, fields: _from_scalar(*fields["scalar"]),
    "dtype": lambda _tree, fields: torch_dtype(fields["dtype"]),
    "device": lambda _tree, fields: torch.device(fields["device"]),
}


def _float_hex(value: float) -> str:
    # By bits: keeps -0.0, infinities and every NaN, which JSON cannot.
    return struct.pack(">d", value).hex()


def _from_hex(text: str) -> float:
    return cast("float", struct.unpack(">d", bytes.fromhex(text))[0])


def _scalar(value: np.generic, path: tuple[object, ...]) -> object:
    if value.dtype.hasobject or value.dtype.names is not None:
        _refuse(value, path, f"a numpy scalar of dtype {value.dtype}")
    return {"scalar": [value.dtype.str, value.tobytes().hex()]}


def _from_scalar(dtype: str, data: str) -> object:
    return np.frombuffer(bytes.fromhex(data), dtype=np.dtype(dtype))[0]


def _identity(value: torch.Tensor) -> object:
    if value.numel() == 0:
        return ("empty", id(value))  # empty storages all share the address 0
    # Of one device, dtype and kind, the first element's address, the shape and the strides say it.
    place = (value.device, value.data_ptr(), value.untyped_storage().data_ptr())
    return (place, value.shape, value.stride(), value.dtype, value.is_conj(), value.is_neg())


def _group(path: tuple[object, ...]) -> str:
    return "/".join(map(str, path[:2]))


def _refuse(value: object, path: tuple[object, ...], why: str) -> NoReturn:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    where = "".join(f"[{part!r}]" for part in path)
    raise UnsupportedState(
        "state-unsupported",
        cause=f"state{where} is a {kind} that cannot be checkpointed: {why}.",
        remedy="Keep it as tensors, numbers, texts, lists, tuples or dicts in its state_dict().",
    )
