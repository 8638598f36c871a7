"""Any other place that fsspec has a driver for: `gs://`, `az://`, `memory://`, `sftp://`, ...

This path is weaker than S3 and folders. What is lost:

- `put_if_absent` is atomic only in `memory://` and where the driver hands "create" on to a store
  that keeps it (Google, Azure). Elsewhere it is refused, so that `keeps_conditions` says no and
  commits use the weaker mode of `commit_log`.
- A CRC32C does not travel along; damage on the way up is found by the chunk's BLAKE3 at load.
- Bodies are copied once on our side, and a request lasts as long, and is tried as often, as the
  driver sees fit.
- On a file system that is no object store (`sftp://`, `smb://`, ...) an object appears by the
  driver's `mv`; whether that is atomic and durable is the driver's matter.

`memory://` lives and ends with its process; one lock makes it safe for threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, Final

import fsspec
from typing_extensions import Buffer

from checkpointing.clock import now_us
from checkpointing.environment import new_nonce
from checkpointing.errors import StorageError, missing
from checkpointing.keys import StoredObject, checked_key

_EXCLUSIVE: Final = frozenset({"memory", "gs", "gcs", "az", "abfs", "abfss"})
_WHOLE: Final = _EXCLUSIVE | {"adl", "oci", "oss", "r2", "s3", "s3a"}
"""Schemes whose objects appear whole or not at all, without our help."""
_READ_ONLY: Final = frozenset({"http", "https", "data", "github"})
_TEMPORARY: Final = ".tmp"
_TIMES: Final = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
# In fsspec's memory "create" is a look and then a write, and a listing walks a living dictionary.
_MEMORY_LOCK: Final = threading.Lock()


class FsspecStorage:
    """A folder of an fsspec file system."""

    def __init__(self, filesystem: Any, *, root: str, uri: str, scheme: str) -> None:  # noqa: ANN401
        """Use a `filesystem` that is made by fsspec; ask it nothing yet."""
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._uri = uri
        self._scheme = scheme

    @property
    def uri(self) -> str:
        """Where this is, for messages."""
        return self._uri

    def put(self, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
        """Store; where writing is not atomic, under another name first."""
        del crc32c
        path = self._path(key)
        with self._clear_errors(key):
            if self._scheme in _WHOLE:
                self._filesystem.pipe_file(path, bytes(data))
                return
            temporary = f"{self._root}/{_TEMPORARY}/{new_nonce():015x}"
            for folder in (temporary, path):
                self._filesystem.makedirs(folder.rpartition("/")[0], exist_ok=True)
            self._filesystem.pipe_file(temporary, bytes(data))
            self._filesystem.mv(temporary, path)

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Create, where the store can do that atomically; else raise `storage-unsupported`."""
        if self._scheme not in _EXCLUSIVE:
            raise StorageError(
                "storage-unsupported",
                cause=f"{self._uri} cannot create an object only if it is absent.",
                remedy="Use s3://, gs://, az:// or a folder where several attempts may meet.",
            )
        with self._clear_errors(key):
            try:
                self._filesystem.pipe_file(self._path(key), bytes(data), mode="create")
            except FileExistsError:
                return False
            return True

    def get(self, key: str) -> bytes:
        """Return the whole object."""
        with self._clear_errors(key):
            return bytes(self._filesystem.cat_file(self._path(key)))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return a range; drivers disagree about one past the end, so the size is asked first."""
        with self._clear_errors(key):
            path = self._path(key)
            end = min(start + length, int(self._filesystem.info(path)["size"]))
            if start >= end:
                return b""
            return bytes(self._filesystem.cat_file(path, start=start, end=end))

    def get_into(self, key: str, target: memoryview, *, start: int = 0) -> int:
        """Copy a range; drivers hand out bytes of their own."""
        if not target.nbytes:
            return 0
        found = self.get_range(key, start, target.nbytes)
        target.cast("B")[: len(found)] = found
        return len(found)

    def list(self, prefix: str) -> tuple[StoredObject, ...]:
        """Walk the deepest folder that `prefix` names."""
        folder = f"{self._root}/{prefix.rpartition('/')[0]}".rstrip("/")
        with self._clear_errors(prefix):
            self._filesystem.invalidate_cache()
            try:
                found = self._filesystem.find(folder, detail=True)
            except FileNotFoundError:
                return ()
        described = [self._described(name, info) for name, info in found.items()]
        kept = [
            item
            for item in described
            if item.key.startswith(prefix) and not item.key.startswith(f"{_TEMPORARY}/")
        ]
        return tuple(sorted(kept, key=lambda item: item.key))

    def delete(self, key: str) -> None:
        """Remove; what is not there need not be removed."""
        with self._clear_errors(key):
            try:
                self._filesystem.rm_file(self._path(key))
            except FileNotFoundError:
                return

    def exists(self, key: str) -> bool:
        """Ask for the object's description; a folder is none."""
        with self._clear_errors(key):
            self._filesystem.invalidate_cache()
            try:
                return bool(self._filesystem.info(self._path(key))["type"] == "file")
            except FileNotFoundError:
                return False

    def abandon_uploads(self, prefix: str, *, older_than_us: int) -> int:
        """Return 0: fsspec has no word for unfinished uploads."""
        return 0

    def _path(self, key: str) -> str:
        return f"{self._root}/{checked_key(key)}"

    def _described(self, name: str, info: dict[str, Any]) -> StoredObject:
        key = name.lstrip("/").removeprefix(self._root.lstrip("/")).lstrip("/")
        return StoredObject(key, int(info["size"]), _modified_us(info))

    @contextmanager
    def _clear_errors(self, key: str) -> Iterator[None]:
        try:
            with self._locked():
                yield
        except FileNotFoundError as error:
            raise missing(key, uri=self._uri) from error
        except Exception as error:  # drivers raise kinds of their own, which we cannot name
            raise StorageError(
                "storage-failed",
                cause=f"{self._uri} cannot be used: {type(error).__name__}: {error}",
                remedy="Check its address, the credentials of its fsspec driver, and the network.",
            ) from error

    def _locked(self) -> AbstractContextManager[object]:
        return _MEMORY_LOCK if self._scheme == "memory" else nullcontext()


def open_fsspec(uri: str) -> FsspecStorage | None:
    """Open `uri`; None if fsspec knows no such scheme, or one that only reads.

    Raise `StorageError` where the driver is not installed or does not like the address.
    """
    scheme = uri.partition("://")[0]
    if scheme in _READ_ONLY or scheme not in fsspec.available_protocols():
        return None
    try:
        filesystem, root = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        raise StorageError(
            "storage-uri",
            cause=f"{uri} needs a driver that is not installed: {error}.",
            remedy="Install it, or use s3://BUCKET/PREFIX, file:///FOLDER or a folder's path.",
        ) from error
    except Exception as error:  # as above
        raise StorageError(
            "storage-configuration",
            cause=f"{uri} cannot be opened: {type(error).__name__}: {error}",
            remedy=f"Check the address and the settings of the {scheme} driver of fsspec.",
        ) from error
    return FsspecStorage(filesystem, root=root, uri=uri, scheme=scheme)


def _modified_us(info: dict[str, Any]) -> int:
    """Return when an object was written; now, which retention spares, where nobody knows."""
    for name in _TIMES:
        match info.get(name):
            case datetime() as instant:
                aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
                return int(aware.timestamp() * 1_000_000)
            case float() | int() as seconds:
                return int(seconds * 1_000_000)
            case str() as text:
                return int(datetime.fromisoformat(text).timestamp() * 1_000_000)
            case _:
                pass
    return now_us()
