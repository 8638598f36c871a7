"""The commit log: which checkpoints count, and who may add one.

A job has one log of small records, numbered without gaps. A record is added by `put_if_absent` of
the next number, so the store puts all writers of a job into one order. Two kinds of record:

- `claim`: an attempt that starts announces its fencing epoch, before it looks for a restore point.
- `commit`: a manifest is complete. It carries the epoch of the attempt that wrote it.

Whoever finds that the newest record has a higher epoch than its own is fenced out. As the next
number can be taken only once, an evicted attempt that lives on (a zombie) can commit before its
successor's claim, which is harmless, or never again. "Latest" is not a pointer: it is the commit
with the highest (epoch, number) of those whose epoch was the highest when they were added.

A store that ignores conditional writes gets the weaker mode: the epoch is part of the record's
name, so that two attempts never overwrite each other, and readers rank by epoch. What is lost: a
zombie may learn of its successor one save late. It still can never supersede it.

With verify keys (see `keyring`) a record that none of them signed is as good as absent: it neither
counts nor fences anybody, and is named in `skipped`.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from checkpointing.commit import CommitRecord, History, decode_record, encode_record, valid_history
from checkpointing.errors import (
    CorruptCheckpoint,
    FencedOut,
    MissingObject,
    StorageError,
    corrupt,
)
from checkpointing.keyring import NO_KEYS, Keyring
from checkpointing.keys import commit_key, commit_seq, commits_prefix
from checkpointing.storage import Storage

_CONTENDERS: Final = 100  # tries before we say that something is wrong with the store
_READERS: Final = 8


class CommitLog:
    """Reads and extends the log of one job."""

    def __init__(
        self,
        storage: Storage,
        *,
        job_id: str,
        conditional: bool = True,
        keyring: Keyring = NO_KEYS,
    ) -> None:
        """`conditional` says whether the store honours `put_if_absent` (see module text)."""
        self._storage = storage
        self._job_id = job_id
        self._conditional = conditional
        self._keyring = keyring
        self._seen: dict[str, CommitRecord] = {}  # a record never changes: it is read once

    def history(self) -> History:
        """Read the whole log; damaged and untrusted records are skipped and named."""
        with ThreadPoolExecutor(_READERS) as readers:
            found = list(readers.map(self._read, self._listed()))
        damaged = [item.cause for item in found if isinstance(item, CorruptCheckpoint)]
        records = [item for item in found if isinstance(item, CommitRecord)]
        doubts = [(record, self._keyring.doubt(record)) for record in records]
        history = valid_history((one for one, why in doubts if why is None), damaged=damaged)
        refused = [f"Record {one.seq} is refused: {why}." for one, why in doubts if why is not None]
        return replace(
            history,
            skipped=(*history.skipped, *refused),
            untrusted=tuple(one for one, why in doubts if why is not None),
        )

    def append(self, draft: CommitRecord) -> CommitRecord:
        """Add `draft` under the next number; raise `FencedOut` if a newer attempt was here.

        A lost answer is no trouble: if the number is taken by our own bytes, it was added.
        """
        for _ in range(_CONTENDERS):
            seq, newest = self._tip()
            if newest is not None and newest.epoch > draft.epoch:
                raise _fenced(draft, newest)
            record = self._keyring.signed(replace(draft, seq=seq + 1, job_id=self._job_id))
            if self._added(record):
                return record
        raise StorageError(
            "commit-contended",
            cause=f"{_CONTENDERS} tries to add a commit to {self._storage.uri} met other writers.",
            remedy="Check that only one attempt of the job uses this epoch.",
        )

    def trim(self, *, keep: int, needed: Collection[int] = ()) -> None:
        """Delete all but the newest `keep` records and those numbered in `needed`."""
        assert keep >= 1, keep
        for item in self._listed()[:-keep]:
            if item.seq not in needed:
                self._storage.delete(item.key)

    def _listed(self) -> list[_Listed]:
        found = self._storage.list(commits_prefix(self._job_id))
        numbered = [(commit_seq(item.key), item.key) for item in found]
        return sorted(_Listed(seq, key) for seq, key in numbered if seq is not None)

    def _tip(self) -> tuple[int, CommitRecord | None]:
        listed = self._listed()
        for item in reversed(listed):
            found = self._read(item)
            if isinstance(found, CommitRecord) and self._keyring.doubt(found) is None:
                return listed[-1].seq, found
        return (listed[-1].seq if listed else 0), None

    def _read(self, item: _Listed) -> CommitRecord | CorruptCheckpoint | None:
        if item.key in self._seen:
            return self._seen[item.key]
        try:
            record = decode_record(self._storage.get(item.key), key=item.key)
            self._check_place(record, item)
        except CorruptCheckpoint as error:
            return error
        except MissingObject:
            return None  # trimmed between the listing and this look
        self._seen[item.key] = record
        return record

    def _check_place(self, record: CommitRecord, item: _Listed) -> None:
        """Refuse a record that was copied here from another log or another number."""
        if (record.job_id, record.seq) != (self._job_id, item.seq):
            why = f"it is record {record.seq} of job {record.job_id or '(unnamed)'}"
            raise corrupt(item.key, why=why)

    def _added(self, record: CommitRecord) -> bool:
        data = encode_record(record)
        if not self._conditional:
            key = commit_key(self._job_id, record.seq, epoch=record.epoch)
            self._storage.put(key, data)
            return True
        key = commit_key(self._job_id, record.seq)
        return self._storage.put_if_absent(key, data) or self._storage.get(key) == data


@dataclass(frozen=True, slots=True, order=True)
class _Listed:
    seq: int
    key: str


def _fenced(draft: CommitRecord, newest: CommitRecord) -> FencedOut:
    return FencedOut(
        "fenced-out",
        cause=(
            f"Attempt {draft.attempt_id or '(unnamed)'} (epoch {draft.epoch}) may not commit: "
            f"attempt {newest.attempt_id or '(unnamed)'} (epoch {newest.epoch}) has taken over."
        ),
        remedy="Nothing is lost: the newer attempt goes on. This process should end.",
    )
