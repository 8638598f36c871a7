"""A `Storage` in this process's memory; for tests and for trying things out."""

from __future__ import annotations

import threading

from typing_extensions import Buffer

from checkpointing.clock import now_us
from checkpointing.errors import missing
from checkpointing.keys import StoredObject, checked_key


class MemoryStorage:
    """Objects in a dictionary, behind one lock."""

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
            self._objects[checked_key(key)] = (bytes(data), now_us())

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Store a copy unless `key` exists."""
        with self._lock:
            if checked_key(key) in self._objects:
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

    def get_into(self, key: str, target: memoryview, *, start: int = 0) -> int:
        """Copy a slice of the object."""
        if not target.nbytes:
            return 0
        found = self.get(key)[start : start + target.nbytes]
        target.cast("B")[: len(found)] = found
        return len(found)

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

    def abandon_uploads(self, prefix: str, *, older_than_us: int) -> int:
        """Return 0: an object is here or it is not."""
        return 0
