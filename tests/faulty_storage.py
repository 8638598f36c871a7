"""A store that records every operation and lets a chosen one go wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn, TypeVar

from typing_extensions import Buffer

from checkpointing.errors import StorageError
from checkpointing.keys import StoredObject
from checkpointing.storage import Storage

T = TypeVar("T")


class Died(BaseException):
    """The process is gone: nothing catches this, and nothing is done after it."""


class Harm(StrEnum):
    """What happens at the chosen operation."""

    DIE_BEFORE = "die-before"
    """The process ends and the operation did not take place."""
    DIE_AFTER = "die-after"
    """The operation took place and the process ends before it hears so."""
    REFUSED = "refused"
    """An error, and nothing took place."""
    UNHEARD = "unheard"
    """An error, and yet the operation took place: its answer was lost."""
    RETRIED = "retried"
    """The answer was lost and the operation done again: the second answer counts."""
    DOUBLED = "doubled"
    """The operation is done twice: the first answer counts."""


DEADLY: Final = frozenset({Harm.DIE_BEFORE, Harm.DIE_AFTER})


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that was asked of the store."""

    number: int
    name: str
    key: str


def die_here() -> NoReturn:
    """Stand for the end of a process in a test that lives on."""
    raise Died


class FaultyStorage:
    """Does what `inner` does; operation number `at` (from 0) goes wrong by `harm`, once.

    After a death every operation dies, since another thread of a dead process does nothing either.
    """

    def __init__(
        self,
        inner: Storage,
        *,
        at: int = -1,
        harm: Harm = Harm.REFUSED,
        die: Callable[[], NoReturn] = die_here,
    ) -> None:
        """`at` -1: only record. `die` ends the process, or raises `Died`."""
        self.inner = inner
        self.operations: list[Operation] = []
        self._at = at
        self._harm = harm
        self._die = die
        self._dead = False
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        """Where the real store is."""
        return self.inner.uri

    def put(self, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
        """Store."""
        self._do("put", key, lambda: self.inner.put(key, data, crc32c=crc32c))

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Store on a condition."""
        return self._do("put_if_absent", key, lambda: self.inner.put_if_absent(key, data))

    def get(self, key: str) -> bytes:
        """Read."""
        return self._do("get", key, lambda: self.inner.get(key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Read a part."""
        return self._do("get", key, lambda: self.inner.get_range(key, start, length))

    def get_into(self, key: str, target: memoryview, *, start: int = 0) -> int:
        """Read into memory."""
        return self._do("get", key, lambda: self.inner.get_into(key, target, start=start))

    def list(self, prefix: str) -> tuple[StoredObject, ...]:
        """List."""
        return self._do("list", prefix, lambda: self.inner.list(prefix))

    def delete(self, key: str) -> None:
        """Delete."""
        self._do("delete", key, lambda: self.inner.delete(key))

    def exists(self, key: str) -> bool:
        """Look."""
        return self._do("exists", key, lambda: self.inner.exists(key))

    def abandon_uploads(self, prefix: str, *, older_than_us: int) -> int:
        """Clean up."""
        call = lambda: self.inner.abandon_uploads(prefix, older_than_us=older_than_us)  # noqa: E731
        return self._do("abandon_uploads", prefix, call)

    def _do(self, name: str, key: str, call: Callable[[], T]) -> T:
        with self._lock:
            if self._dead:
                raise Died
            chosen = len(self.operations) == self._at
            self.operations.append(Operation(len(self.operations), name, key))
            self._dead = chosen and self._harm in DEADLY
        return self._harmed(call) if chosen else call()

    def _harmed(self, call: Callable[[], T]) -> T:
        harm = self._harm
        if harm is Harm.DIE_BEFORE:
            self._die()
        if harm is Harm.REFUSED:
            raise scripted()
        first = call()
        if harm is Harm.DIE_AFTER:
            self._die()
        if harm is Harm.UNHEARD:
            raise scripted()
        second = call()
        return second if harm is Harm.RETRIED else first


def scripted() -> StorageError:
    """Return the error of a store that fails because a test wants it to."""
    return StorageError("storage-scripted", cause="The test said so.", remedy="None is needed.")
