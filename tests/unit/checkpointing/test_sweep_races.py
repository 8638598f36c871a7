"""A sweep and a save at the same moment: every order of their requests leaves whole commits."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection, Sequence

import pytest
from typing_extensions import Buffer

from checkpointing import publish, retirement
from checkpointing.archive import Archive
from checkpointing.commit import CommitRecord
from checkpointing.commit_log import CommitLog
from checkpointing.documents import read_document
from checkpointing.errors import CheckpointError, StorageError
from checkpointing.hashing import blake3_hex
from checkpointing.identity import Identity
from checkpointing.keys import chunk_key, hash_of, sweep_key
from checkpointing.manifest import Manifest
from checkpointing.memory_storage import MemoryStorage
from checkpointing.publish import Published, Publisher
from checkpointing.retention import Retention
from checkpointing.retirement import Retirement, SweepReport
from checkpointing.snapshot import Snapshot
from checkpointing.sweeps import SaveGuard, SweepLog
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
    parent: CommitRecord | None = None,
    publisher: Publisher | None = None,
) -> Published:
    """Save as a new session does, on a restore point or parent if there is one."""
    made = publisher or Publisher(storage, log=CommitLog(storage, job_id=job), identity=who(job))
    if parent is not None:
        manifest = read_document(storage, parent.manifest, blake3=parent.manifest_blake3)
        made.adopt(parent.manifest, chunks=frozenset(chunk.name for chunk in manifest.chunks))
    memory = memoryview(b"".join(contents))
    ends = list(itertools.accumulate(len(content) for content in contents))
    ranges = tuple(itertools.pairwise([0, *ends]))
    return made.publish(Snapshot(step, 0, None, (), ranges, memory))


def newest(storage: MemoryStorage, job: str) -> CommitRecord:
    """The newest commit of a job."""
    return CommitLog(storage, job_id=job).history().commits[0]


def sweep(storage: MemoryStorage, *, job: str = "b", last: int = 1) -> SweepReport:
    """Sweep as a session of `job`."""
    log = CommitLog(storage, job_id=job)
    home = Archive(storage, log, who(job, epoch=99), conditional=True)
    return Retirement(home, policy=Retention(last=last), grace_us=NOW).sweep()


def lost_chunks(storage: MemoryStorage, job: str) -> list[str]:
    """Chunks that the newest commit of a job names and the store has not."""
    manifest = manifest_of(storage, job)
    return [chunk.name for chunk in manifest.chunks if not storage.exists(chunk_key(chunk.name))]


def manifest_of(storage: MemoryStorage, job: str) -> Manifest:
    """The manifest of a job's newest commit."""
    record = newest(storage, job)
    return read_document(storage, record.manifest, blake3=record.manifest_blake3)


@pytest.fixture(autouse=True)
def one_request_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done in parallel has no order that could be replayed."""
    monkeypatch.setattr(retirement, "_WORKERS", 1)
    monkeypatch.setattr(publish, "PARALLEL_PUTS", 1)


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
    for schedule, storage, (saved, report) in explore([_saves_again, sweep], garbage):
        assert isinstance(saved, Published), (schedule, saved)
        assert not lost_chunks(storage, "a"), schedule
        assert not lost_chunks(storage, "b"), schedule
        names.add(manifest_of(storage, "a").chunks[0].copy)
        deleted.add(len(report.deleted))
    assert names == {0, 1}, "a copy was never needed: the test proves nothing"
    assert deleted == {0, 1}


def test_without_the_second_look_a_commit_loses_its_chunk(
    garbage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look is what closes the race: leave it out, and some order breaks the commit."""
    monkeypatch.setattr(SaveGuard, "lost", lambda *_args, **_named: frozenset())
    orders = explore([_saves_again, sweep], garbage)
    assert any(lost_chunks(storage, "a") for _, storage, _ in orders)


def _saves_again(storage: MemoryStorage) -> Published:
    return save(storage, [b"again"])


def test_a_child_relies_on_a_parent_that_is_being_retired() -> None:
    """In every order the child's commit is whole, whether or not the parent's chunk was known."""
    base, parent = _family()
    sent = set()

    def child(storage: MemoryStorage) -> Published:
        return save(storage, [b"trunk"], job="child", parent=parent)

    for schedule, storage, (saved, _) in explore([child, _sweeps_parent], base):
        assert isinstance(saved, Published), (schedule, saved)
        assert not lost_chunks(storage, "child"), schedule
        assert not lost_chunks(storage, "parent"), schedule
        assert not storage.list("jobs/child/pins/"), schedule
        sent.add(saved.new_bytes)
    assert sent == {0, 5}, "one of the two cases never came about"


def _family() -> tuple[MemoryStorage, CommitRecord]:
    base = MemoryStorage()
    save(base, [b"trunk"], job="parent", step=1)
    parent = newest(base, "parent")
    save(base, [b"other"], job="parent", step=2)
    return base, parent


def _sweeps_parent(storage: MemoryStorage) -> SweepReport:
    return sweep(storage, job="parent")


def test_without_a_pin_a_parent_would_be_lost() -> None:
    """The pin is what keeps the parent while its child has no commit: it spares the upload."""
    base, parent = _family()
    guard = Publisher(base, log=CommitLog(base, job_id="child"), identity=who("child"))
    guard.adopt(parent.manifest, chunks=frozenset({blake3_hex(b"trunk")}))
    assert not sweep(base, job="parent").deleted
    assert save(base, [b"trunk"], job="child", publisher=guard).new_bytes == 0
    assert len(sweep(base, job="parent").deleted) == 1, "the parent's manifest, not its chunk"
    assert not lost_chunks(base, "child")


def test_a_job_that_goes_on_from_its_own_commits_while_others_sweep() -> None:
    """The unchanged chunk of the last commit is not sent again, and never lost.

    The job itself retires the predecessor between two saves, at a lower step after a fall-back:
    the listing of another job's sweep may pass both at the wrong moment.
    """
    base = MemoryStorage()
    save(base, [b"frozen", b"one"], step=200)
    save(base, [b"of b"], job="b")
    point = newest(base, "a")

    def goes_on(storage: MemoryStorage) -> SweepReport:
        save(storage, [b"frozen", b"two"], step=100, parent=point)
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
        assert isinstance(results[0], Published), results
        assert isinstance(results[1], Published), results
        assert not lost_chunks(storage, "a")
        assert not lost_chunks(storage, "c")
        turned_away += any("Another sweep" in why for found in results[2:] for why in found.refused)
    assert turned_away


@pytest.mark.parametrize(("swept", "sent"), [(False, 0), (True, 6)])
def test_what_a_failed_save_sent_is_sent_again_only_if_a_sweep_took_it(
    swept: bool, sent: int
) -> None:
    """Its chunks are there for the next save; a sweep that is long over is noticed as well."""
    tried = []

    class Moody(MemoryStorage):
        def put_if_absent(self, key: str, data: Buffer) -> bool:
            tried.append(key)
            if len(tried) == 1:
                raise StorageError("storage-failed", cause="It is down.", remedy="Wait.")
            return super().put_if_absent(key, data)

    storage = Moody()
    publisher = Publisher(storage, log=CommitLog(storage, job_id="a"), identity=who("a"))
    with pytest.raises(StorageError, match="down"):
        save(storage, [b"one", b"two"], publisher=publisher)
    storage.delete(storage.list("jobs/a/manifests/")[0].key)
    if swept:
        assert len(sweep(storage, job="a").deleted) == 2
    assert save(storage, [b"one", b"two"], step=2, publisher=publisher).new_bytes == sent
    assert not lost_chunks(storage, "a")


def test_a_sweep_that_runs_out_of_time_leaves_no_manifest_without_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Manifests go first: whoever pins one that is there finds its chunks there too."""
    base, parent = _family()
    looks = itertools.count()
    monkeypatch.setattr(retirement, "_BATCH", 1)
    monkeypatch.setattr(retirement, "monotonic_us", lambda: 0 if next(looks) < 2 else 2**62)
    assert len(sweep(base, job="parent").deleted) == 1
    assert not base.exists(parent.manifest)
    assert base.exists(chunk_key(blake3_hex(b"trunk")))
    monkeypatch.undo()
    assert len(sweep(base, job="parent").deleted) == 1
    assert not base.exists(chunk_key(blake3_hex(b"trunk")))


def test_a_gang_saves_while_others_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank vouches for its own part: rank 0 never commits a part that lost a chunk."""
    monkeypatch.setattr(publish, "_POLL_S", 0)
    base = MemoryStorage()
    save(base, [b"of b"], job="b")
    for content in (b"again", b"again 1"):
        base.put(chunk_key(blake3_hex(content)), content)

    def rank(number: int, content: bytes) -> Callable[[MemoryStorage], Published]:
        def act(storage: MemoryStorage) -> Published:
            me = Identity("a", "a-1", 1, 7, number, world_size=2)
            publisher = Publisher(storage, log=CommitLog(storage, job_id="a"), identity=me)
            return save(storage, [content], publisher=publisher)

        return act

    rng = random.Random(7)
    copies = set()
    for _ in range(250):
        storage = copied(base)
        results = once([rank(0, b"again"), rank(1, b"again 1"), sweep], storage, rng.choice)
        assert isinstance(results[0], Published), results
        top = manifest_of(storage, "a")
        part = read_document(storage, top.parts[0].key, blake3=top.parts[0].blake3)
        chunks = (*top.chunks, *part.chunks)
        assert all(storage.exists(chunk_key(chunk.name)) for chunk in chunks)
        assert not storage.list("jobs/a/intents/")
        copies.add(part.chunks[0].copy)
    assert copies == {0, 1}, "rank 1 never met the sweep: the test proves nothing"


def test_a_dead_sweep_is_in_nobodys_way_for_long(garbage: MemoryStorage) -> None:
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
    save(garbage, [b"again"])
    assert manifest_of(garbage, "a").chunks[0].copy == 1
    assert "Another sweep" in sweep(garbage).refused[0]
    garbage._objects[sweep_key(1)] = (garbage.get(sweep_key(1)), 0)
    report = sweep(garbage)
    assert [item.key for item in report.deleted] == [chunk_key(blake3_hex(b"again"))]
    assert not lost_chunks(garbage, "a")


@pytest.mark.parametrize("damage", [b"{}", b"lowtide", b""])
def test_an_unreadable_record_of_a_sweep_dooms_everything(
    garbage: MemoryStorage, damage: bytes
) -> None:
    """Nobody knows what it names, so nothing is taken as safe: all chunks go under new names."""
    assert SweepLog(garbage).begin({chunk_key(blake3_hex(b"again"))}, nonce="n") == 1
    garbage.put(sweep_key(1), damage or garbage.get(sweep_key(1)).replace(b"chunks/", b"chunkz/"))
    save(garbage, [b"again"])
    assert manifest_of(garbage, "a").chunks[0].copy == 1


def test_a_save_that_missed_a_sweep_is_given_up(garbage: MemoryStorage) -> None:
    """A gap in the numbers: what was deleted meanwhile is not known any more."""
    guard = SaveGuard(garbage)
    guard.begin()
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


def test_a_manifest_that_stays_keeps_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Committed and superseded between a sweep's two looks: it stays this time, and whole."""
    storage = MemoryStorage()
    save(storage, [b"x"], step=1)
    begin = SweepLog.begin

    def meanwhile(self: SweepLog, doomed: Collection[str], *, nonce: str) -> int | None:
        save(storage, [b"x"], step=2)
        save(storage, [b"y"], step=3)
        return begin(self, doomed, nonce=nonce)

    save(storage, [b"w"], step=1)
    monkeypatch.setattr(SweepLog, "begin", meanwhile)
    sweep(storage, job="a")
    for item in storage.list("jobs/a/manifests/"):
        manifest = read_document(storage, item.key, blake3=hash_of(item.key))
        assert all(storage.exists(chunk_key(chunk.name)) for chunk in manifest.chunks), item.key
