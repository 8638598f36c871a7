"""The position of Lightning's training data loader, exact where a loader can be gone forward.

A map-style `DataLoader` is gone forward by drawing the epoch's order again, from the generators as
they were, and passing over the indices of the batches that were trained on: no sample is read
twice. An iterable data set, or a subclass of `DataLoader`, is read again from the epoch's start.
Loaders with a `state_dict` of their own are left to Lightning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any, Final

import torch
from torch.utils.data import DataLoader, IterableDataset

from checkpointing.errors import CheckpointError
from checkpointing.rng import apply_rng, capture_rng
from checkpointing.subjects import Stateful

_KEPT: Final = (
    "num_workers",
    "collate_fn",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "generator",
    "prefetch_factor",
    "persistent_workers",
    "in_order",
)
"""What of a loader's arguments its rest has too."""


class LoaderPlace:
    """Sits in Lightning's data fetcher, counts its batches, and sets its position once."""

    def __init__(self, *, before_fetch: Callable[[], None]) -> None:
        """`before_fetch` hears that the previous batch and all that followed it are done."""
        self._before_fetch = before_fetch
        self._taken = 0
        self._start: dict[str, object] | None = None
        """The generators before the epoch's order was drawn."""
        self._is_away = False
        """Whether the position was restored and is still to be gone to."""

    def state_dict(self) -> dict[str, object]:
        """Return the position in the epoch."""
        return {"taken": self._taken, "start": self._start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a position; the first fetch goes there."""
        self._taken, self._start = state["taken"], state["start"]
        self._is_away = True

    def attach(self, fetcher: Any) -> Any:  # noqa: ANN401 - Lightning's, of several kinds
        """Return the fetcher, watched; raise `CheckpointError` if it cannot be exact."""
        if isinstance(fetcher, _Watched):
            return fetcher
        _check(fetcher)
        watched = _Watched(fetcher, self)
        if not self._is_away:
            self._taken, self._start = 0, None
            if _workers(fetcher):  # they have drawn the order already: let them do so in our sight
                iter(watched)
        return watched

    def on_iter(self, fetcher: Any) -> None:  # noqa: ANN401
        """Stand at the start of an epoch."""
        self._taken = 0
        self._start = capture_rng() if _workers(fetcher) else None

    def on_next(self, fetcher: Any) -> None:  # noqa: ANN401
        """Go to the restored position if there is one; count the batch that comes."""
        if self._is_away:
            self._is_away = False
            if not _is_stateful(fetcher.combined_loader.flattened):
                self._go(fetcher)
        self._before_fetch()
        if self._start is None:
            self._start = capture_rng()
        self._taken += 1

    def _go(self, fetcher: Any) -> None:  # noqa: ANN401
        if self._start is None:
            return
        here = capture_rng()
        combined = fetcher.combined_loader
        (loader,) = loaders = combined.flattened
        apply_rng(self._start)
        combined.flattened = [_rest(loader, self._taken)]
        if fetcher.length is None:
            iter(fetcher)  # it has fetched a batch ahead, which is to be forgotten
        else:
            fetcher.iterator = iter(combined)
        combined.flattened = loaders
        apply_rng(here)


class _Watched:
    """A data fetcher that says when it is about to fetch; in all else the one it stands for."""

    def __init__(self, fetcher: Any, place: LoaderPlace) -> None:  # noqa: ANN401
        object.__setattr__(self, "_fetcher", fetcher)
        object.__setattr__(self, "_place", place)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._fetcher, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._fetcher, name, value)

    def __iter__(self) -> Any:  # noqa: ANN401
        self._place.on_iter(self._fetcher)
        iter(self._fetcher)
        return self

    def __next__(self) -> Any:  # noqa: ANN401
        self._place.on_next(self._fetcher)
        return next(self._fetcher)


class _Reread:
    """A loader whose first batches are read and thrown away."""

    def __init__(self, loader: Any, taken: int) -> None:  # noqa: ANN401
        self._loader = loader
        self._taken = taken

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self._loader), self._taken, None)


def _rest(loader: Any, taken: int) -> Any:  # noqa: ANN401
    """Return what is left of the epoch, its order drawn now."""
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset):
        return _Reread(loader, taken)
    workers = loader.num_workers > 0
    before = capture_rng()
    if workers:  # their seed is drawn before the order, and once more when the rest starts them
        torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
    batched = loader.batch_sampler is not None
    sampler: Any = loader.batch_sampler if batched else loader.sampler
    order = iter(sampler)
    first = list(islice(order, taken, taken + 1))
    if workers:
        apply_rng(before)
    left = chain(first, order)
    sampling = {"batch_sampler": left} if batched else {"sampler": left, "batch_size": None}
    return DataLoader(loader.dataset, **sampling, **{name: getattr(loader, name) for name in _KEPT})


def _workers(fetcher: Any) -> bool:  # noqa: ANN401
    return any(getattr(one, "num_workers", 0) > 0 for one in fetcher.combined_loader.flattened)


def _is_stateful(loaders: list[Any]) -> bool:
    return all(isinstance(loader, Stateful) for loader in loaders)


def _check(fetcher: Any) -> None:  # noqa: ANN401
    loaders = fetcher.combined_loader.flattened
    by_hand = hasattr(fetcher, "iterator_wrapper")  # training_step(dataloader_iter)
    if not by_hand and (len(loaders) == 1 or _is_stateful(loaders)):
        return
    what = "a training step that fetches for itself" if by_hand else f"{len(loaders)} data loaders"
    raise CheckpointError(
        "trainer-unsupported",
        cause=f"This training cannot be resumed exactly within an epoch: it has {what}.",
        remedy="Train on one DataLoader, or give each a state_dict() and load_state_dict().",
    )
