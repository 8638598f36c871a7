"""Tensors and arrays by their bytes: any dtype, any strides, no pickle."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from typing_extensions import Buffer

from checkpointing.errors import CorruptCheckpoint, corrupt
from checkpointing.manifest import Shard

_NUMPY = "numpy:"
_TORCH = "torch."
# One byte each, and torch has no way to copy them but as bytes.
_NO_KERNEL = frozenset(
    getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in range(1, 8)
)


@dataclass(frozen=True, slots=True, eq=False)
class TensorLeaf:
    """A tensor or array found in a state, with where it was found."""

    source: torch.Tensor | np.ndarray
    group: str
    """Where it belongs: a top-level name, and whether it is trained. Groups share no chunk."""
    shard: Shard | None = None
    """Which box of a sharded tensor it is."""

    @property
    def dtype(self) -> str:
        """The dtype's name in the manifest."""
        if isinstance(self.source, np.ndarray):
            return _NUMPY + self.source.dtype.str
        return str(self.source.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.source.shape)

    @property
    def nbytes(self) -> int:
        """Bytes when laid out row-major."""
        if isinstance(self.source, np.ndarray):
            return self.source.nbytes
        return self.source.numel() * self.source.itemsize


def address_of(leaf: TensorLeaf) -> int | None:
    """Return where the leaf's bytes lie, row-major and in this process's memory, or None."""
    source = leaf.source
    if isinstance(source, np.ndarray) or not source.is_cpu or not source.is_contiguous():
        return None
    if source.is_conj() or source.is_neg():
        return None
    return source.data_ptr() or None  # a lazy tensor of zeros has no bytes


def copy_into(leaf: TensorLeaf, destination: torch.Tensor) -> None:
    """Copy the leaf's bytes, row-major, into `destination` (flat uint8 of exactly its size)."""
    if leaf.nbytes == 0:
        return
    if isinstance(leaf.source, np.ndarray):
        flat = np.frombuffer(destination.numpy(), dtype=leaf.source.dtype)
        np.copyto(flat.reshape(leaf.source.shape), leaf.source)
        return
    assert destination.numel() == leaf.nbytes, (leaf, destination.shape)
    _copy_tensor(leaf.source.detach(), destination)


def _copy_tensor(source: torch.Tensor, destination: torch.Tensor) -> None:
    if not source.is_contiguous() or source.is_conj() or source.is_neg():
        _copy_strided(source, destination)
    elif source.is_cpu and (address := source.data_ptr()):  # a lazy tensor of zeros has none
        # A plain memcpy in this thread: torch would start its thread pool for every tensor, which
        # on a busy machine is many times slower, and numpy costs ten times as long per tensor.
        ctypes.memmove(destination.data_ptr(), address, destination.numel())
    else:
        # As bytes: works for every dtype, also for those without a copy kernel of their own.
        # Not reshape: a dimension of size 1 may have any stride, and keeps it there.
        flat = source.as_strided((source.numel(),), (1,)).view(torch.uint8)
        destination.copy_(flat)


def _copy_strided(source: torch.Tensor, destination: torch.Tensor) -> None:
    kind = torch.uint8 if source.dtype in _NO_KERNEL else source.dtype
    copy_elements(source, destination.view(kind).view(source.shape))


def copy_elements(source: torch.Tensor, destination: torch.Tensor) -> None:
    """Copy a view of any strides into another of its shape, also where torch has no kernel."""
    if source.dtype in _NO_KERNEL:
        source, destination = source.view(torch.uint8), destination.view(torch.uint8)
    destination.copy_(source)


def build(dtype: str, *, shape: Sequence[int], data: memoryview) -> torch.Tensor | np.ndarray:
    """Make the tensor or array that `data` (kept, not copied) holds; raise if it cannot be."""
    try:
        if dtype.startswith(_NUMPY):
            kind = np.dtype(dtype.removeprefix(_NUMPY))
            return np.frombuffer(data, dtype=kind).reshape(shape)
        return _build_tensor(torch_dtype(dtype), shape=shape, data=data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _unbuildable(dtype, shape) from error


def torch_dtype(name: str) -> torch.dtype:
    """Return the dtype called `name` (`torch.bfloat16`); raise `CorruptCheckpoint`."""
    found = getattr(torch, name.removeprefix(_TORCH), None)
    if not isinstance(found, torch.dtype):
        raise corrupt("a manifest", why=f"this torch has no dtype {name}")
    return found


def item_bytes(dtype: str) -> int:
    """Return the bytes of one element of the dtype called `dtype`."""
    if dtype.startswith(_NUMPY):
        return np.dtype(dtype.removeprefix(_NUMPY)).itemsize
    return torch_dtype(dtype).itemsize


def expected_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Return the bytes that a tensor of this dtype and shape has."""
    try:
        return math.prod(shape) * item_bytes(dtype)
    except TypeError as error:  # numpy: no such dtype
        raise _unbuildable(dtype, shape) from error


def raw_leaf_bytes(leaf: TensorLeaf) -> Buffer:
    """Return a copy of the leaf's bytes, row-major."""
    flat = torch.empty(leaf.nbytes, dtype=torch.uint8)
    copy_into(leaf, flat)
    return flat.numpy().data


def _build_tensor(dtype: torch.dtype, *, shape: Sequence[int], data: memoryview) -> torch.Tensor:
    if not data:
        return torch.empty(tuple(shape), dtype=dtype)
    flat = torch.frombuffer(data, dtype=torch.uint8)
    return flat.view(dtype).reshape(tuple(shape))


def _unbuildable(dtype: str, shape: Sequence[int]) -> CorruptCheckpoint:
    return corrupt("a manifest", why=f"no tensor of dtype {dtype} and shape {tuple(shape)} exists")
