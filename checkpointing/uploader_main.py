"""The uploader process: hashes and uploads what the training staged, and outlives its death.

It imports no torch. It shares the arena with the training through a descriptor, so bytes are never
copied between them, and a snapshot that was handed over is safe from then on: if the training dies,
the save is finished first. An evicted training's uploader is fenced out like any other writer.
"""

from __future__ import annotations

import mmap
import os
import socket
import threading
from contextlib import suppress
from typing import Final

from checkpointing.clock import pause
from checkpointing.depot import Depot, DepotOrder, open_depot
from checkpointing.errors import CheckpointError
from checkpointing.publish import Published
from checkpointing.uploader import Outcome, publish_outcome
from checkpointing.uploader_report import WorkerReport
from checkpointing.uploader_wire import Channel, Message, order_from, outcome_json, snapshot_from

ORPHAN_S: Final = 120.0
"""How long a save may go on after the training died: longer, and its successor has taken over."""
_LOOK_S: Final = 0.5
_NICE: Final = 5  # training comes first; in a drain it stands still, and all of the CPU is ours


class UploaderProcess:
    """Answers one training's frames until it hangs up or dies."""

    def __init__(self, channel: Channel, *, order: DepotOrder, parent: int) -> None:
        """`parent` is the training's process id."""
        self._channel = channel
        self._order = order
        self._parent = parent
        self._depot: Depot | None = None
        self._memory = memoryview(b"")
        self.newest: tuple[Published, int] | None = None
        """What was saved last, and the instant of its snapshot (microseconds UTC)."""

    def serve(self) -> None:
        """Take frames, in order; return when the training is gone and nothing is left to do."""
        with suppress(CheckpointError):
            self._opened()  # now, while nobody waits; an error is told with the first save
        while self._wait():
            found = self._channel.receive()
            if found is None:
                return
            self._take(*found)

    def _wait(self) -> bool:
        """Wait for a frame; False once the training is gone without a word.

        A process that the training forked may hold its end of the wire open.
        """
        while not self._channel.ready(_LOOK_S):
            if os.getppid() != self._parent:
                return False
        return True

    def _take(self, message: Message, descriptor: int | None) -> None:
        if descriptor is not None:
            self._map(descriptor)
        match message["kind"]:
            case "save":
                self._tell(self._save(message))
                if self._depot is not None:
                    self._depot.sweep_now_and_then()
            case "adopt":
                with suppress(CheckpointError):
                    chunks = frozenset(message["chunks"])
                    self._opened().adopt(message["manifest"], chunks=chunks)
            case "settle":
                with suppress(CheckpointError):
                    self._opened().settle(message["step"])
            case kind:
                raise AssertionError(kind)

    def _map(self, descriptor: int) -> None:
        self._memory = memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
        os.close(descriptor)

    def _save(self, message: Message) -> Outcome:
        try:
            depot = self._opened()
        except CheckpointError as error:
            return Outcome(message["step"], error=error)
        snapshot = snapshot_from(message, self._memory)
        outcome = publish_outcome(depot, snapshot)
        if outcome.published is not None:
            self.newest = (outcome.published, snapshot.at_us)
        return outcome

    def _tell(self, outcome: Outcome) -> None:
        with suppress(OSError):  # the training is gone: its successor finds the commit
            self._channel.send(outcome_json(outcome))

    def _opened(self) -> Depot:
        if self._depot is None:
            self._depot = open_depot(self._order)
        return self._depot


def main(descriptor: int, parent: int) -> None:
    """Serve the training whose process id is `parent` on an inherited socket."""
    with suppress(OSError):
        os.nice(_NICE)
    threading.Thread(target=_end_as_orphan, args=(parent,), daemon=True).start()
    report = WorkerReport()
    channel = Channel(socket.socket(fileno=descriptor))
    first = channel.receive()
    if first is not None:
        process = UploaderProcess(channel, order=order_from(first[0]), parent=parent)
        process.serve()
        if process.newest is not None:  # the training may not have lived to tell
            report.committed(process.newest[0], snapshot_us=process.newest[1])


def _end_as_orphan(parent: int) -> None:
    while os.getppid() == parent:
        pause(_LOOK_S)
    pause(ORPHAN_S)
    os._exit(1)
