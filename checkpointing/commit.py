"""Commit records: which checkpoints count. Pure; the log that holds them is `commit_log`.

A record is canonical JSON. What a signature covers is the record without `signature` and `blake3`:
job, number, epoch and the manifest's BLAKE3, so a signed record means nothing in another log or at
another place, and vouches for every byte below it (a manifest names its chunks and its ranks' parts
by hash). What no signature can show is that newer records were deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from checkpointing.errors import corrupt
from checkpointing.manifest import canonical, text, whole
from checkpointing.sealed import seal, unseal

FORMAT: Final = "lowtide-commit"
VERSION: Final = 1
CLAIM: Final = "claim"
COMMIT: Final = "commit"


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """One record of the log. A claim has step 0 and no manifest."""

    kind: str
    epoch: int
    attempt_id: str
    session: int
    """Random number of the writing session: tells our own record from a twin's."""
    at_us: int
    step: int = 0
    manifest: str = ""
    manifest_blake3: str = ""
    length: int = 0
    """Bytes of rank 0's part of the state."""
    seq: int = 0
    job_id: str = ""
    key_id: str = ""
    """Which key signed it; empty for an unsigned record."""
    signature: str = ""
    """Ed25519 over `signed_body`, hex."""


def signed_body(record: CommitRecord) -> bytes:
    """Return the canonical bytes that a signature covers."""
    fields = asdict(record)
    del fields["signature"]
    return canonical({"format": FORMAT, "version": VERSION, **fields})


def encode_record(record: CommitRecord) -> bytes:
    """Return the record, sealed."""
    return seal({"format": FORMAT, "version": VERSION, **asdict(record)})


def decode_record(data: bytes, *, key: str) -> CommitRecord:
    """Parse and verify a record; raise `CorruptCheckpoint`, or name a newer version."""
    fields = unseal(data, key=key, wanted_format=FORMAT, version=VERSION)
    numbers = ("epoch", "session", "at_us", "step", "length", "seq")
    texts = ("kind", "attempt_id", "manifest", "manifest_blake3", "job_id", "key_id", "signature")
    try:
        return CommitRecord(
            **{name: whole(fields[name]) for name in numbers},  # type: ignore[arg-type]
            **{name: text(fields[name]) for name in texts},  # type: ignore[arg-type]
        )
    except (KeyError, TypeError) as error:
        raise corrupt(key, why=f"a field is missing or of the wrong kind ({error})") from error


@dataclass(frozen=True, slots=True)
class History:
    """What a log says, newest first."""

    commits: tuple[CommitRecord, ...]
    """Valid commits; the first is the restore point, if it verifies."""
    skipped: tuple[str, ...]
    """Why other records were left out: damaged, or written by a fenced attempt."""
    epoch: int
    """Highest epoch seen; 0 for an empty log."""
    unreadable: tuple[str, ...] = ()
    """The records in `skipped` of which nobody knows what they named."""
    untrusted: tuple[CommitRecord, ...] = ()
    """The records in `skipped` whose signature is not one of ours."""


def valid_history(records: Iterable[CommitRecord], *, damaged: Iterable[str] = ()) -> History:
    """Sort `records` (in any order) into valid commits, newest first, and fenced ones."""
    unreadable = tuple(damaged)
    commits: list[CommitRecord] = []
    fenced: list[str] = []
    epoch = 0
    for record in sorted(records, key=lambda record: record.seq):
        if record.epoch < epoch:
            fenced.append(f"Record {record.seq} has epoch {record.epoch}, after epoch {epoch}.")
            continue
        epoch = record.epoch
        if record.kind == COMMIT:
            commits.append(record)
    ranked = sorted(commits, key=lambda record: (record.epoch, record.seq), reverse=True)
    return History(tuple(ranked), (*unreadable, *fenced), epoch=epoch, unreadable=unreadable)
