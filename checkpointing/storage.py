"""Where checkpoints live: the `Storage` Protocol, in memory and on a file system.

A store holds immutable-by-convention objects under keys that look like relative paths. The one
thing that it must do atomically is `put_if_absent`: commits rest on it.
"""

from __future__ import annotations

import errno
import importlib
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol, cast, runtime_checkable
from urllib.parse import unquote, urlsplit

from typing_extensions import Buffer

from checkpointing.clock import now_us
from checkpointing.errors import StorageError, missing
from checkpointing.keys import StoredObject

_TEMPORARY = ".tmp"
_STRAY_US = 3_600 * 1_000_000  # a temporary file of this age belongs to a process that died


@runtime_checkable
class Storage(Protocol):
    """A flat store of objects. Every method may raise `StorageError`."""

    @property
    def uri(self) -> str:
        """Where this is, for messages."""

    def put(self, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
        """Store `data` under `key`, replacing; readers see the old or the new, never a part.

        `crc32c`, when given, travels along so that the store verifies what it received.
        """

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Store `data` unless `key` exists; return whether it was stored. Atomic."""

    def get(self, key: str) -> bytes:
        """Return the whole object; raise `MissingObject`."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start` (short only at the object's end)."""

    def list(self, prefix: str) -> tuple[StoredObject, ...]:
        """Return the objects whose keys start with `prefix`, sorted by key."""

    def delete(self, key: str) -> None:
        """Remove `key`; removing what is not there is no error."""

    def exists(self, key: str) -> bool:
        """Say whether `key` exists."""


class MemoryStorage:
    """A store in this process's memory; for tests and for trying things out."""

    def __init__(self) -> None:
        """Start empty."""
        self._objects: dict[str, tuple[bytes, int]] = {}
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        """Where this is, for messages."""
        return "memory:"

    def put(self, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
        """Store a copy of `data`; `crc32c` is not needed where nothing travels."""
        del crc32c
        with self._lock:
            self._objects[_checked(key)] = (bytes(data), now_us())

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Store a copy unless `key` exists."""
        with self._lock:
            if _checked(key) in self._objects:
                return False
            self._objects[key] = (bytes(data), now_us())
            return True

    def get(self, key: str) -> bytes:
        """Return the object or raise `MissingObject`."""
        with self._lock:
            if key not in self._objects:
                raise missing(key, uri=self.uri)
            return self._objects[key][0]

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return a slice of the object."""
        return self.get(key)[start : start + length]

    def list(self, prefix: str) -> tuple[StoredObject, ...]:
        """Return matching objects, sorted."""
        with self._lock:
            found = sorted(item for item in self._objects.items() if item[0].startswith(prefix))
        return tuple(StoredObject(key, len(data), at_us) for key, (data, at_us) in found)

    def delete(self, key: str) -> None:
        """Forget `key`."""
        with self._lock:
            self._objects.pop(key, None)

    def exists(self, key: str) -> bool:
        """Say whether `key` exists."""
        with self._lock:
            return key in self._objects


class FileStorage:
    """A store in a folder of a local or shared POSIX file system.

    Objects appear by rename (or by hard link, for `put_if_absent`) after fsync, so that a crash at
    any point leaves the old object, the new one, or a stray temporary file that nobody reads.
    """

    def __init__(self, root: Path) -> None:
        """Create the folder where needed; raise `StorageError` where that is impossible."""
        self._root = root
        try:
            (root / _TEMPORARY).mkdir(parents=True, exist_ok=True)
            _drop_strays(root / _TEMPORARY)
        except OSError as error:
            raise _failed(error, self.uri) from error

    @property
    def uri(self) -> str:
        """Where this is, for messages."""
        return str(self._root)

    def put(self, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
        """Write, fsync, rename, fsync the folder."""
        del crc32c
        target = self._path(key)
        try:
            temporary = self._write(target, data)
            temporary.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            raise _failed(error, self.uri) from error

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Write, fsync, then hard-link: the link fails if the name is taken."""
        target = self._path(key)
        try:
            temporary = self._write(target, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(target.parent)
        except OSError as error:
            raise _failed(error, self.uri) from error
        return True

    def get(self, key: str) -> bytes:
        """Read the whole file or raise `MissingObject`."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError as error:
            raise missing(key, uri=self.uri) from error
        except OSError as error:
            raise _failed(error, self.uri) from error

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Read a slice of the file."""
        try:
            with self._path(key).open("rb") as stream:
                stream.seek(start)
                return stream.read(length)
        except FileNotFoundError as error:
            raise missing(key, uri=self.uri) from error
        except OSError as error:
            raise _failed(error, self.uri) from error

    def list(self, prefix: str) -> tuple[StoredObject, ...]:
        """Walk the deepest folder that `prefix` names; temporary files are not objects."""
        folder = self._root / prefix.rpartition("/")[0]
        try:
            found = [self._described(path) for path in _files_under(folder)]
        except OSError as error:
            raise _failed(error, self.uri) from error
        kept = (item for item in found if item is not None and item.key.startswith(prefix))
        return tuple(sorted(kept, key=lambda item: item.key))

    def delete(self, key: str) -> None:
        """Unlink the file; its folder stays."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise _failed(error, self.uri) from error

    def exists(self, key: str) -> bool:
        """Say whether the file exists."""
        return self._path(key).is_file()

    def _path(self, key: str) -> Path:
        return self._root / _checked(key)

    def _write(self, target: Path, data: Buffer) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self._root / _TEMPORARY)
        with open(descriptor, "wb") as stream:  # noqa: PTH123 - mkstemp hands out a descriptor
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        return Path(temporary)

    def _described(self, path: Path) -> StoredObject | None:
        key = path.relative_to(self._root).as_posix()
        if key.startswith(_TEMPORARY + "/"):
            return None
        try:
            status = path.stat()
        except FileNotFoundError:
            return None  # deleted between the walk and this look: not there any more
        return StoredObject(key, status.st_size, status.st_mtime_ns // 1000)


def open_storage(uri: str) -> Storage:
    """Open `s3://bucket/prefix`, `file:///folder` or a plain folder path; raise `StorageError`."""
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        module = importlib.import_module("checkpointing.object_storage")
        return cast("Storage", module.open_s3(parts.netloc, parts.path.strip("/")))
    if parts.scheme == "file":
        return FileStorage(Path(unquote(parts.path)))
    if not uri or "://" in uri:
        raise StorageError(
            "storage-uri",
            cause=f"{uri!r} is not a place where checkpoints can live.",
            remedy="Use s3://BUCKET/PREFIX, file:///FOLDER or a folder's path.",
        )
    return FileStorage(Path(uri))


def keeps_conditions(storage: Storage, *, probe_key: str) -> bool:
    """Probe whether the store honours `put_if_absent`; `probe_key` must be unused before.

    A store that accepts the second write ignores conditions: commits then use the weaker mode
    (see `checkpointing.commit`).
    """
    first = storage.put_if_absent(probe_key, b"first")
    second = storage.put_if_absent(probe_key, b"second")
    kept = storage.get(probe_key) == b"first"
    storage.delete(probe_key)
    return first and not second and kept


def _checked(key: str) -> str:
    assert key, "an object needs a name"
    assert not key.startswith("/"), key
    assert not set(key.split("/")) & {"", ".", ".."}, key
    return key


def _files_under(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent) / name


def _drop_strays(folder: Path) -> None:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # its writer lives after all, and has renamed it
            if now_us() - path.stat().st_mtime_ns // 1000 > _STRAY_US:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(error: OSError, uri: str) -> StorageError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return StorageError(
        "storage-full" if full else "storage-failed",
        cause=f"The folder {uri} cannot be used: {error.strerror or error}.",
        remedy="Free some space there." if full else "Check that it exists and may be written.",
    )
