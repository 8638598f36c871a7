"""The gate on `optimizer.step`: what only a step changes may be copied while training goes on.

Parameters and the optimizer's own state change in `optimizer.step` and nowhere else, so their copy
may overlap the next forward and backward pass, if the next step waits for it. All the rest
(buffers, generators, counters) is copied at the boundary. Without the gate a step would tear the
snapshot.

A training that writes to its parameters elsewhere (clips weights before a step, swaps averages in)
breaks that assumption: torch counts writes to a tensor, so a torn copy is noticed and not
published. Writes through `.data` are not counted; such a training must not ask for the overlap.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from checkpointing.clock import monotonic_us
from checkpointing.errors import CheckpointError
from checkpointing.tensor_bytes import TensorLeaf


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """A copy that is still to be made, and how often its source had been written by then."""

    source: torch.Tensor
    version: int
    make: Callable[[], None]

    @property
    def torn(self) -> bool:
        """Whether the source was written to since the boundary."""
        return self.source._version != self.version  # noqa: SLF001 - torch's own write counter


class StepGate:
    """Holds the steps of some optimizers back until the copies under way are made."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Hook into every optimizer's `step`."""
        self._optimizers = tuple(optimizers)
        self._hooks = [one.register_step_pre_hook(self._before_step) for one in optimizers]
        self._copying: threading.Thread | None = None
        self._error: CheckpointError | None = None
        self.waited_us = 0
        """For how long steps stood at the gate since the last `start`."""

    def holds(self) -> Callable[[TensorLeaf], bool]:
        """Return the test for tensors that only the optimizers' next steps can change."""
        places = {tensor.data_ptr() for tensor in self._stepped()} - {0}
        return lambda leaf: (
            isinstance(leaf.source, torch.Tensor) and leaf.source.data_ptr() in places
        )

    def start(self, copies: Sequence[Copy], *, then: Callable[[], None]) -> None:
        """Make `copies` in a thread, then call `then` in it, unless one of them was torn."""
        self.waited_us, self._error = 0, None
        beside = _beside_training(copies)
        self._copying = threading.Thread(
            target=self._copy, args=(copies, then, beside), name="checkpoint-copy", daemon=True
        )
        self._copying.start()

    def finished(self, timeout_s: float | None) -> bool:
        """Say whether nothing is being copied, waiting up to `timeout_s`; None: to the end."""
        if self._copying is None:
            return True
        self._copying.join(timeout_s)
        if self._copying.is_alive():
            return False
        self._copying = None
        return True

    def take_error(self) -> CheckpointError | None:
        """Return why the last snapshot may not be used, once."""
        error, self._error = self._error, None
        return error

    def close(self) -> None:
        """Let go of the optimizers."""
        self.finished(None)
        for hook in self._hooks:
            hook.remove()

    def _before_step(self, *_: object) -> None:
        if self._copying is not None:
            began_us = monotonic_us()
            self.finished(None)
            self.waited_us += monotonic_us() - began_us

    def _copy(
        self,
        copies: Sequence[Copy],
        then: Callable[[], None],
        beside: AbstractContextManager[object],
    ) -> None:
        with beside:
            for copy in copies:
                copy.make()
        if any(copy.torn for copy in copies):
            self._error = _torn()
        else:
            then()

    def _stepped(self) -> Iterator[torch.Tensor]:
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                yield from group["params"]
            for state in optimizer.state.values():
                yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def _beside_training(copies: Sequence[Copy]) -> AbstractContextManager[object]:
    """Return the context for the copies: on a GPU a stream of their own, from this point on."""
    if not any(copy.source.is_cuda for copy in copies):
        return nullcontext()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    return torch.cuda.stream(stream)


def _torn() -> CheckpointError:
    return CheckpointError(
        "state-changed",
        cause="A parameter was written to outside of optimizer.step while it was being copied.",
        remedy="Training goes on; make this Session without overlap=True, so that saves succeed.",
    )
