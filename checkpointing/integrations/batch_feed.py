"""The batches of an epoch of `accelerate`'s data loader, with a position that is exact.

A data loader fetches one batch ahead of training, and fetching may draw random numbers (masking,
augmentation). So a position is three things: how many batches were trained on, the generators as
they were when the epoch's order was drawn, and as they were when each batch was fetched that was
not trained on yet. A resumed epoch draws the same order, fetches those batches as before, and only
then sets the generators to where training stood.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from accelerate import skip_first_batches
from accelerate.data_loader import SkipBatchSampler

from checkpointing.rng import apply_rng, capture_rng

_Rng = dict[str, object]


class BatchFeed:
    """An iterator over one epoch at a time; `open` starts an epoch or goes on in the restored one.

    Exact for map-style data fetched in this process, and for anything whose fetching draws no
    random number. Workers and iterable data sets start their own generators anew.
    """

    def __init__(self) -> None:
        """Stand before the first epoch."""
        self.epoch = 0
        self.taken = 0
        """Batches of the epoch that were handed out."""
        self._start: _Rng | None = None
        self._ahead: deque[_Rng] = deque()
        self._again: deque[_Rng] = deque()
        self._here: _Rng | None = None
        self._batches: Iterator[Any] = iter(())

    def state_dict(self) -> dict[str, object]:
        """Return the position."""
        return {
            "epoch": self.epoch,
            "taken": self.taken,
            "start": self._start,
            "ahead": [*self._again, *self._ahead],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a position; it is gone to when its epoch is opened."""
        self.epoch, self.taken, self._start = state["epoch"], state["taken"], state["start"]
        self._again = deque(state["ahead"])

    def open(self, loader: Any, *, epoch: int) -> None:  # noqa: ANN401 - one of accelerate's
        """Iterate over `epoch` of a prepared loader, from the position if it lies in there."""
        if epoch != self.epoch:
            self.close()
            self.epoch = epoch
        self._ahead.clear()
        self._batches = self._resumed(loader) if self.taken else self._fresh(loader)

    def close(self) -> None:
        """Leave the epoch: the position is the start of the next one."""
        self.epoch, self.taken, self._start = self.epoch + 1, 0, None
        self._ahead.clear()
        self._again.clear()
        self._batches = iter(())

    def __iter__(self) -> Iterator[Any]:
        """Return itself."""
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - whatever the loader's collate makes
        """Return the next batch of the epoch."""
        batch = next(self._batches)
        self.taken += 1
        if self._ahead:
            self._ahead.popleft()
        return batch

    def _fresh(self, loader: Any) -> Iterator[Any]:  # noqa: ANN401
        # A generator, so that the order is drawn with the first batch, as without us.
        self._start = capture_rng()
        yield from _watched(loader, self._before_fetch)

    def _resumed(self, loader: Any) -> Iterator[Any]:  # noqa: ANN401
        self._here = capture_rng()
        loader.set_epoch(self.epoch)
        rest = skip_first_batches(loader, self.taken)
        rest.set_epoch(self.epoch)
        if self._start is not None:
            self._draw_order(rest)
            apply_rng(self._start)
        yield from _watched(rest, self._before_fetch)

    def _draw_order(self, rest: Any) -> None:  # noqa: ANN401
        """Draw the order of the epoch as at its start, whatever generator the sampler uses."""
        skipping = rest.batch_sampler
        if self._start is None or not isinstance(skipping, SkipBatchSampler):
            return
        apply_rng(self._start)
        torch.empty((), dtype=torch.int64).random_(generator=rest.generator)  # the workers' seed
        order = iter(skipping.batch_sampler)
        skipping.batch_sampler = chain([next(order)], order)

    def _before_fetch(self) -> None:
        if self._again:
            apply_rng(self._again.popleft())
        elif self._here is not None:
            apply_rng(self._here)
            self._here = None
        self._ahead.append(capture_rng())


def _watched(loader: Any, before_fetch: Callable[[], None]) -> Iterator[Any]:  # noqa: ANN401
    plain = loader.base_dataloader
    loader.base_dataloader = _Watched(plain, before_fetch)
    try:
        yield from loader
    finally:
        loader.base_dataloader = plain


class _Watched:
    """A data loader that says when it is about to fetch; in all else the one it stands for."""

    def __init__(self, plain: Any, before_fetch: Callable[[], None]) -> None:  # noqa: ANN401
        self._plain = plain
        self._before_fetch = before_fetch

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._plain, name)

    def __len__(self) -> int:
        return len(self._plain)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._plain)
        while True:
            self._before_fetch()
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch
