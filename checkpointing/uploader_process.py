"""The training's end of the uploader process: starts it, hands it snapshots, hears of its end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from checkpointing.clock import monotonic_us
from checkpointing.depot import DepotOrder
from checkpointing.errors import CheckpointError
from checkpointing.snapshot import Snapshot
from checkpointing.uploader import Outcome
from checkpointing.uploader_wire import Channel, Message, order_json, outcome_from, snapshot_json

_CLOSE_S: Final = 5.0
_DYING_S: Final = 2.0
_TAIL_BYTES: Final = 500
# -I: neither the training's folder nor its PYTHON* variables may change what runs here.
_START: Final = "import sys; sys.path[:] = sys.argv[3:]; from checkpointing.uploader_main import main; main(int(sys.argv[1]), int(sys.argv[2]))"  # noqa: E501


class ProcessUploader:
    """One uploader process; another one is started if it dies."""

    def __init__(self, order: DepotOrder) -> None:
        """Start it now, so that it is ready when the first save comes."""
        self._order = order
        self._adopted: Message | None = None
        self._step: int | None = None
        self._process: _Process | None = _Process(order)

    @property
    def busy(self) -> bool:
        """Whether a save is in flight or waits to be collected."""
        return self._step is not None

    @property
    def pid(self) -> int | None:
        """Its process id, while there is one."""
        return None if self._process is None else self._process.pid

    def submit(self, snapshot: Snapshot, *, descriptor: int | None) -> None:
        """Hand the snapshot over: from now on it will be saved even if this process dies."""
        assert self._step is None, "collect the previous save first"
        assert descriptor is not None, "the arena must be shared memory"
        self._step = snapshot.step
        with suppress(OSError):  # it is dead: `collect` says so
            process = self._running()
            arena = os.fstat(descriptor).st_ino  # not its number: a new arena may have the old one
            news = None if arena == process.mapped else descriptor
            process.channel.send(snapshot_json(snapshot), descriptor=news)
            process.mapped = arena

    def collect(self, timeout_s: float) -> Outcome | None:
        """Return how the save in flight ended, waiting up to `timeout_s`; None if it goes on."""
        if self._step is None:
            return None
        process = self._running()
        if not process.channel.ready(timeout_s):
            return None
        found = process.channel.receive()
        outcome = self._died() if found is None else outcome_from(found[0])
        self._step = None
        return outcome

    def adopt(self, manifest: str, *, chunks: frozenset[str]) -> None:
        """Tell it which restore point this training builds on."""
        self._adopted = {"kind": "adopt", "manifest": manifest, "chunks": sorted(chunks)}
        self._say(self._adopted)

    def settle(self, step: int) -> None:
        """Tell it that the gang committed `step`."""
        self._say({"kind": "settle", "step": step})

    def close(self) -> None:
        """Hang up; it finishes what it is doing and ends."""
        if self._process is not None:
            self._process.close(wait_s=0 if self.busy else _CLOSE_S)
            self._process = None

    def _say(self, message: Message) -> None:
        with suppress(OSError):
            self._running().channel.send(message)

    def _running(self) -> _Process:
        if self._process is None:
            self._process = _Process(self._order)
            if self._adopted is not None:
                self._process.channel.send(self._adopted)
        return self._process

    def _died(self) -> Outcome:
        process, self._process = self._process, None
        assert process is not None, "nobody to be dead"
        assert self._step is not None, "nothing was in flight"
        return Outcome(self._step, error=process.obituary())


class _Process:
    """A running uploader and the socket to it."""

    def __init__(self, order: DepotOrder) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        command = [sys.executable, "-I", "-c", _START]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), *_import_path()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # what kills the training's group leaves it alone
            )
        self.mapped: int | None = None
        """The inode of the arena that it has mapped."""
        self.channel = Channel(ours)
        self.channel.send(order_json(order))

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self, *, wait_s: float) -> None:
        self.channel.close()
        self._errors.close()
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            # It goes on without us; somebody must take note of its end.
            threading.Thread(target=self._process.wait, daemon=True).start()

    def obituary(self) -> CheckpointError:
        """Say how it ended."""
        until_us = monotonic_us() + int(_DYING_S * 1_000_000)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0, until_us - monotonic_us()) / 1_000_000)
        self._errors.seek(0)
        said = self._errors.read()[-_TAIL_BYTES:].decode(errors="replace").strip()
        code = self._process.returncode
        self.close(wait_s=_DYING_S)
        return CheckpointError(
            "uploader-died",
            cause=f"The uploader process ended (code {code}): {_last_line(said)}",
            remedy="Training goes on and the next save starts another; check the node's memory.",
        )


def _last_line(text: str) -> str:
    return text.splitlines()[-1] if text else "it was killed"


def _import_path() -> Sequence[str]:
    """Return where it may import from: what is not the training's folder, our own place included.

    Our place comes before anything installed, so that both processes are of one version, and after
    the standard library, so that nothing beside us can stand in for a part of it.
    """
    home = str(Path(__file__).resolve().parents[1])
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    local = {"", str(Path.cwd())} | ({str(Path(script).resolve().parent)} if script else set())
    path = [place for place in sys.path if place not in local | {home}]
    installed = (number for number, place in enumerate(path) if "site-packages" in place)
    path.insert(next(installed, len(path)), home)
    return path
