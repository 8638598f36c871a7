"""A data loader whose position is exact: `state_dict()` says which batch comes next.

The order of an epoch depends on (seed, epoch) alone, never on a global generator, so a resumed
training sees the batches that the interrupted one did not. The ranks of a gang take the samples in
turns, so what they have taken together is a prefix of the order: another number of ranks goes on
behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import default_collate

from checkpointing.environment import read_environment
from checkpointing.errors import CheckpointError

_Item = TypeVar("_Item", covariant=True)  # noqa: PLC0105


class Dataset(Protocol[_Item]):
    """What can be counted and indexed: a torch map-style dataset, a list, a tensor."""

    def __len__(self) -> int:
        """Return how many samples there are."""

    def __getitem__(self, index: int, /) -> _Item:
        """Return one sample."""


class ResumableLoader(Generic[_Item]):
    """Yields batches for ever, epoch after epoch; in a gang each rank gets its own share.

    It is its own iterator and has one position: a second `iter()` goes on where the first is.
    """

    def __init__(
        self,
        dataset: Dataset[_Item],
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        collate: Callable[[list[Any]], Any] = default_collate,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """`rank` and `world_size` default to torch.distributed's environment variables.

        The last batch of an epoch may be short; ranks always have equally many samples, so up to
        `world_size - 1` samples at the end of an epoch's order are left out.
        """
        found = read_environment()
        self.dataset = dataset
        self._batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self._collate = collate
        self._rank = found.rank if rank is None else rank
        self._world_size = found.world_size if world_size is None else world_size
        self._epoch = 0
        self._batch = 0
        self._start = 0  # samples of this epoch that a gang of another size had taken
        self._order: torch.Tensor | None = None
        _check_sizes(len(dataset), batch_size, self._world_size)

    @property
    def epoch(self) -> int:
        """Passes over the data that are complete."""
        return self._epoch

    @property
    def batches_per_epoch(self) -> int:
        """Batches that this rank gets in one pass."""
        share = len(self.dataset) // self._world_size
        return -(-share // self._batch_size)

    @property
    def samples_taken(self) -> int:
        """Samples of this epoch that all ranks together have taken, if in step with this one."""
        share = self._share()
        return self._start + self._world_size * min(self._batch * self._batch_size, share)

    def __iter__(self) -> Iterator[Any]:
        """Return itself."""
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - whatever `collate` makes
        """Return the next batch; there is always one."""
        if self._order is None:
            self._order = self._epoch_order()
        start = self._batch * self._batch_size
        indices = self._order[start : start + self._batch_size]
        batch = self._collate([self.dataset[index] for index in indices.tolist()])
        self._advance()
        return batch

    def state_dict(self) -> dict[str, int | bool]:
        """Return the position, and what it means: order and share."""
        return {
            "epoch": self._epoch,
            "batch": self._batch,
            "start": self._start,
            "samples": len(self.dataset),
            **self._meaning(),
        }

    def load_state_dict(self, state: Mapping[str, int | bool]) -> None:
        """Take up the position; raise `CheckpointError` if it belongs to another order."""
        expected = {"samples": len(self.dataset), **self._meaning()}
        for name, value in expected.items():
            if state.get(name) != value:
                raise _other_order(name, saved=state.get(name), now=value)
        self._epoch, self._batch = int(state["epoch"]), int(state["batch"])
        self._start = int(state.get("start", 0))
        self._order = None

    def load_gang_state(self, states: Sequence[Mapping[str, int | bool]]) -> None:
        """Go on where a gang of another size was, given the state of each of its ranks.

        No sample of the epoch comes twice and none is lost, save those that any epoch leaves out.
        The batch size may be another one. Raises `CheckpointError` if the ranks were not in step,
        or if the order is another one.
        """
        first = dict(states[0])
        for state in states:
            if {**state, "rank": 0} != {**first, "rank": 0}:
                raise _out_of_step()
        before = _copy_of_gang(self, first)
        before.load_state_dict(first)
        self._epoch, self._batch = before.epoch, 0
        self._start = before.samples_taken
        self._order = None
        if self._share() == 0:
            self._epoch, self._start = self._epoch + 1, 0

    def _meaning(self) -> dict[str, int | bool]:
        return {
            "batch_size": self._batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "rank": self._rank,
            "world_size": self._world_size,
        }

    def _advance(self) -> None:
        self._batch += 1
        if self._batch * self._batch_size >= self._share():
            self._epoch, self._batch, self._start, self._order = self._epoch + 1, 0, 0, None

    def _share(self) -> int:
        """Samples that each rank gets of what this epoch had left when this gang came to it."""
        return (len(self.dataset) - self._start) // self._world_size

    def _epoch_order(self) -> torch.Tensor:
        count = len(self.dataset)
        order = torch.arange(count)
        if self.shuffle:
            generator = torch.Generator().manual_seed(_mixed(self.seed, self._epoch))
            order = torch.randperm(count, generator=generator)
        return order[self._start + self._rank :: self._world_size][: self._share()]


def _copy_of_gang(
    loader: ResumableLoader[Any], state: Mapping[str, int | bool]
) -> ResumableLoader[Any]:
    """Return a loader of the same data as rank 0 of the gang that left `state`."""
    return ResumableLoader(
        loader.dataset,
        batch_size=int(state["batch_size"]),
        seed=loader.seed,
        shuffle=loader.shuffle,
        rank=int(state["rank"]),
        world_size=int(state["world_size"]),
    )


def _out_of_step() -> CheckpointError:
    return CheckpointError(
        "loader-out-of-step",
        cause="The ranks that saved this checkpoint were not at the same batch of their loaders.",
        remedy="Start it with as many ranks as saved it: each then goes on where it was.",
    )


def _mixed(seed: int, epoch: int) -> int:
    # Far apart for neighbouring seeds and epochs; torch wants 64 bits.
    return (seed * 0x9E3779B97F4A7C15 + epoch * 0xC2B2AE3D27D4EB4F) % 2**63


def _check_sizes(samples: int, batch_size: int, world_size: int) -> None:
    if batch_size < 1 or samples < world_size:
        raise CheckpointError(
            "loader-sizes",
            cause=f"{samples} samples cannot be cut into batches of {batch_size} for {world_size}.",
            remedy="Use a batch size of at least 1 and at least one sample per rank.",
        )


def _other_order(name: str, *, saved: object, now: object) -> CheckpointError:
    return CheckpointError(
        "loader-mismatch",
        cause=f"The loader's {name} is {now!r} and the checkpoint was saved with {saved!r}.",
        remedy=f"Restore {name}, or submit a new job: the old position means nothing here.",
    )
