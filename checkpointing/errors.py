"""Errors that a user of checkpointing can meet: each has a code, a cause and a remedy."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A save, a load or the set-up cannot go on; `str()` is one line of cause, one of remedy.

    `code` is stable and meant for programs (`storage-unreachable`, `fenced-out`, ...).
    """

    def __init__(self, code: str, *, cause: str, remedy: str) -> None:
        """Keep the three parts; nothing is formatted away."""
        super().__init__(f"{cause}\n{remedy}")
        self.code = code
        self.cause = cause
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        """Survive a trip between processes (keyword arguments do not by default)."""
        return _rebuild, (type(self), self.code, self.cause, self.remedy)


def _rebuild(kind: type[CheckpointError], code: str, cause: str, remedy: str) -> CheckpointError:
    return kind(code, cause=cause, remedy=remedy)


class FencedOut(CheckpointError):  # noqa: N818 - the word of the design documents
    """A newer attempt of the same job has taken over: this one may not commit any more."""


class StorageError(CheckpointError):
    """The store cannot be reached, refuses us, or misbehaves."""


class MissingObject(StorageError):  # noqa: N818 - reads as what it says
    """The store answered: there is no object of that name."""


class CorruptCheckpoint(CheckpointError):  # noqa: N818 - reads as what it says
    """Stored bytes are not what the commit promised; they were not used."""


class UnsupportedState(CheckpointError):  # noqa: N818 - reads as what it says
    """The state holds a value that the format cannot keep exactly; its path is named."""


def missing(key: str, *, uri: str) -> MissingObject:
    """Build the error for an absent object `key` of the store at `uri`."""
    return MissingObject(
        "storage-missing",
        cause=f"{uri} holds no object {key}.",
        remedy="It may have been retired by retention or deleted by hand; use a newer commit.",
    )


def corrupt(what: str, *, why: str) -> CorruptCheckpoint:
    """Build the error for stored bytes `what` that fail verification because of `why`."""
    return CorruptCheckpoint(
        "checkpoint-corrupt",
        cause=f"{what} does not verify: {why}.",
        remedy="The previous verified commit is used instead; check the store's health.",
    )
