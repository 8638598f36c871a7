"""Keeps one process with torch imported ready on a node, for the next attempt that starts there.

It costs its memory (about 0.3 GB resident with a CPU build of torch, more with CUDA) and, once per
start, two seconds of a core at a low priority. It ends with its keeper.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from cluster import standby_child, standby_host

FOLDER = "standby"
_LEAST_BYTES = 2 << 30  # of memory must be available, or training needs it more
_CALM_S = 5.0  # the attempt that just began comes first
_AGAIN_S = 60.0  # after a standby that could not start: no torch, no memory
_WORD_BYTES = 64


class StandbyKeeper:
    """One standby at a time, of the environment that was wanted last."""

    def __init__(self, scratch: Path, *, calm_s: float = _CALM_S) -> None:
        """``scratch`` is a folder of this node's own disk; nothing stands ready yet."""
        self._folder = scratch / FOLDER
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._calm_s = calm_s
        self._wanted: dict[str, str] | None = None
        self._link: socket.socket | None = None
        self._changed = threading.Event()
        self._closing = threading.Event()
        self.taken = 0
        """How many became a training child."""
        self._thread = threading.Thread(target=self._run, name="standby", daemon=True)
        self._thread.start()

    def want(self, environment: Mapping[str, str]) -> None:
        """Keep one for a child of this environment; the same again changes nothing."""
        if environment != self._wanted:
            self._wanted = dict(environment)
            self._wake()

    def close(self) -> None:
        """End the idle one; one that was taken lives on."""
        self._closing.set()
        self._wake()
        self._thread.join(10)

    def _wake(self) -> None:
        self._changed.set()
        link = self._link
        if link is not None:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        pause_s = self._calm_s
        while not self._closing.is_set():
            if self._changed.wait(pause_s if self._wanted is not None else None):
                self._changed.clear()
                pause_s = self._calm_s
            elif self._wanted is not None and _has_room():
                pause_s = self._calm_s if self._stand_by(self._wanted) else _AGAIN_S
            else:
                pause_s = _AGAIN_S

    def _stand_by(self, environment: Mapping[str, str]) -> bool:
        """Start one and wait until it is taken or dies; give whether it ever stood ready."""
        ours, theirs = socket.socketpair()
        self._link = ours
        with ours:
            with theirs, (self._folder / "standby.log").open("wb") as log:
                host = [sys.executable, "-I", "-S", standby_host.__file__, str(theirs.fileno())]
                subprocess.run(
                    [*host, standby_child.__file__],
                    cwd=self._folder,
                    env=dict(environment),
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    check=False,
                )
            words = self._listen(ours)
        self._link = None
        self.taken += "taken" in words
        return "ready" in words or self._changed.is_set()

    def _listen(self, link: socket.socket) -> list[str]:
        words: list[str] = []
        while "taken" not in words and not self._changed.is_set():
            data = link.recv(_WORD_BYTES)
            if not data:
                break
            words += data.decode().split()
        return words


def _has_room() -> bool:
    return sys.platform == "linux" and psutil.virtual_memory().available > _LEAST_BYTES
