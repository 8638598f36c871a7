"""Being asked to leave: by the worker's message, or by SIGTERM where nobody else handles it.

The request is obeyed at the next step boundary, where the state is one to go on from. What if that
is far away?

- During imports, the restore and the first compilation nothing is lost that was not lost before:
  the restore point stands, and the worker ends the process at the deadline.
- In a long evaluation between two steps, `Session.completed` may be called again and again for the
  same step: each call is a boundary. Within a step `Session.poll` says that it is time to end.
- A step that outlasts the notice is lost, but a save in flight is not: its upload is another
  process, which goes on until it is committed, also when the deadline ends the training.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Final

from checkpointing.clock import now_us
from checkpointing.control_client import Control

SIGTERM_BUDGET_US: Final = 30 * 1_000_000


class DrainWatch:
    """Knows the instant by which this process must have left, once there is one."""

    def __init__(self, control: Control) -> None:
        """Listen to `control` and, in the main thread, to SIGTERM if its handler is the default."""
        self._control = control
        self._signalled_us: int | None = None
        self._installed = _is_free(signal.SIGTERM)
        if self._installed:
            signal.signal(signal.SIGTERM, self._on_signal)

    def budget_us(self) -> int | None:
        """Return how long there still is (at least 1), None while nobody asked."""
        deadlines = [self._control.drain_deadline_us, self._signalled_us]
        asked = [deadline for deadline in deadlines if deadline is not None]
        return max(1, min(asked) - now_us()) if asked else None

    def close(self) -> None:
        """Give SIGTERM back."""
        if self._installed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled_us = now_us() + SIGTERM_BUDGET_US


def _is_free(number: signal.Signals) -> bool:
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(number) is signal.SIG_DFL
