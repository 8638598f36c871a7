"""Any state goes into the format and comes out again, byte for byte; anything else is refused."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter, OrderedDict, deque
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpointing.digest import digest_state
from checkpointing.errors import CorruptCheckpoint, UnsupportedState
from checkpointing.layout import plan_layout
from checkpointing.manifest import canonical
from checkpointing.staging import Arena
from checkpointing.state_tree import flatten, unflatten
from checkpointing.tensor_bytes import build

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e8m0fnu,
    torch.complex64,
    torch.complex128,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.bool,
]


def round_trip(state: object) -> Any:
    """Through the arena's bytes and the manifest's JSON, as a save and a load do."""
    flat = flatten(state)
    snapshot = Arena().take(flat, step=1, at_us=0)
    tensors = []
    for entry in snapshot.tensors:
        pieces = [snapshot.chunks[p.chunk][p.offset : p.offset + p.length] for p in entry.parts]
        tensors.append(build(entry.dtype, shape=entry.shape, data=bytearray(b"".join(pieces))))
    return unflatten(json.loads(canonical(snapshot.tree)), tensors)


def same(one: Any, other: Any) -> bool:
    """Equal type, structure and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bits(one) == bits(other)
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


def tob(value: Any) -> bytes:
    """Row-major bytes of an array."""
    return bytes(value.tobytes())


def bits(tensor: torch.Tensor) -> bytes:
    """Row-major bytes of a tensor, made without the code under test."""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous().clone()
    return bytes(plain.untyped_storage())[: plain.numel() * plain.itemsize]


def tensors() -> st.SearchStrategy[torch.Tensor]:
    """Random bits under every dtype, in shapes that are awkward."""
    shapes = st.sampled_from([(), (0,), (1,), (3,), (2, 0, 3), (2, 3), (4, 1, 2)])

    def make(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        top = 2 if dtype is torch.bool else 256  # only 0 and 1 are booleans
        size = (math.prod(shape) * dtype.itemsize,)
        raw = torch.randint(0, top, size, dtype=torch.uint8, generator=generator)
        return raw.view(dtype).reshape(shape) if raw.numel() else torch.empty(shape, dtype=dtype)

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
        st.one_of(scalars(), twisted()),
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
        (torch.eye(2).to_sparse(), "sparse"),
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
