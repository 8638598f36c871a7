"""Commits: one order of all writers, zombies fenced out, lost answers harmless."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from typing_extensions import Buffer

from checkpointing.commit import CLAIM, COMMIT, CommitRecord
from checkpointing.commit_log import CommitLog
from checkpointing.errors import FencedOut, StorageError, missing
from checkpointing.keys import commit_key
from checkpointing.memory_storage import MemoryStorage


def draft(epoch: int, *, step: int = 0, kind: str = COMMIT, session: int = 0) -> CommitRecord:
    """A record that has no number yet."""
    return CommitRecord(kind, epoch, f"attempt-{epoch}", session or epoch, at_us=0, step=step)


def test_records_are_numbered_without_gaps() -> None:
    """The log has the order in which records were added."""
    log = CommitLog(MemoryStorage(), job_id="j")
    assert [log.append(draft(1, step=step)).seq for step in (10, 20, 30)] == [1, 2, 3]
    assert [record.step for record in log.history().commits] == [30, 20, 10]


def test_a_stale_epoch_is_fenced_out() -> None:
    """After a successor's claim the old attempt cannot commit, and is told by whom."""
    log = CommitLog(MemoryStorage(), job_id="j")
    log.append(draft(1, step=10))
    log.append(draft(2, kind=CLAIM))
    with pytest.raises(FencedOut, match="epoch 2") as caught:
        log.append(draft(1, step=20))
    assert caught.value.code == "fenced-out"
    assert [record.step for record in log.history().commits] == [10]


def test_a_zombie_cannot_slip_in_between_looking_and_writing() -> None:
    """A claim that lands while the zombie holds its pen takes the number away from it."""
    storage = MemoryStorage()
    log = CommitLog(storage, job_id="j")
    log.append(draft(1, step=10))

    class Slow(MemoryStorage):
        """The zombie's view: its writes reach the store after the successor's claim."""

        def __getattribute__(self, name: str) -> object:
            return (
                getattr(storage, name)
                if name != "put_if_absent"
                else super().__getattribute__(name)
            )

        def put_if_absent(self, key: str, data: Buffer) -> bool:
            if not claimed.is_set():
                claimed.set()
                log.append(draft(2, kind=CLAIM))
            return storage.put_if_absent(key, data)

    claimed = threading.Event()
    with pytest.raises(FencedOut):
        CommitLog(Slow(), job_id="j").append(draft(1, step=20))
    assert [record.step for record in log.history().commits] == [10]


def test_writers_of_one_epoch_all_get_a_number() -> None:
    """Eight at a time: nobody overwrites anybody."""
    log = CommitLog(MemoryStorage(), job_id="j")
    with ThreadPoolExecutor(8) as pool:
        records = pool.map(lambda step: log.append(draft(1, step=step, session=step)), range(1, 33))
    assert sorted(record.seq for record in records) == list(range(1, 33))
    assert {record.step for record in log.history().commits} == set(range(1, 33))


def test_a_lost_answer_is_not_a_second_commit() -> None:
    """The store took the record, the answer was lost, the retry says "taken": it is ours."""

    class Forgetful(MemoryStorage):
        def put_if_absent(self, key: str, data: Buffer) -> bool:
            super().put_if_absent(key, data)
            return False

    log = CommitLog(Forgetful(), job_id="j")
    assert log.append(draft(1, step=5)).seq == 1
    assert len(log.history().commits) == 1


def test_a_damaged_record_is_skipped_and_named() -> None:
    """A cut record neither counts nor blocks the next number."""
    storage = MemoryStorage()
    log = CommitLog(storage, job_id="j")
    log.append(draft(1, step=10))
    log.append(draft(1, step=20))
    storage.put(commit_key("j", 2), storage.get(commit_key("j", 2))[:-5])
    history = log.history()
    assert [record.step for record in history.commits] == [10]
    assert "000000000002" in history.skipped[0]
    assert log.append(draft(1, step=30)).seq == 3


def test_the_weaker_mode_still_ranks_by_epoch() -> None:
    """Without conditional writes a zombie's record may land, and still never counts."""
    storage = MemoryStorage()
    log = CommitLog(storage, job_id="j", conditional=False)
    log.append(draft(1, step=10))
    log.append(draft(2, kind=CLAIM))
    log.append(draft(2, step=15))
    zombie = draft(1, step=99)

    class Stale(MemoryStorage):
        """A zombie that saw the log before its successor came."""

        def list(self, prefix: str) -> tuple:
            return storage.list(prefix)[:1]

        def get(self, key: str) -> bytes:
            return storage.get(key)

        def put(self, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
            storage.put(key, data)

    CommitLog(Stale(), job_id="j", conditional=False).append(zombie)
    assert log.history().commits[0].step == 15
    assert 99 not in [record.step for record in log.history().commits if record.epoch == 2]
    with pytest.raises(FencedOut):
        log.append(draft(1, step=100))


def test_trimming_keeps_the_newest_and_the_needed() -> None:
    """The end of the log always stays, so a sleeping zombie meets a taken number."""
    log = CommitLog(MemoryStorage(), job_id="j")
    for step in range(1, 11):
        log.append(draft(1, step=step))
    log.trim(keep=3, needed={2})
    assert [record.seq for record in log.history().commits] == [10, 9, 8, 2]
    assert log.append(draft(1, step=11)).seq == 11


def test_a_store_that_never_answers_yes_is_given_up() -> None:
    """No endless loop over a name that is always taken."""

    class Jammed(MemoryStorage):
        def put_if_absent(self, key: str, data: Buffer) -> bool:
            return False

        def get(self, key: str) -> bytes:
            if "commits" in key:
                return b"someone else's"
            raise missing(key, uri=self.uri)

    with pytest.raises(StorageError, match="other writers"):
        CommitLog(Jammed(), job_id="j").append(draft(1))
