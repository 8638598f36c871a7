"""A loader's position is carried over to another number of ranks, sample for sample."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpointing import CheckpointError, ResumableLoader
from checkpointing.rng import apply_rng, capture_rng, derived_rng


def gang(samples: int, *, batch: int, world: int) -> list[ResumableLoader[int]]:
    """The loaders of all ranks."""
    data = list(range(samples))
    return [
        ResumableLoader(data, batch_size=batch, seed=9, rank=rank, world_size=world)
        for rank in range(world)
    ]


def rest_of_epoch(loaders: list[ResumableLoader[int]]) -> list[int]:
    """What all ranks still take in this epoch."""
    epoch, taken = loaders[0].epoch, []
    for loader in loaders:
        while loader.epoch == epoch:
            taken += next(loader).tolist()
    return taken


@given(
    samples=st.integers(8, 60),
    batches=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    worlds=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    steps=st.tuples(st.integers(0, 6), st.integers(0, 3)),
)
def test_no_sample_twice_and_none_lost(
    samples: int, batches: tuple[int, ...], worlds: tuple[int, ...], steps: tuple[int, ...]
) -> None:
    """Two changes of the gang in one epoch: only the few that any epoch leaves out are missing."""
    taken: list[int] = []
    states: list[Any] = []
    epoch = 0
    loaders: list[ResumableLoader[Any]] = []
    for batch, world, count in zip(batches, worlds, (*steps, 0), strict=True):
        loaders = gang(samples, batch=batch, world=world)
        for loader in loaders if states else []:
            loader.load_gang_state(states)
        taken = [] if loaders[0].epoch != epoch else taken
        epoch = loaders[0].epoch
        for _ in range(count):
            if loaders[0].epoch != epoch:
                taken, epoch = [], loaders[0].epoch
            taken += [sample for loader in loaders for sample in next(loader).tolist()]
        if loaders[0].epoch != epoch:
            taken, epoch = [], loaders[0].epoch
        states = [loader.state_dict() for loader in loaders]
    taken += rest_of_epoch(loaders)
    assert len(set(taken)) == len(taken)
    assert samples - len(taken) < max(worlds)


def test_the_position_survives_a_save_after_the_change() -> None:
    """A gang that took over in mid-epoch saves and goes on like any other."""
    first = gang(24, batch=2, world=2)
    taken = [sample for loader in first for sample in next(loader).tolist()]
    second = gang(24, batch=2, world=1)
    second[0].load_gang_state([loader.state_dict() for loader in first])
    taken += next(second[0]).tolist()
    third = gang(24, batch=2, world=1)
    third[0].load_state_dict(second[0].state_dict())
    assert sorted(taken + rest_of_epoch(third)) == list(range(24))


def test_ranks_out_of_step_are_refused() -> None:
    """Of ranks at different batches no single position is exact."""
    loaders = gang(24, batch=2, world=2)
    next(loaders[0])
    with pytest.raises(CheckpointError) as caught:
        gang(24, batch=2, world=1)[0].load_gang_state([one.state_dict() for one in loaders])
    assert caught.value.code == "loader-out-of-step"


def test_another_order_is_refused_by_another_gang_as_well() -> None:
    """A position in another data set means nothing, however many ranks there are."""
    states = [loader.state_dict() for loader in gang(24, batch=2, world=2)]
    with pytest.raises(CheckpointError, match="samples"):
        gang(25, batch=2, world=1)[0].load_gang_state(states)


def test_a_new_rank_has_streams_of_its_own_and_always_the_same() -> None:
    """Derived generators differ from rank to rank, and not from resume to resume."""
    kept = capture_rng()
    try:
        draws = []
        for rank in (2, 3, 2):
            apply_rng(derived_rng(kept, rank=rank))
            draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    finally:
        apply_rng(kept)
    assert draws[0] == draws[2]
    assert all(one != other for one, other in zip(draws[0], draws[1], strict=True))
