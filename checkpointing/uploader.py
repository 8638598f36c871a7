"""Publishing in the background, one snapshot at a time: the Protocol, and a thread that does it.

`uploader_process` does it in a process of its own, which is what a training should use: a thread
that uploads takes more than a second of training per gigabyte, a process a fifth of that.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

from checkpointing.depot import Depot
from checkpointing.errors import CheckpointError
from checkpointing.publish import Published
from checkpointing.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a save ended: exactly one of `published` and `error` is set."""

    step: int
    published: Published | None = None
    error: CheckpointError | None = None


class Uploader(Protocol):
    """Takes one snapshot at a time and reports how its save ended, once."""

    def submit(self, snapshot: Snapshot, *, descriptor: int | None) -> None:
        """Start a save; the previous one must have been collected.

        `descriptor`: the snapshot's memory, for another process to map; None where it has none.
        """

    def collect(self, timeout_s: float) -> Outcome | None:
        """Return the outcome of the save in flight, waiting up to `timeout_s`; else None."""

    def adopt(self, manifest: str, *, chunks: frozenset[str]) -> None:
        """Build on a restore point: its chunks are stored and must stay."""

    def settle(self, step: int) -> None:
        """As a rank other than 0: learn that the gang committed `step`."""

    def close(self) -> None:
        """Take no more saves; one in flight may still end."""

    @property
    def busy(self) -> bool:
        """Whether a save was submitted whose outcome was not collected."""


class ThreadUploader:
    """Publishes in a daemon thread per save."""

    def __init__(self, depot: Depot) -> None:
        """Publish to `depot`."""
        self._depot = depot
        self._thread: threading.Thread | None = None
        self._outcome: Outcome | None = None

    @property
    def busy(self) -> bool:
        """Whether a save is in flight or waits to be collected."""
        return self._thread is not None

    def submit(self, snapshot: Snapshot, *, descriptor: int | None) -> None:
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
        self._depot.sweep_now_and_then()
        return outcome

    def adopt(self, manifest: str, *, chunks: frozenset[str]) -> None:
        """Tell the depot."""
        self._depot.adopt(manifest, chunks=chunks)

    def settle(self, step: int) -> None:
        """Tell the depot."""
        self._depot.settle(step)

    def close(self) -> None:
        """Nothing is held."""

    def _save(self, snapshot: Snapshot) -> None:
        self._outcome = publish_outcome(self._depot, snapshot)


def publish_outcome(depot: Depot, snapshot: Snapshot) -> Outcome:
    """Publish, and return whatever became of it: a bug must not look like success."""
    try:
        return Outcome(snapshot.step, published=depot.publish(snapshot))
    except CheckpointError as error:
        return Outcome(snapshot.step, error=error)
    except Exception as error:  # noqa: BLE001 - whatever it was, training goes on
        return Outcome(snapshot.step, error=_bug(error))


def _bug(error: Exception) -> CheckpointError:
    return CheckpointError(
        "save-bug",
        cause=f"The save met an unexpected {type(error).__name__}: {error}",
        remedy="This is a defect of Lowtide; please report it with this line.",
    )
