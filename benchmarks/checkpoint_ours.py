"""Ours, driven as a training script drives it: a `Session`, and step boundaries."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Final

import torch

from benchmarks.checkpoint_measure import timed
from benchmarks.checkpoint_state import Training
from checkpointing import Session

_POLL_S: Final = 0.005
_LIMIT_S: Final = 120.0
_ALWAYS_S: Final = 1e-6  # an interval so short that a save is due at every boundary


class Ours:
    """A session that saves at each step boundary that it is given."""

    def __init__(self, training: Training, session: Session) -> None:
        """Take over an entered session."""
        self.session = session
        self._training = training
        self._step = session.begin(0)

    def save(self, *, changed: bool = True) -> tuple[float, float]:
        """Save at a boundary; return the seconds that it stood still, and until the commit.

        `changed` first alters every tensor, so that every chunk is new; that is not timed.
        """
        if changed:
            alter(self._training)
        saved = self.session.stats.saves
        stall_s = self.start()
        return stall_s, stall_s + timed(lambda: self._await(saved))

    def start(self) -> float:
        """Pass a step boundary, at which a save begins; return the seconds that this took."""
        self._step += 1
        return timed(lambda: self.session.completed(self._step))

    def _await(self, saved: int) -> None:
        began = perf_counter()
        while self.look() == saved:
            threading.Event().wait(_POLL_S)
            assert perf_counter() - began < _LIMIT_S, "a save of ours does not end"

    def look(self) -> int:
        """Pass the same boundary again, which only takes in news; return how many saves ended."""
        self.session.completed(self._step)
        assert not self.session.stats.failures, "a save of ours failed"
        return self.session.stats.saves


@contextmanager
def ours(training: Training, uri: str, *, environment: Mapping[str, str]) -> Iterator[Ours]:
    """Enter a session that saves `training` under `uri`; `environment` names the server."""
    with with_environment(environment), session_of(training, uri) as session:
        yield Ours(training, session)


def session_of(training: Training, uri: str) -> Session:
    """Return a session that saves at every boundary; entering it restores."""
    return Session(
        model=training.model,
        optimizer=training.optimizer,
        save_to=uri,
        save_every_s=_ALWAYS_S,
        keep=1,
    )


@contextmanager
def with_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, for a server's address and credentials, and put them back."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def alter(training: Training) -> None:
    """Change some bits of every element, as a step of training would; no value becomes odd."""
    with torch.no_grad():
        for tensor in training.tensors:
            tensor.view(torch.int32).bitwise_xor_(1)
