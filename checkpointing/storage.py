"""Where checkpoints live: the `Storage` Protocol, and how to open one by its URI.

A store holds immutable-by-convention objects under keys that look like relative paths. The one
thing that it must do atomically is `put_if_absent`: commits rest on it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast, runtime_checkable
from urllib.parse import unquote, urlsplit

from typing_extensions import Buffer

from checkpointing.errors import StorageError
from checkpointing.file_storage import FileStorage
from checkpointing.keys import StoredObject

_NO_CONDITIONS = frozenset({"storage-unsupported", "storage-refused"})


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
        """Store `data` unless `key` exists; return whether it was stored. Atomic.

        A store that cannot do that raises, or pretends: `keeps_conditions` finds out.
        """

    def get(self, key: str) -> bytes:
        """Return the whole object; raise `MissingObject`."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start` (short only at the object's end)."""

    def get_into(self, key: str, target: memoryview, *, start: int = 0) -> int:
        """Read from byte `start` of the object straight into `target`; return the count.

        It is short only at the object's end. Raise `MissingObject`; an empty `target` asks for
        nothing and returns 0. After an error the content of `target` is undefined.
        """

    def list(self, prefix: str) -> tuple[StoredObject, ...]:
        """Return the objects whose keys start with `prefix`, sorted by key."""

    def delete(self, key: str) -> None:
        """Remove `key`; removing what is not there is no error."""

    def exists(self, key: str) -> bool:
        """Say whether `key` exists."""

    def abandon_uploads(self, prefix: str, *, older_than_us: int) -> int:
        """Abort unfinished multipart uploads under `prefix` that began before this instant.

        They cost money and no listing shows them. Return how many; 0 where a store has none.
        """


def open_storage(uri: str) -> Storage:
    """Open `s3://bucket/prefix`, `file:///folder`, a folder's path, or what fsspec can.

    Raise `StorageError`. `memory://` is this process's; see `fsspec_storage` for what is weaker.
    """
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        module = importlib.import_module("checkpointing.object_storage")
        return cast("Storage", module.open_s3(parts.netloc, parts.path.strip("/")))
    if parts.scheme == "file":
        return FileStorage(Path(unquote(parts.path)))
    if uri and "://" not in uri:
        return FileStorage(Path(uri))
    found = _open_fsspec(uri) if uri else None
    if found is None:
        raise StorageError(
            "storage-uri",
            cause=f"{uri!r} is not a place where checkpoints can live.",
            remedy="Use s3://BUCKET/PREFIX, file:///FOLDER or a folder's path.",
        )
    return found


def _open_fsspec(uri: str) -> Storage | None:
    module = importlib.import_module("checkpointing.fsspec_storage")
    return cast("Storage | None", module.open_fsspec(uri))


def keeps_conditions(storage: Storage, *, probe_key: str) -> bool:
    """Probe whether the store honours `put_if_absent`; `probe_key` must be unused before.

    A store that accepts the second write ignores conditions, one that refuses it with such a code
    does not have them: commits then use the weaker mode (see `checkpointing.commit_log`).
    """
    try:
        storage.put_if_absent(probe_key, b"first")  # after a lost answer it may say "taken"
        second = storage.put_if_absent(probe_key, b"second")
    except StorageError as error:
        if error.code not in _NO_CONDITIONS:
            raise
        return False
    kept = storage.get(probe_key) == b"first"
    storage.delete(probe_key)
    return kept and not second
