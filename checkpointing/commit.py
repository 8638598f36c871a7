"""Commit records: which checkpoints count. Pure; the log that holds them is `commit_log`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from checkpointing.errors import corrupt
from checkpointing.hashing import blake3_hex
from checkpointing.manifest import canonical, parse_object, text, whole

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


def encode_record(record: CommitRecord) -> bytes:
    """Return canonical JSON with its own BLAKE3 inside, so that a flipped bit is noticed."""
    body = {"format": FORMAT, "version": VERSION, **asdict(record)}
    return canonical({**body, "blake3": blake3_hex(canonical(body))})


def decode_record(data: bytes, *, key: str) -> CommitRecord:
    """Parse and verify a record; raise `CorruptCheckpoint`."""
    fields = parse_object(data, key=key, wanted_format=FORMAT, version=VERSION)
    claimed = fields.pop("blake3", None)
    if claimed != blake3_hex(canonical(fields)):
        raise corrupt(key, why="its hash does not match")
    numbers = ("epoch", "session", "at_us", "step", "length", "seq")
    texts = ("kind", "attempt_id", "manifest", "manifest_blake3")
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


def valid_history(records: Iterable[CommitRecord], *, damaged: Iterable[str] = ()) -> History:
    """Sort `records` (in any order) into valid commits, newest first, and fenced ones."""
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
    return History(commits=tuple(ranked), skipped=(*damaged, *fenced), epoch=epoch)
