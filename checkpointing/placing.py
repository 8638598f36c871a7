"""How a session's objects want their sharded tensors: by what stands at the same place in them now.

A saved sharded tensor is wanted like the tensor of that name in the object's own state; optimizer
state that does not exist yet, like its parameter; anything else, as it was saved, on a mesh of this
session. A session without sharded tensors wants it whole. A plain saved tensor where the session
has a sharded one is cut to this rank's box.
"""

from __future__ import annotations

import importlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

import torch

from checkpointing.errors import CheckpointError
from checkpointing.resharding import Target, whole
from checkpointing.sharded import DTensor, ShardedValue, box_of, is_sharded, path_name

_ROOT: Final = "shared"


class Placing:
    """Knows the tensors of a session's objects by their names in a checkpoint."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        """Read the objects' states; no tensor is copied."""
        self._tensors: dict[str, torch.Tensor] = {}
        for name, subject in objects.items():
            if isinstance(subject, torch.optim.Optimizer):
                self._add_parameters(name, subject)
            for path, tensor in _tensors(subject.state_dict(), (_ROOT, name)):
                self._tensors[path_name(path)] = tensor
        self._sharded: list[DTensor] = [one for one in self._tensors.values() if is_sharded(one)]

    def place(self, value: ShardedValue) -> Target:
        """Say which box of `value` is needed; raise `CheckpointError` if nothing tells."""
        here = self._here(value)
        if here is not None and tuple(here.shape) != value.shape:
            return _nothing(value)  # comparing the objects will name it
        if here is not None:
            return _like(here) if is_sharded(here) else whole(value)
        return self._as_saved(value) if self._sharded else whole(value)

    def spread(self, state: Any, path: tuple[object, ...] = (_ROOT,)) -> Any:  # noqa: ANN401
        """Return `state` with plain tensors sharded where the objects have sharded ones."""
        if not self._sharded:
            return state
        if type(state) in {dict, OrderedDict}:
            return _refilled(state, {k: self.spread(v, (*path, k)) for k, v in state.items()})
        if type(state) in {list, tuple}:
            return type(state)(self.spread(v, (*path, i)) for i, v in enumerate(state))
        here = self._parameter_or_tensor(path) if type(state) is torch.Tensor else None
        if here is None or not is_sharded(here) or here.shape != state.shape:
            return state
        return _cut(state, here)

    def _add_parameters(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        for number, parameter in enumerate(parameters):
            self._tensors[path_name((_ROOT, name, "state", number))] = parameter

    def _here(self, value: ShardedValue) -> torch.Tensor | None:
        found = self._tensors.get(value.name)
        if found is None:
            parent = self._tensors.get(_parent(value.name))
            return parent if parent is not None and tuple(parent.shape) == value.shape else None
        return found

    def _parameter_or_tensor(self, path: tuple[object, ...]) -> torch.Tensor | None:
        found = self._tensors.get(path_name(path))
        return self._tensors.get(path_name(path[:-1])) if found is None else found

    def _as_saved(self, value: ShardedValue) -> Target:
        meshes = {one.device_mesh: one for one in self._sharded}
        fitting = [
            one
            for mesh, one in meshes.items()
            if mesh.ndim == len(value.placements) and mesh.mesh_dim_names == value.mesh_names
        ]
        if len(fitting) != 1:
            raise _unplaced(value)
        return _like(_empty_like(value, fitting[0].device_mesh))


def _tensors(
    state: object, path: tuple[object, ...]
) -> Iterator[tuple[tuple[object, ...], torch.Tensor]]:
    if isinstance(state, torch.Tensor):
        yield path, state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from _tensors(value, (*path, key))
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from _tensors(value, (*path, index))


def _parent(name: str) -> str:
    head, _, _ = name.rpartition(",")
    return f"{head}]"


def _like(here: DTensor) -> Target:
    sizes, offsets = box_of(here)
    return Target(sizes, offsets, partial(_from_local, here))


def _from_local(here: DTensor, local: torch.Tensor) -> object:
    return type(here).from_local(
        local.to(here.to_local().device),
        here.device_mesh,
        here.placements,
        run_check=False,
        shape=here.shape,
        stride=_strides(here.shape),
    )


def _cut(state: torch.Tensor, here: DTensor) -> object:
    sizes, offsets = box_of(here)
    box = state
    for axis, (start, length) in enumerate(zip(offsets, sizes, strict=True)):
        box = box.narrow(axis, min(start, state.shape[axis]), length)
    return _from_local(here, box.clone(memory_format=torch.contiguous_format))


def _empty_like(value: ShardedValue, mesh: Any) -> DTensor:  # noqa: ANN401 - a DeviceMesh
    module = importlib.import_module("torch.distributed.tensor")
    placements = [
        module.Replicate() if axis is None else module.Shard(axis) for axis in value.placements
    ]
    kind = getattr(torch, value.dtype.removeprefix("torch."))
    return module.empty(value.shape, dtype=kind, device_mesh=mesh, placements=placements)


def _refilled(state: Any, values: dict[Any, Any]) -> Any:  # noqa: ANN401
    filled = type(state)(values)
    if hasattr(state, "_metadata"):  # what torch hangs on a module's state
        filled._metadata = state._metadata  # noqa: SLF001
    return filled


def _nothing(value: ShardedValue) -> Target:
    none = (0,) * max(1, len(value.shape))
    return Target(none, none, lambda _: value)


def _strides(shape: torch.Size) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _unplaced(value: ShardedValue) -> CheckpointError:
    return CheckpointError(
        "restore-unplaced",
        cause=f"Nothing in this session says how {value.name} is to be spread over its ranks.",
        remedy="Give the session the object that it belongs to, built as it will be trained.",
    )
