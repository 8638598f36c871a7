"""How the ranks of one training agree, each step, by one tiny all_reduce."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.distributed as dist

from checkpointing.errors import CheckpointError


class Gang(Protocol):
    """The ranks that train together."""

    @property
    def rank(self) -> int:
        """This process's place, from 0."""

    @property
    def world_size(self) -> int:
        """How many there are."""

    def agree(self, values: Sequence[int]) -> tuple[int, ...]:
        """Return, on every rank, the maximum over the ranks of each value."""


class Solo:
    """A gang of one."""

    rank = 0
    world_size = 1

    def agree(self, values: Sequence[int]) -> tuple[int, ...]:
        """Return the values."""
        return tuple(values)


class TorchGang:
    """The ranks of an initialised torch.distributed.

    Uses a gloo group of its own, so that it neither waits for a GPU nor mixes with the training's
    collectives.
    """

    def __init__(self) -> None:
        """Make the group; every rank must do so."""
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._group = dist.new_group(backend="gloo")

    def agree(self, values: Sequence[int]) -> tuple[int, ...]:
        """All-reduce by maximum; raise `CheckpointError` if a rank is gone."""
        shared = torch.tensor(list(values), dtype=torch.int64)
        try:
            dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=self._group)
        except RuntimeError as error:
            raise CheckpointError(
                "gang-broken",
                cause=f"Another rank of the training is gone: {str(error).splitlines()[0]}",
                remedy="The attempt ends; the job goes on from its restore point.",
            ) from error
        return tuple(shared.tolist())


def current_gang() -> Gang:
    """Return the gang of this process: torch.distributed's if it is initialised."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return TorchGang()
    return Solo()
