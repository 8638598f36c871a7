"""Any state goes into the format and comes out again, byte for byte; anything else is refused."""

from __future__ import annotations

import gc
import math
import os
import struct
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, Self

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpointing.commit_log import CommitLog
from checkpointing.digest import digest_state
from checkpointing.errors import CheckpointError, CorruptCheckpoint, UnsupportedState
from checkpointing.identity import Identity
from checkpointing.layout import plan_layout
from checkpointing.memory_storage import MemoryStorage
from checkpointing.publish import Publisher
from checkpointing.restore import load_commit
from checkpointing.staging import Arena
from checkpointing.state_tree import flatten, unflatten
from checkpointing.tensor_kinds import is_plain, take_apart

# torch says once per process that sparse, nested, quantised and half complex are not for everyone.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

NAMES = sorted(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype))
QUANTIZED = {torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4}
DTYPES = sorted({getattr(torch, name) for name in NAMES} - QUANTIZED, key=str)
"""Every plain dtype that this torch has."""


def round_trip(state: object) -> Any:
    """Save and load: the arena, the publisher, a store, and the way back."""
    storage = MemoryStorage()
    identity = Identity("job", "attempt", epoch=1, session=7)
    log = CommitLog(storage, job_id="job")
    arena = Arena()
    try:
        snapshot = arena.take(flatten(state), step=1, at_us=0)
        Publisher(storage, log=log, identity=identity).publish(snapshot)
        return load_commit(storage, log.history().commits[0]).shared.state
    finally:
        arena.close()


def matrix(generator: torch.Generator) -> torch.Tensor:
    """A 4 x 6 matrix with zeros in it."""
    return torch.randn(4, 6, generator=generator).relu()


def per_channel(generator: torch.Generator, dtype: torch.dtype, axis: int) -> torch.Tensor:
    """A matrix quantised per row or column."""
    values = matrix(generator)
    count = values.shape[axis]
    scales = torch.rand(count, generator=generator, dtype=torch.float64) + 0.01
    zeros = torch.arange(count)
    if dtype is torch.quint4x2:
        scales, zeros = scales.float(), zeros.float()
    return torch.quantize_per_channel(values, scales, zeros, axis, dtype)


class Scaled(torch.Tensor):
    """Integers with a scale, as quantisation libraries wrap them."""

    def __new__(cls, data: torch.Tensor, scale: torch.Tensor, block: Any) -> Self:
        """Make the outer tensor."""
        del block
        return torch.Tensor._make_wrapper_subclass(cls, data.shape, dtype=scale.dtype)

    def __init__(self, data: torch.Tensor, scale: torch.Tensor, block: Any) -> None:
        """Keep the parts."""
        self.data_part, self.scale, self.block = data, scale, block

    def __tensor_flatten__(self) -> tuple[list[str], dict[str, Any]]:
        """Name the parts."""
        return ["data_part", "scale"], {"block": self.block, "kind": torch.int8}

    @classmethod
    def __tensor_unflatten__(cls, parts: Any, context: Any, size: Any, stride: Any) -> Scaled:
        """Build it again."""
        return cls(parts["data_part"], parts["scale"], context["block"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Compute nothing."""
        if func is torch.ops.aten.detach.default:
            return cls(args[0].data_part, args[0].scale, args[0].block)
        raise NotImplementedError(func)


class Untold(torch.Tensor):
    """A subclass that does not say what it consists of."""


COMPOSITES: dict[str, Callable[[torch.Generator], torch.Tensor]] = {
    "qint8": lambda g: torch.quantize_per_tensor(matrix(g), 0.1, 3, torch.qint8),
    "quint8 view": lambda g: torch.quantize_per_tensor(matrix(g), 0.1, 3, torch.quint8).t()[1:],
    "qint32 empty": lambda _: torch.quantize_per_tensor(torch.empty(0, 2), 0.1, 0, torch.qint32),
    "rows": lambda g: per_channel(g, torch.qint8, 0),
    "columns": lambda g: per_channel(g, torch.quint8, 1),
    "four bits": lambda g: per_channel(g, torch.quint4x2, 0),
    "coo": lambda g: matrix(g).to_sparse(),
    "coo twice": lambda g: torch.sparse_coo_tensor(
        torch.tensor([[0, 0, 1], [1, 1, 2]]), torch.randn(3, 2, generator=g), (2, 3, 2)
    ),
    "csr": lambda g: matrix(g).to_sparse_csr(),
    "csc": lambda g: matrix(g).bfloat16().to_sparse_csc(),
    "bsr": lambda g: matrix(g).to_sparse_bsr((2, 3)),
    "bsc": lambda g: matrix(g).to_sparse_bsc((2, 3)),
    "jagged": lambda g: torch.nested.nested_tensor([matrix(g), matrix(g)[:2]], layout=torch.jagged),
    "wrapper": lambda g: Scaled(torch.arange(4, dtype=torch.int8), matrix(g), 32),
}


def same(one: Any, other: Any) -> bool:
    """Equal type, structure and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return (same_plain if is_plain(one) else same_composite)(one, other)
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and tob(one) == tob(other)
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, complex):
        return same([one.real, one.imag], [other.real, other.imag])
    return bool(one == other)


def same_plain(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal dtype, shape and bits."""
    return one.dtype == other.dtype and one.shape == other.shape and bits(one) == bits(other)


def same_composite(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal kind, settings and parts."""
    mine, found = take_apart(one), take_apart(other)
    # A jagged dimension has a name of its own, a new one for each tensor.
    alike = one.layout is torch.jagged or one.shape == other.shape
    equal = one.dtype == other.dtype and alike and mine.settings == found.settings
    return equal and mine.kind == found.kind and same(dict(mine.parts), dict(found.parts))


def tob(value: Any) -> bytes:
    """Row-major bytes of an array."""
    return bytes(value.tobytes())


def bits(tensor: torch.Tensor) -> bytes:
    """Row-major bytes of a tensor, made without the code under test."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.dtype in BYTES_ONLY:
        plain = plain.view(torch.uint8)
    plain = plain.contiguous().clone()
    return bytes(plain.untyped_storage())[: plain.numel() * plain.itemsize]


BYTES_ONLY = {getattr(torch, f"{sign}int{n}") for sign in ("", "u") for n in range(1, 8)}
"""Dtypes that torch itself cannot copy."""


def tensors() -> st.SearchStrategy[torch.Tensor]:
    """Random bits under every dtype, in shapes that are awkward."""
    shapes = st.sampled_from([(), (0,), (1,), (3,), (2, 0, 3), (2, 3), (4, 1, 2)])

    def make(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        top = 2 if dtype is torch.bool else 256  # only 0 and 1 are booleans
        size = (math.prod(shape) * dtype.itemsize,)
        raw = torch.randint(0, top, size, dtype=torch.uint8, generator=generator)
        return raw.view(dtype).view(shape) if raw.numel() else torch.empty(shape, dtype=dtype)

    return st.builds(make, st.sampled_from(DTYPES), shapes, st.integers(0, 2**30))


def twisted() -> st.SearchStrategy[torch.Tensor]:
    """The same, seen through transposes, strides and expansions."""
    twists = st.sampled_from(
        [
            lambda t: t,
            lambda t: t.t() if t.dim() == 2 else t,
            lambda t: t[::2] if t.dim() else t,
            lambda t: t.expand(2, *t.shape),
            lambda t: t.conj() if t.is_complex() else t,
            lambda t: t.conj().imag if t.is_complex() else t,  # a negative view
        ]
    )
    return st.builds(lambda tensor, twist: twist(tensor), tensors(), twists)


def composites() -> st.SearchStrategy[torch.Tensor]:
    """Quantised, sparse, jagged and wrapped tensors."""

    def make(kind: str, seed: int) -> torch.Tensor:
        return COMPOSITES[kind](torch.Generator().manual_seed(seed))

    return st.builds(make, st.sampled_from(sorted(COMPOSITES)), st.integers(0, 2**30))


def scalars() -> st.SearchStrategy[object]:
    """Leaves that are not tensors."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.complex_numbers(),
        st.text(st.characters(), max_size=8),
        st.binary(max_size=8),
        st.sampled_from([torch.bfloat16, torch.device("cpu"), torch.Size([2, 3])]),
        st.sampled_from([np.float32(1.5), np.int64(-3), np.bool_(True), np.float64("nan")]),
        st.sampled_from([np.arange(6).reshape(2, 3).T, np.array("text"), np.zeros((0, 2))]),
    )


def states() -> st.SearchStrategy[object]:
    """Nested state."""
    keys = st.one_of(st.text(max_size=4), st.integers(), st.booleans(), st.none())
    return st.recursive(
        st.one_of(scalars(), twisted(), composites()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.lists(inner, max_size=3).map(lambda items: deque(items, maxlen=5)),
            st.dictionaries(keys, inner, max_size=3),
            st.dictionaries(keys, inner, max_size=3).map(OrderedDict),
        ),
        max_leaves=8,
    )


@given(states())
def test_every_state_survives(state: object) -> None:
    """Structure, types, dtypes, shapes and bits are what they were."""
    assert same(round_trip(state), state)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_survives(dtype: torch.dtype) -> None:
    """Every bit pattern of a byte, under every dtype, NaN payloads included."""
    raw = torch.arange(256, dtype=torch.uint8) if dtype is not torch.bool else torch.ones(256)
    tensor = raw.view(dtype) if dtype is not torch.bool else raw.to(dtype)
    assert same(round_trip(tensor), tensor)


@pytest.mark.parametrize("kind", sorted(COMPOSITES))
def test_a_tensor_made_of_tensors_survives(kind: str) -> None:
    """Each comes back as its own type, and twice the same one as one object."""
    tensor = COMPOSITES[kind](torch.Generator().manual_seed(1))
    found = round_trip({"a": tensor, "b": [tensor]})
    assert same(found["a"], tensor)
    assert found["b"][0] is found["a"]


@pytest.mark.parametrize("size", [(4, 6), (3, 5)])
def test_a_quantised_tensor_is_the_same_numbers(size: tuple[int, int]) -> None:
    """Torch itself finds them equal, scales and zero points to the last bit."""
    tensor = torch.quantize_per_tensor(torch.randn(size), 0.1 + 2**-50, 7, torch.quint8)
    found = round_trip(tensor)
    assert torch.equal(found, tensor)
    assert found.q_scale() == tensor.q_scale()
    assert same(found.dequantize(), tensor.dequantize())


def test_a_wrapper_whose_class_is_hidden_is_refused() -> None:
    """A class that no name leads to could not be found again; nor a context that is no data."""

    class Local(Scaled):
        """Found by no name."""

    parts = torch.ones(2, dtype=torch.int8), torch.ones(1)
    with pytest.raises(UnsupportedState, match="by its name"):
        flatten({"w": Local(*parts, 1)})
    with pytest.raises(UnsupportedState, match=r"state\['w'\]\['context'\]\['block'\]"):
        flatten({"w": Scaled(*parts, object())})


def test_a_class_that_is_not_imported_is_named() -> None:
    """A manifest cannot make us import anything: the user is told to."""
    tree = {
        "composite": {
            "kind": "wrapper",
            "parts": [],
            "settings": {
                "dict": [
                    ["class", "antigravity:Tensor"],
                    ["context", None],
                    ["shape", {"size": [1]}],
                    ["stride", {"list": [1]}],
                ]
            },
        }
    }
    with pytest.raises(CheckpointError, match="antigravity") as caught:
        unflatten(tree, [])
    assert caught.value.code == "state-class-unknown"
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_lazy_views_are_stored_as_they_read(dtype: torch.dtype) -> None:
    """Conjugate and negative views, contiguous or not, are resolved; their base is not changed."""
    base = torch.randn(4, 3, dtype=dtype)
    lazy = [base.conj(), base.conj().t(), base.conj().imag, base.conj()[:1].imag[..., :1]]
    found = round_trip([base, *lazy])
    assert all(map(same, found, [base, *(view.resolve_conj().resolve_neg() for view in lazy)]))
    assert not any(item.is_conj() or item.is_neg() for item in found)


def test_a_real_state_dict_survives() -> None:
    """Module versions, optimizer state and schedulers with their odd types."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 2, 5])
    state = [item.state_dict() for item in (model, optimizer, schedule)]
    found = round_trip(state)
    assert same(found, state)
    assert found[0]._metadata == getattr(state[0], "_metadata")  # noqa: B009 - torch hangs it on
    assert type(found[2]["milestones"]) is Counter


def test_tied_weights_are_stored_once_and_tied_again() -> None:
    """One tensor under two names takes its bytes once and comes back as one object."""
    weight = torch.randn(5, 5)
    state = {"a": weight, "b": weight, "view": weight[:2], "c": weight.detach()}
    assert len(flatten(state).leaves) == 2
    found = round_trip(state)
    assert found["a"] is found["b"]
    assert found["a"] is found["c"]
    assert torch.equal(found["view"], weight[:2])


def test_empty_tensors_are_not_tied() -> None:
    """Empty tensors share the address 0 and stay what they are."""
    state = [torch.empty(0, 3), torch.empty(2, 0), torch.empty(0, dtype=torch.int8)]
    assert same(round_trip(state), state)


class Point(NamedTuple):
    """A tuple that would come back as a plain one."""

    x: int


class Level(IntEnum):
    """A number that would come back as a plain one."""

    LOW = 1


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({1, 2}, "builtins.set"),
        (Point(1), "Point"),
        (Level.LOW, "Level"),
        (object(), "builtins.object"),
        (len, "builtin_function"),
        (torch.ones(2).as_subclass(Untold), "__tensor_flatten__"),
        (torch.eye(2).to_mkldnn(), "mkldnn"),
        (torch.empty(2, device="meta"), "meta"),
        (np.array([object()]), "object"),
        (np.zeros(1, dtype=[("a", "i4")]), "dtype"),
        (torch.nn.Linear(1, 1), "Linear"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_path(value: object, kind: str) -> None:
    """The message names where it is and what it is."""
    with pytest.raises(UnsupportedState, match=kind) as caught:
        flatten({"optimizer": {"state": [1, {"x": value}]}})
    assert "state['optimizer']['state'][1]['x']" in caught.value.cause


def test_a_state_that_contains_itself_is_refused() -> None:
    """No endless recursion."""
    state: list[object] = []
    state.append(state)
    with pytest.raises(UnsupportedState, match="contains itself"):
        flatten(state)


@pytest.mark.parametrize(
    "tree",
    [{"tensor": 5}, {"pickle": "x"}, {}, [1], {"dict": 3}, {"float": "zz"}, {"dtype": "torch.os"}],
)
def test_a_tree_that_nothing_wrote_is_refused(tree: object) -> None:
    """Strange JSON raises `CorruptCheckpoint`, never something else, and runs nothing."""
    with pytest.raises(CorruptCheckpoint):
        unflatten(tree, [])


def test_equal_states_have_equal_digests() -> None:
    """Strides do not matter to a digest; any bit, name, shape or dtype does."""
    weight = torch.randn(4, 6)
    twin = weight.t().contiguous().t()
    assert digest_state({"w": weight}) == digest_state({"w": twin})
    changed = weight.clone()
    changed.view(torch.int32)[0, 0] ^= 1
    others = [{"w": changed}, {"v": weight}, {"w": weight.view(6, 4)}, {"w": weight.double()}]
    assert digest_state({"w": weight}) not in {digest_state(other) for other in others}


@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from("abc")), max_size=20))
def test_a_layout_covers_everything_once(items: list[tuple[int, str]]) -> None:
    """Parts give each tensor all its bytes, chunks do not overlap, sizes keep their limits."""
    sizes, groups = [size for size, _ in items], [group for _, group in items]
    layout = plan_layout(sizes, groups=groups, chunk_bytes=64)
    ends = [0]
    for start, end in layout.chunks:
        assert ends[-1] <= start < end
        assert end - start < 2 * 64 + 64
        ends.append(end)
    for number, size in enumerate(sizes):
        parts = layout.parts(number)
        assert sum(part.length for part in parts) == size
        absolute = [layout.chunks[part.chunk][0] + part.offset for part in parts]
        assert not parts or absolute[0] == layout.offsets[number]


def test_an_unchanged_tensor_keeps_its_chunks() -> None:
    """A frozen large tensor is cut the same way whatever its small neighbours do."""
    first = plan_layout([10, 5000, 10], groups=["a", "a", "a"], chunk_bytes=64)
    second = plan_layout([90, 5000, 50], groups=["a", "a", "a"], chunk_bytes=64)
    lengths = [[part.length for part in layout.parts(1)] for layout in (first, second)]
    assert lengths[0] == lengths[1]
    assert all(part.offset == 0 for part in second.parts(1))


def test_the_arena_is_reused_and_clean() -> None:
    """Later snapshots allocate nothing, and equal states have equal chunks whatever was before."""
    arena = Arena()
    state = {"a": torch.ones(3), "b": torch.ones(5)}
    first = [bytes(chunk) for chunk in arena.take(flatten(state), step=1, at_us=0).chunks]
    arena.take(flatten({"a": torch.full((16,), 7.0), "b": torch.full((8,), 9.0)}), step=2, at_us=0)
    again = [bytes(chunk) for chunk in arena.take(flatten(state), step=3, at_us=0).chunks]
    assert again == first
    assert arena.allocations == 1


def test_a_forgotten_arena_keeps_no_descriptor() -> None:
    """Whoever drops an arena without closing it leaks nothing."""
    arena = Arena()
    arena.take(flatten({"a": torch.zeros(4)}), step=1, at_us=0)
    descriptor = arena.descriptor
    assert descriptor is not None
    inode = os.fstat(descriptor).st_ino
    del arena
    gc.collect()
    try:
        found = os.fstat(descriptor).st_ino
    except OSError:
        return  # closed, and nobody else has the number yet
    assert found != inode
