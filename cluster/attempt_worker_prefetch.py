"""The prefetch of one attempt on this node: its process, its folder in memory, and their end."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from checkpointing.prefetch import PrefetchOrder, command
from cluster import attempt_worker_exec
from cluster.worker_wire import WorkerOrder

_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it is this user's own
_SHARE = 4  # at most a quarter of the memory that is available now
_LOCK = "lock"


class Prefetch:
    """Fetches for an order from the start on; ``close`` leaves nothing behind.

    Start it from a thread that lives as long as the worker: its process dies with that.
    """

    def __init__(self, order: WorkerOrder, *, scratch: Path) -> None:
        """``scratch`` is a folder of this node's own disk, for where there is no memory folder."""
        home = _home(scratch)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (home / _LOCK).open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)  # nobody sweeps what is not locked yet
            sweep(home)
            self._folder = Path(tempfile.mkdtemp(prefix=f"{order.index}-", dir=home))
            # Held until the end: after a crash the next worker here finds it free.
            self._lock = (self._folder / _LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        for rank in order.ranks:
            self.folder_of(rank).mkdir()
        self._process = self._start(order)

    def folder_of(self, rank: int) -> Path:
        """Give the folder in which a rank finds its files."""
        return self._folder / str(rank)

    def close(self) -> None:
        """End the process and remove the folder."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()

    def _start(self, order: WorkerOrder) -> subprocess.Popen[bytes]:
        wanted = PrefetchOrder(
            uri=order.storage,
            job_id=order.job_id,
            ranks=tuple(order.ranks),
            world_size=order.world_size,
            folder=str(self._folder),
            limit_bytes=_room(self._folder),
        )
        shim = [sys.executable, "-I", "-S", attempt_worker_exec.__file__, str(os.getpid())]
        return subprocess.Popen(
            [*shim, *command(wanted)],
            env={**os.environ, **order.spec.env},  # the job's own credentials, if it has any
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def begin_prefetch(order: WorkerOrder, *, scratch: Path) -> Prefetch | None:
    """Start one where there is something to restore and a place for it."""
    if order.epoch <= 1:
        return None  # a first attempt
    try:
        return Prefetch(order, scratch=scratch)
    except OSError:
        return None  # no room: the training reads from the store


def sweep(home: Path) -> None:
    """Remove the folders whose workers are dead; the door must be held."""
    for folder in [path for path in home.iterdir() if path.is_dir()]:
        with suppress(OSError), (folder / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def _home(scratch: Path) -> Path:
    if os.access(_MEMORY, os.W_OK):
        return _MEMORY / f"lowtide-{os.getuid()}"
    return scratch / "prefetch"


def _room(folder: Path) -> int:
    available = int(psutil.virtual_memory().available)
    return min(available // _SHARE, shutil.disk_usage(folder).free // 2)
