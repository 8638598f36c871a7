"""A folder whose machine loses power, or whose process dies, at a chosen file operation.

Operations are seen through Python's audit events, so the code under test is not touched. What POSIX
promises after a loss of power is only what was synced: a file's content by `fsync` of the file, its
name by `fsync` of its folder. Everything else may be there, in part, or not at all.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from tests.faulty_storage import Died

_WRITES: Final = os.O_WRONLY | os.O_RDWR


class Loss(StrEnum):
    """What a crash takes away of that which was not synced."""

    NOTHING = "nothing"
    """Only the process died."""
    TORN = "torn"
    """Half of the content of files."""
    EMPTY = "empty"
    """All of the content of files."""
    NAMES = "names"
    """The content, and what was done to folders."""


class FragileDisk:
    """Watches `root`; operation number `at` (from 0) is never done, nor any after it."""

    def __init__(self, root: Path, *, at: int = -1) -> None:
        """`at` -1: only record."""
        self.operations: list[str] = []
        self._root = str(root)
        self._at = at
        self._dead = False
        self._lock = threading.RLock()
        self._unsynced: set[Path] = set()
        self._undo: list[tuple[Path, Callable[[], object]]] = []

    def lose(self, loss: Loss) -> None:
        """Take away what may be gone now. Nobody may be writing any more."""
        if loss is Loss.NOTHING:
            return
        for path in self._unsynced:
            if path.is_file():
                os.truncate(path, path.stat().st_size // 2 if loss is Loss.TORN else 0)
        if loss is Loss.NAMES:
            for _, undo in reversed(self._undo):
                undo()

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take note of what is about to be done, or end it."""
        handler = _HANDLERS.get(event)
        named = arguments[:1] if event == "open" else arguments[:2]  # an open's second is its mode
        paths = [Path(os.fsdecode(item)) for item in named if _is_path(item)]
        if handler is None or not paths or not all(map(self._is_inside, paths)):
            return
        if event == "open" and not arguments[2] & _WRITES:
            return
        with self._lock:
            self._count(f"{event} {paths[-1].name}")
            handler(self, *paths)

    def synced(self, path: Path) -> bool:
        """Take note of an `fsync`; say whether it is ours: then no real disk is waited for."""
        if not self._is_inside(path):
            return False
        with self._lock:
            self._count(f"fsync {path.name}")
            self._unsynced.discard(path)
            self._undo = [one for one in self._undo if one[0] != path]
        return True

    def _is_inside(self, path: Path) -> bool:
        return str(path).startswith(self._root + "/") or str(path) == self._root

    def _count(self, what: str) -> None:
        if self._dead or len(self.operations) == self._at:
            self._dead = True
            raise Died
        self.operations.append(what)

    def _opened(self, path: Path) -> None:
        self._unsynced.add(path)
        if not path.exists():
            self._undo.append((path.parent, lambda: path.unlink(missing_ok=True)))

    def _made(self, path: Path) -> None:
        if not path.exists():
            self._undo.append((path.parent, lambda: shutil.rmtree(path, ignore_errors=True)))

    def _renamed(self, source: Path, target: Path) -> None:
        if source in self._unsynced:
            self._unsynced.remove(source)
            self._unsynced.add(target)
        self._undo.append((target.parent, _restorer(target)))

    def _linked(self, source: Path, target: Path) -> None:
        if source in self._unsynced:
            self._unsynced.add(target)
        if not target.exists():
            self._undo.append((target.parent, lambda: target.unlink(missing_ok=True)))

    def _removed(self, path: Path) -> None:
        if path.exists():
            self._undo.append((path.parent, _restorer(path)))


_HANDLERS: Final[dict[str, Callable[..., None]]] = {
    "open": FragileDisk._opened,
    "os.mkdir": FragileDisk._made,
    "os.rename": FragileDisk._renamed,
    "os.link": FragileDisk._linked,
    "os.remove": FragileDisk._removed,
}
_ACTIVE: Final[list[FragileDisk]] = []


@contextmanager
def watched(disk: FragileDisk) -> Iterator[FragileDisk]:
    """Let `disk` see, and end, what this process does to its files."""
    if not _HOOKED.is_set():
        sys.addaudithook(_hook)  # for ever: Python takes no hook away
        _HOOKED.set()
    really = os.fsync
    _ACTIVE.append(disk)
    os.fsync = _fsync(really, disk)  # type: ignore[assignment]
    try:
        yield disk
    finally:
        os.fsync = really
        _ACTIVE.remove(disk)


_HOOKED: Final = threading.Event()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _ACTIVE and event in _HANDLERS:
        for disk in tuple(_ACTIVE):
            disk.hear(event, arguments)


def _fsync(really: Callable[[Any], None], disk: FragileDisk) -> Callable[[Any], None]:
    def fsync(fd: Any) -> None:
        if not disk.synced(Path(f"/proc/self/fd/{fd}").readlink()):
            really(fd)

    return fsync


def _is_path(item: object) -> bool:
    return isinstance(item, str | bytes | os.PathLike)


def _restorer(path: Path) -> Callable[[], object]:
    """Remember what `path` holds; the returned function puts it back."""
    before = path.read_bytes() if path.is_file() else None

    def restore() -> None:
        if before is None:
            path.unlink(missing_ok=True)
        elif path.parent.is_dir():
            path.write_bytes(before)

    return restore
