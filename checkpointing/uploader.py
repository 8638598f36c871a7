"""Publishing in the background, one snapshot at a time.

`Uploader` is the seam: today a thread of the training process; a process beside it, which survives
the training's death, fits the same Protocol.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from checkpointing.errors import CheckpointError
from checkpointing.publish import Published
from checkpointing.staging import Snapshot


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a save ended: exactly one of `published` and `error` is set."""

    step: int
    published: Published | None = None
    error: CheckpointError | None = None


class Uploader(Protocol):
    """Takes one snapshot at a time and reports how its save ended, once."""

    def submit(self, snapshot: Snapshot) -> None:
        """Start a save; the previous one must have been collected."""

    def collect(self, timeout_s: float) -> Outcome | None:
        """Return the outcome of the save in flight, waiting up to `timeout_s`; else None."""

    @property
    def busy(self) -> bool:
        """Whether a save was submitted whose outcome was not collected."""


class ThreadUploader:
    """Publishes in a daemon thread per save."""

    def __init__(self, publish: Callable[[Snapshot], Published]) -> None:
        """`publish` stores one snapshot; it may raise `CheckpointError`."""
        self._publish = publish
        self._thread: threading.Thread | None = None
        self._outcome: Outcome | None = None

    @property
    def busy(self) -> bool:
        """Whether a save is in flight or waits to be collected."""
        return self._thread is not None

    def submit(self, snapshot: Snapshot) -> None:
        """Start the thread."""
        assert self._thread is None, "collect the previous save first"
        self._thread = threading.Thread(target=self._save, args=(snapshot,), daemon=True)
        self._thread.start()

    def collect(self, timeout_s: float) -> Outcome | None:
        """Wait for the thread; None if it is still at work, or if there is none."""
        if self._thread is None:
            return None
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return None
        outcome, self._thread, self._outcome = self._outcome, None, None
        return outcome

    def _save(self, snapshot: Snapshot) -> None:
        try:
            self._outcome = Outcome(snapshot.step, published=self._publish(snapshot))
        except CheckpointError as error:
            self._outcome = Outcome(snapshot.step, error=error)
        except Exception as error:  # noqa: BLE001 - a thread's bug must not look like success
            self._outcome = Outcome(snapshot.step, error=_bug(error))


def _bug(error: Exception) -> CheckpointError:
    return CheckpointError(
        "save-bug",
        cause=f"The save met an unexpected {type(error).__name__}: {error}",
        remedy="This is a defect of Lowtide; please report it with this line.",
    )
