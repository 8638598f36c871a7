"""What a worker tells about its children: every fact once, progress twice a second at most."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from checkpointing import control
from cluster.agent_clock import monotonic_us, now_us
from cluster.worker_wire import Exited, News, Said, Unable

_PROGRESS_US = 500_000
_LEADER = 0  # rank 0 speaks for the gang: all ranks take the same steps
_FACTS = (control.Opened, control.Restoring, control.Training, control.Committed)


class Reporter:
    """Numbers the news; ``heard`` may be called from any thread."""

    def __init__(self, tell: Callable[[News], None]) -> None:
        """News go to ``tell`` in the order of their ``seq``."""
        self.ended: set[int] = set()
        """Ranks whose exit was told."""
        self._tell = tell
        self._lock = threading.RLock()
        self._seq = itertools.count(1)
        self._step: control.Step | None = None
        self._progress_us = 0
        self._spools: dict[int, Path] = {}

    def follow(self, rank: int, *, spool: Path) -> None:
        """Put what people should read about a rank into its output."""
        self._spools[rank] = spool

    def heard(self, rank: int, message: control.Message) -> None:
        """Take what a child said."""
        with self._lock:
            if isinstance(message, control.SaveFailed):
                self._note(rank, f"save of step {message.step} failed: {message.cause}")
            elif isinstance(message, control.Restored):
                for skipped in message.skipped:
                    self._note(rank, f"a newer checkpoint was passed over: {skipped}")
            elif isinstance(message, control.Drained) and message.reached > message.step:
                lost = f"steps {message.step + 1} to {message.reached} are not saved"
                self._note(rank, f"leaving: {lost}, no save of them fitted the notice")
            elif rank == _LEADER and isinstance(message, control.Step):
                self._step = message
            elif rank == _LEADER and isinstance(message, _FACTS):
                self._say(rank, message)

    def tick(self) -> None:
        """Tell how far training is, if that is due."""
        with self._lock:
            if monotonic_us() - self._progress_us >= _PROGRESS_US:
                self._flush_step()

    def exited(self, rank: int, *, code: int, tail: str) -> None:
        """Tell that a child is gone; its last progress goes first."""
        with self._lock:
            self._flush_step()
            self.ended.add(rank)
            self._tell(Exited(seq=next(self._seq), at_us=now_us(), rank=rank, code=code, tail=tail))

    def unable(self, detail: str) -> None:
        """Tell that nothing can be started."""
        with self._lock:
            self._tell(Unable(seq=next(self._seq), at_us=now_us(), detail=detail))

    def _flush_step(self) -> None:
        if self._step is not None:
            step, self._step = self._step, None
            self._progress_us = monotonic_us()
            self._say(_LEADER, step)

    def _say(self, rank: int, message: control.Message) -> None:
        fields: dict[str, Any] = {"kind": message.kind, **asdict(message)}
        self._tell(Said(seq=next(self._seq), at_us=now_us(), rank=rank, message=fields))

    def _note(self, rank: int, text: str) -> None:
        if rank in self._spools:
            with self._spools[rank].open("a") as stream:
                stream.write(f"[lowtide] {text}\n")
