"""A sweep and a save at the same moment: every order of their requests leaves whole commits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from checkpointing import retirement
from checkpointing.archive import Archive
from checkpointing.commit import COMMIT, CommitRecord
from checkpointing.commit_log import CommitLog
from checkpointing.documents import read_document
from checkpointing.errors import CheckpointError
from checkpointing.hashing import blake3_hex
from checkpointing.keys import chunk_key, manifest_key, split_name, sweep_key
from checkpointing.manifest import ChunkRef, Manifest, encode
from checkpointing.memory_storage import MemoryStorage
from checkpointing.pins import known_from
from checkpointing.publish import Identity
from checkpointing.retention import Retention
from checkpointing.retirement import Retirement, SweepReport
from checkpointing.sweeps import SaveGuard
from tests.unit.checkpointing.interleaving import copied, explore, once

NOW = -1  # a grace period that spares nothing: the protocol alone must be enough


def who(job: str, *, epoch: int = 1, session: int = 7) -> Identity:
    """A session of a job."""
    return Identity(job, f"{job}-{epoch}", epoch, session)


def save(
    storage: MemoryStorage,
    contents: Sequence[bytes],
    *,
    job: str = "a",
    step: int = 1,
    known: frozenset[str] = frozenset(),
    look: bool = True,
) -> CommitRecord:
    """Save by the writer's side of the protocol; without the second `look` for the worse."""
    guard = SaveGuard(storage)
    guard.begin(known)
    while True:
        manifest = Manifest(job, 1, step, 0, 1, None, (), _stored(storage, guard, contents))
        data = encode(manifest)
        key = manifest_key(job, step=step, blake3=blake3_hex(data))
        storage.put(key, data)
        names = [chunk.name for chunk in manifest.chunks]
        if not look or not guard.lost(names, document=key):
            break
    record = CommitRecord(COMMIT, 1, "x", 7, 0, step, key, blake3_hex(data), manifest.length)
    return CommitLog(storage, job_id=job).append(record)


def _stored(
    storage: MemoryStorage, guard: SaveGuard, contents: Sequence[bytes]
) -> tuple[ChunkRef, ...]:
    refs = []
    for content in contents:
        name, there = guard.place(blake3_hex(content))
        if not there:
            storage.put(chunk_key(name), content)
            guard.sent(name)
        blake3, copy = split_name(name)
        refs.append(ChunkRef(blake3, len(content), 0, copy))
    return tuple(refs)


def sweep(storage: MemoryStorage, *, job: str = "b", last: int = 1) -> SweepReport:
    """Sweep as a session of `job`."""
    log = CommitLog(storage, job_id=job)
    home = Archive(storage, log, who(job, epoch=99), conditional=True)
    return Retirement(home, policy=Retention(last=last), grace_us=NOW).sweep()


def lost_chunks(storage: MemoryStorage, job: str) -> list[str]:
    """Chunks that the newest commit of a job names and the store has not."""
    record = CommitLog(storage, job_id=job).history().commits[0]
    manifest = read_document(storage, record.manifest, blake3=record.manifest_blake3)
    return [chunk.name for chunk in manifest.chunks if not storage.exists(chunk_key(chunk.name))]


@pytest.fixture(autouse=True)
def one_request_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that deletes in parallel has no order that could be replayed."""
    monkeypatch.setattr(retirement, "_WORKERS", 1)


@pytest.fixture
def garbage() -> MemoryStorage:
    """A root with one chunk that nobody names, and a job of one commit."""
    storage = MemoryStorage()
    save(storage, [b"of b"], job="b")
    storage.put(chunk_key(blake3_hex(b"again")), b"again")
    return storage


def test_a_chunk_that_is_stored_again_while_a_sweep_deletes_it(garbage: MemoryStorage) -> None:
    """In every order the commit is whole; sometimes by a copy, sometimes the sweep yields."""
    names = set()
    deleted = set()
    for schedule, storage, (record, report) in explore([_saves_again, sweep], garbage):
        assert isinstance(record, CommitRecord), (schedule, record)
        assert not lost_chunks(storage, "a"), schedule
        assert not lost_chunks(storage, "b"), schedule
        manifest = read_document(storage, record.manifest, blake3=record.manifest_blake3)
        names.add(manifest.chunks[0].copy)
        deleted.add(len(report.deleted))
    assert names == {0, 1}, "a copy was never needed: the test proves nothing"
    assert deleted == {0, 1}


def test_without_the_second_look_a_commit_loses_its_chunk(garbage: MemoryStorage) -> None:
    """The look is what closes the race: leave it out, and some order breaks the commit."""

    def careless(storage: MemoryStorage) -> CommitRecord:
        return save(storage, [b"again"], look=False)

    broken = [lost_chunks(storage, "a") for _, storage, _ in explore([careless, sweep], garbage)]
    assert any(broken)


def _saves_again(storage: MemoryStorage) -> CommitRecord:
    return save(storage, [b"again"])


def test_a_child_relies_on_a_parent_that_is_being_retired() -> None:
    """In every order the child's commit is whole, whether or not the parent's chunk was known."""
    base = MemoryStorage()
    parent = save(base, [b"trunk"], job="parent", step=1)
    save(base, [b"other"], job="parent", step=2)
    sent = set()

    def child(storage: MemoryStorage) -> CommitRecord:
        known = known_from(storage, who=who("child"), parent=parent)
        sent.add(bool(known))
        return save(storage, [b"trunk"], job="child", known=known)

    for schedule, storage, (record, _) in explore([child, _sweeps_parent], base):
        assert isinstance(record, CommitRecord), (schedule, record)
        assert not lost_chunks(storage, "child"), schedule
        assert not lost_chunks(storage, "parent"), schedule
    assert sent == {False, True}, "one of the two cases never came about"


def _sweeps_parent(storage: MemoryStorage) -> SweepReport:
    return sweep(storage, job="parent")


def test_a_job_that_goes_on_from_its_own_commits_while_others_sweep() -> None:
    """The unchanged chunk of the last commit is not sent again, and never lost.

    The job itself retires the predecessor between two saves, at a lower step after a fall-back:
    the listing of another job's sweep may pass both at the wrong moment.
    """
    base = MemoryStorage()
    save(base, [b"frozen", b"one"], step=200)
    save(base, [b"of b"], job="b")
    known = frozenset({blake3_hex(b"frozen")})

    def goes_on(storage: MemoryStorage) -> SweepReport:
        save(storage, [b"frozen", b"two"], step=100, known=known)
        return sweep(storage, job="a")

    rng = random.Random(3)
    for _ in range(600):
        storage = copied(base)
        results = once([goes_on, sweep], storage, rng.choice)
        assert not any(isinstance(found, CheckpointError) for found in results), results
        assert not lost_chunks(storage, "a")
        assert not lost_chunks(storage, "b")


def test_two_sweeps_and_two_saves_at_random(garbage: MemoryStorage) -> None:
    """Four actors in a thousand random orders: sweeps exclude each other, commits are whole."""
    actors: list[Callable[[MemoryStorage], object]] = [
        _saves_again,
        lambda storage: save(storage, [b"again", b"of b"], job="c"),
        sweep,
        lambda storage: sweep(storage, job="a"),
    ]
    rng = random.Random(5)
    turned_away = 0
    for _ in range(500):
        storage = copied(garbage)
        results = once(actors, storage, rng.choice)
        assert isinstance(results[0], CommitRecord), results
        assert isinstance(results[1], CommitRecord), results
        assert not lost_chunks(storage, "a")
        assert not lost_chunks(storage, "c")
        turned_away += any("Another sweep" in why for found in results[2:] for why in found.refused)
    assert turned_away


def test_a_dead_sweep_is_in_nobodys_way_for_long(
    garbage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its names are avoided, saves go on, and an hour later the next sweep takes over."""

    class Died(BaseException):
        """The process is gone."""

    class Mortal(MemoryStorage):
        def delete(self, key: str) -> None:
            raise Died

    dying = Mortal()
    dying._objects = garbage._objects
    with pytest.raises(Died):
        sweep(dying)
    record = save(garbage, [b"again"])
    manifest = read_document(garbage, record.manifest, blake3=record.manifest_blake3)
    assert manifest.chunks[0].copy == 1
    assert "Another sweep" in sweep(garbage).refused[0]
    garbage._objects[sweep_key(1)] = (garbage.get(sweep_key(1)), 0)
    report = sweep(garbage)
    assert [item.key for item in report.deleted] == [chunk_key(blake3_hex(b"again"))]
    assert not lost_chunks(garbage, "a")


def test_an_unreadable_record_of_a_sweep_dooms_everything(garbage: MemoryStorage) -> None:
    """Nobody knows what it names, so nothing is taken as safe: all chunks go under new names."""
    garbage.put(sweep_key(1), b"{}")
    record = save(garbage, [b"again"])
    manifest = read_document(garbage, record.manifest, blake3=record.manifest_blake3)
    assert manifest.chunks[0].copy == 1


def test_a_save_that_missed_a_sweep_is_given_up(garbage: MemoryStorage) -> None:
    """A gap in the numbers: what was deleted meanwhile is not known any more."""
    guard = SaveGuard(garbage)
    guard.begin(())
    garbage.put(sweep_key(2), b"")
    with pytest.raises(CheckpointError, match="given up") as caught:
        guard.lost([], document="m")
    assert caught.value.code == "save-overtaken"


def test_sweeps_leave_no_records_behind(garbage: MemoryStorage) -> None:
    """Records older than a day go; the newest stays, so that numbers are never used twice."""
    sweep(garbage)
    for key in (sweep_key(1), sweep_key(1, done=True)):
        garbage._objects[key] = (garbage.get(key), 0)
    assert not sweep(garbage).deleted
    assert garbage.exists(sweep_key(1))
    for number in range(2):
        garbage.put(chunk_key(blake3_hex(b"%d" % number)), b"x")
        sweep(garbage)
    seqs = [sweep_key(2), sweep_key(2, done=True), sweep_key(3), sweep_key(3, done=True)]
    assert [item.key for item in garbage.list("sweeps/")] == sorted(seqs)
