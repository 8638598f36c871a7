"""What a session saves and restores: the objects handed to it, and this rank's own state.

Replicated state (model, optimizer, ...) is saved by rank 0 and loaded by every rank; of sharded
tensors in it each rank saves its shards. A rank's own state (random generators, the loader's
position) is saved by each.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, cast, runtime_checkable

import torch

from checkpointing.errors import CheckpointError
from checkpointing.placing import Placing
from checkpointing.resharding import Target
from checkpointing.restore import Moved, RestorePoint, state_fields
from checkpointing.rng import apply_rng, capture_rng, derived_rng
from checkpointing.sharded import ShardedValue, may_shard
from checkpointing.state_tree import ShardsOf
from checkpointing.tensor_kinds import is_plain

_APPLY_ERRORS: Final = (KeyError, TypeError, ValueError, RuntimeError, IndexError, AttributeError)


_LISTED: Final = 20
"""Differences that an error spells out; the rest are counted."""


@runtime_checkable
class Stateful(Protocol):
    """Anything that can be saved and restored."""

    def state_dict(self) -> Any:  # noqa: ANN401 - each library has its own
        """Return the state."""

    def load_state_dict(self, state: Any, /) -> object:  # noqa: ANN401
        """Take up a state."""


@runtime_checkable
class Movable(Protocol):
    """A loader that can go on where a gang of another size was."""

    def load_gang_state(self, states: Sequence[Any]) -> None:
        """Take up the position, given the state of each rank that saved."""


class Subjects:
    """The objects of one session by name; `loader` is the rank's own."""

    def __init__(self, objects: Mapping[str, object]) -> None:
        """Keep what is not None; raise `CheckpointError` for an object without a state."""
        given = {name: item for name, item in objects.items() if item is not None}
        for name, item in given.items():
            if not isinstance(item, Stateful):
                raise _stateless(name, item)
        found = cast("dict[str, Stateful]", given)
        self._loader = found.pop("loader", None)
        self._shared = found

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        """The torch optimizers among the objects."""
        found = (item for item in self._shared.values() if isinstance(item, torch.optim.Optimizer))
        return tuple(found)

    def capture(self, *, rank: int) -> dict[str, object]:
        """Return what this rank saves; tensors are not copied."""
        own: dict[str, object] = {"rng": capture_rng()}
        if self._loader is not None:
            own["loader"] = self._loader.state_dict()
        if rank and not may_shard():
            return {"own": own}
        shared = {name: self._read(name) for name in self._shared}
        return {"shared": ShardsOf(shared) if rank else shared, "own": own}

    def frozen(self) -> frozenset[int]:
        """Return the addresses of the parameters that are not being trained."""
        modules = (item for item in self._shared.values() if isinstance(item, torch.nn.Module))
        parameters = (parameter for module in modules for parameter in module.parameters())
        still = (each for each in parameters if not each.requires_grad and is_plain(each))
        return frozenset(each.data_ptr() for each in still)

    def place(self, value: ShardedValue) -> Target:
        """Say which box of a sharded tensor the objects need here, and how they need it."""
        return self._placing().place(value)

    def apply(self, point: RestorePoint) -> None:
        """Hand every object its state; names and shapes are compared before anything is touched."""
        found = cast("Mapping[str, Any]", state_fields(point.shared)["shared"])
        own = cast("Mapping[str, Any]", state_fields(point.own)["own"])
        self._compare(found, own)
        shared = self._placing().spread(found) if may_shard() else found
        if point.moved is not None and self._loader is not None:
            _check_movable(self._loader)
        for name, subject in self._shared.items():
            _apply(name, subject, shared[name])
        if self._loader is not None:
            self._apply_loader(point, own["loader"])

    def apply_rng(self, point: RestorePoint) -> None:
        """Set the generators; the last thing before the first step.

        A rank that did not exist when the commit was saved gets its own, derived from rank 0's.
        """
        own = cast("Mapping[str, Any]", state_fields(point.own)["own"])
        moved = point.moved
        if moved is not None and moved.rank >= len(moved.states):
            warnings.warn(_new_streams(moved), stacklevel=2)
            apply_rng(derived_rng(own["rng"], rank=moved.rank))
        else:
            apply_rng(own["rng"])

    def _apply_loader(self, point: RestorePoint, own: object) -> None:
        if point.moved is None:
            _apply("loader", cast("Stateful", self._loader), own)
            return
        states = [cast("Any", state_fields(one)["own"])["loader"] for one in point.moved.states]
        cast("Movable", self._loader).load_gang_state(states)

    def _placing(self) -> Placing:
        return Placing(self._shared)

    def _read(self, name: str) -> object:
        return self._shared[name].state_dict()

    def _compare(self, shared: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        saved = set(shared) | ({"loader"} & set(own))
        here = set(self._shared) | ({"loader"} if self._loader is not None else set())
        if saved != here:
            raise _mismatch(
                f"the checkpoint holds {_names(saved)} and this session has {_names(here)}"
            )
        found = [
            line
            for name, subject in self._shared.items()
            for line in _differences(name, subject, shared[name])
        ]
        if found:
            raise _mismatch(_listed(found))


def _apply(name: str, subject: Stateful, state: object) -> None:
    try:
        subject.load_state_dict(state)
    except CheckpointError:
        raise
    except _APPLY_ERRORS as error:
        raise _mismatch(f"{name} does not take its saved state: {error}") from error


def _new_streams(moved: Moved) -> str:
    return (
        f"The checkpoint was saved by {len(moved.states)} ranks and this is rank {moved.rank}: its "
        "random generators start anew, seeded from those of rank 0."
    )


def _check_movable(loader: object) -> None:
    if not isinstance(loader, Movable):
        raise CheckpointError(
            "loader-immovable",
            cause=f"Another number of ranks saved this, and {type(loader).__name__} cannot follow.",
            remedy="Use checkpointing.ResumableLoader, or start as many ranks as saved it.",
        )


def _differences(name: str, subject: Stateful, saved: Any) -> list[str]:  # noqa: ANN401
    """Say where the saved state of `subject` has other names, shapes or groups than it."""
    try:
        if isinstance(subject, torch.nn.Module):
            return _other_entries(name, _shapes(subject.state_dict()), _shapes(saved))
        if isinstance(subject, torch.optim.Optimizer):
            return _other_entries(name, _groups(subject.state_dict()), _groups(saved))
    except _APPLY_ERRORS as error:
        raise _mismatch(f"{name} was saved by something else: {error}") from error
    return []


def _other_entries(name: str, here: Mapping[str, object], saved: Mapping[str, object]) -> list[str]:
    return [
        f"{name}.{key} was saved as {saved.get(key, 'nothing')} and is now "
        f"{here.get(key, 'nothing')}"
        for key in sorted(here.keys() | saved.keys())
        if here.get(key) != saved.get(key)
    ]


def _groups(state: Mapping[str, Any]) -> dict[str, object]:
    return {
        f"param_groups[{number}]": f"{len(group['params'])} parameters"
        for number, group in enumerate(state["param_groups"])
    }


def _shapes(state: Mapping[str, Any]) -> dict[str, object]:
    return {
        key: tuple(value.shape)
        if isinstance(value, torch.Tensor | ShardedValue)
        else type(value).__name__
        for key, value in state.items()
    }


def _listed(found: list[str]) -> str:
    more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return "; ".join(found[:_LISTED]) + more


def _names(found: set[str]) -> str:
    return ", ".join(sorted(found)) or "nothing"


def _mismatch(why: str) -> CheckpointError:
    return CheckpointError(
        "restore-mismatch",
        cause=f"The checkpoint does not fit this training: {why}.",
        remedy="Undo the change, or submit it as a new job with a fresh start.",
    )


def _stateless(name: str, item: object) -> CheckpointError:
    hint = "wrap its data set in checkpointing.ResumableLoader" if name == "loader" else "add both"
    return CheckpointError(
        "subject-stateless",
        cause=f"{name} ({type(item).__name__}) has no state_dict() and load_state_dict().",
        remedy=f"Only objects with both can be resumed: {hint}, or do not pass it to the Session.",
    )
