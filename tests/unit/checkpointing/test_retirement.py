"""What a sweep deletes, what it keeps, and when it refuses to delete anything."""

from __future__ import annotations

import pytest

from checkpointing.archive import Archive
from checkpointing.commit import COMMIT, CommitRecord
from checkpointing.commit_log import CommitLog
from checkpointing.errors import CorruptCheckpoint
from checkpointing.hashing import blake3_hex
from checkpointing.identity import Identity
from checkpointing.keys import (
    StoredObject,
    chunk_key,
    commit_key,
    failure_key,
    intent_key,
    job_prefix,
    manifest_key,
    part_key,
    parts_prefix,
)
from checkpointing.manifest import ChunkRef, Manifest, RankPart, encode
from checkpointing.memory_storage import MemoryStorage
from checkpointing.pins import known_from, pin
from checkpointing.retention import ORPHAN_US, Retention
from checkpointing.retirement import Retirement, SweepReport

NO_GRACE_US = -1


class Root(MemoryStorage):
    """A store with jobs in it, whose objects can be made old."""

    def commit(self, job: str, step: int, *contents: bytes, epoch: int = 1) -> CommitRecord:
        """Commit a checkpoint of two ranks, each with the chunks of `contents`."""
        prefix = parts_prefix(job, session=1, step=step)
        part = self.document(job, step, *contents, rank=1)
        key = part_key(prefix, rank=1, blake3=blake3_hex(part))
        self.put(key, part)
        top = self.document(job, step, *contents, parts=(RankPart(1, key, blake3_hex(part)),))
        name = blake3_hex(top)
        self.put(manifest_key(job, step=step, blake3=name), top)
        manifest = manifest_key(job, step=step, blake3=name)
        record = CommitRecord(COMMIT, epoch, "a", 1, step, step, manifest, name)
        return CommitLog(self, job_id=job).append(record)

    def document(
        self, job: str, step: int, *contents: bytes, rank: int = 0, parts: tuple = ()
    ) -> bytes:
        """Store chunks and encode a manifest that names them."""
        refs = tuple(ChunkRef(blake3_hex(item), len(item), 0) for item in contents)
        for item in contents:
            self.put(chunk_key(blake3_hex(item)), item)
        return encode(Manifest(job, 1, step, rank, 2, None, (), refs, parts))

    def age(self, prefix: str = "") -> None:
        """Make objects older than any limit."""
        for key in [item.key for item in self.list(prefix)]:
            self._objects[key] = (self.get(key), 0)

    def sweep(self, job: str = "a", *, last: int = 1, conditional: bool = True) -> SweepReport:
        """Sweep as a job that keeps `last` commits."""
        return retirement(self, job, last=last, conditional=conditional).sweep()

    def keys(self, prefix: str) -> list[str]:
        """What there is."""
        return [item.key for item in self.list(prefix)]


def retirement(
    root: MemoryStorage, job: str = "a", *, last: int = 1, conditional: bool = True
) -> Retirement:
    """A sweep without a grace period."""
    log = CommitLog(root, job_id=job)
    home = Archive(root, log, Identity(job, "x", 9, 9), conditional)
    return Retirement(home, policy=Retention(last=last), grace_us=NO_GRACE_US)


@pytest.fixture
def root() -> Root:
    """Job a has three commits, job b one; they share a chunk."""
    made = Root()
    made.commit("a", 10, b"shared", b"only 10")
    made.commit("a", 20, b"shared", b"only 20")
    made.commit("b", 5, b"only 10", b"of b")
    made.commit("a", 30, b"new")
    return made


def test_each_job_keeps_what_it_names(root: Root) -> None:
    """Job a keeps one commit; what job b needs stays, and everything else goes."""
    report = root.sweep("a")
    assert not report.refused
    left = {root.get(key) for key in root.keys("chunks/")}
    assert left == {b"new", b"only 10", b"of b"}
    assert len(root.keys("jobs/a/manifests/")) == len(root.keys("jobs/a/parts/")) == 1
    assert len(root.keys("jobs/b/")) == 3
    assert report.freed_bytes == sum(item.length for item in report.deleted) > 0


def test_a_plan_is_what_the_sweep_then_does(root: Root) -> None:
    """`plan` writes nothing and names exactly what goes."""
    before = root.list("")
    plan = retirement(root).plan()
    assert root.list("") == before
    assert sorted(plan.deleted, key=key_of) == sorted(root.sweep().deleted, key=key_of)
    assert root.sweep().deleted == ()


def key_of(item: StoredObject) -> str:
    """Sort by name."""
    return item.key


def test_a_sweep_reads_each_manifest_once(root: Root) -> None:
    """The second sweep costs its listings only."""
    reads = []

    class Counting(Root):
        def get(self, key: str) -> bytes:
            reads.append(key)
            return super().get(key)

    counting = Counting()
    counting._objects = root._objects
    sweeper = retirement(counting)
    sweeper.sweep()
    assert any("manifests" in key for key in reads)
    reads.clear()
    sweeper.sweep()
    assert not reads


@pytest.mark.parametrize("kind", ["manifests", "parts"])
@pytest.mark.parametrize("job", ["a", "b"])
def test_an_unreadable_manifest_stops_the_sweep(root: Root, kind: str, job: str) -> None:
    """Whosever it is: nobody knows what it needs, so nothing goes, and it is named."""
    damaged = root.keys(f"jobs/{job}/{kind}/")[-1]
    root.put(damaged, root.get(damaged)[:-9])
    report = root.sweep()
    assert report.deleted == ()
    assert damaged in report.refused[0]


def test_a_newer_manifest_stops_the_sweep(root: Root) -> None:
    """Another job was updated first: its needs are unknown here, and both versions are named."""
    data = root.document("b", 7).replace(b'"version":1', b'"version":2')
    root.put(manifest_key("b", step=7, blake3=blake3_hex(data)), data)
    report = root.sweep()
    assert report.deleted == ()
    assert "version 2" in report.refused[0]
    assert "version 1" in report.refused[0]


def test_an_unreadable_commit_record_of_ours_stops_the_sweep(root: Root) -> None:
    """It may be the newest one; the next sweep that can read all of them goes on."""
    key = commit_key("a", 3)
    data = root.get(key)
    root.put(key, data[:-5])
    report = root.sweep()
    assert report.deleted == ()
    assert key in report.refused[0]
    root.put(key, data)
    assert root.sweep().deleted


def test_an_old_unreadable_record_does_not_stop_sweeps_for_ever(root: Root) -> None:
    """Once enough newer records stand behind it, the log is trimmed and sweeps go on."""
    root.put(commit_key("a", 1), b"damaged")
    for step in range(40, 80):
        root.commit("a", step, b"new")
    assert "cannot be read" in root.sweep().refused[0]
    assert not root.sweep().refused


def test_the_restore_point_in_use_stays(root: Root) -> None:
    """By name for its own session, by a pin for every sweep there is."""
    first, second = CommitLog(root, job_id="a").history().commits[:0:-1]
    sweeper = retirement(root)
    sweeper.protected = frozenset({first.manifest})
    pin(root, second.manifest, who=Identity("a", "x", 9, 9))
    sweeper.sweep()
    assert len(root.keys("jobs/a/manifests/")) == 3
    assert {root.get(key) for key in root.keys("chunks/")} >= {b"shared", b"only 20"}


def test_a_pin_ends_with_the_first_commit_of_its_session(root: Root) -> None:
    """Then that commit names what the session needs; a fenced session's pin ends as well."""
    parent = CommitLog(root, job_id="b").history().commits[0]
    pin(root, parent.manifest, who=Identity("a", "x", 1, 1))
    root.sweep("b")
    assert root.keys("jobs/a/pins/")
    root.sweep("a")
    assert not root.keys("jobs/a/pins/")
    pin(root, parent.manifest, who=Identity("a", "x", 1, 5))
    root.sweep("a")
    assert root.keys("jobs/a/pins/"), "session 5 has not committed"
    root.commit("a", 50, b"new", epoch=2)
    root.sweep("a")
    assert not root.keys("jobs/a/pins/")


def test_a_parent_tells_the_chunks_of_all_its_ranks(root: Root) -> None:
    """They need no sending; a parent that was retired is named as such."""
    parent = CommitLog(root, job_id="a").history().commits[-1]
    names = known_from(root, parent)
    assert {root.get(chunk_key(name)) for name in names} == {b"shared", b"only 10"}
    root.sweep()
    with pytest.raises(CorruptCheckpoint, match="it is not there"):
        known_from(root, parent)


def test_what_dead_saves_left_behind_goes_after_a_day(root: Root) -> None:
    """An uncommitted manifest, part, intent and failure note keep their chunks until then."""
    orphan = root.document("a", 40, b"of a dead save")
    name = blake3_hex(orphan)
    prefix = parts_prefix("a", session=3, step=40)
    left = [
        manifest_key("a", step=40, blake3=name),
        part_key(prefix, rank=1, blake3=name),
        intent_key("a", session=3, step=40, rank=1, blake3=name),
    ]
    for key in left:
        root.put(key, orphan)
    root.put(failure_key(prefix, rank=1), b"no room")
    root.put(f"{job_prefix('a')}probes/1", b"")
    deleted = {item.key for item in root.sweep().deleted}
    assert not deleted & {*left, failure_key(prefix, rank=1)}
    assert f"{job_prefix('a')}probes/1" in deleted
    root.age(job_prefix("a"))
    deleted = {item.key for item in root.sweep().deleted}
    assert deleted == {*left, failure_key(prefix, rank=1), chunk_key(blake3_hex(b"of a dead save"))}
    assert len(root.keys("jobs/a/manifests/")) == 1, "the commit itself is never too old"


def test_a_fenced_session_sweeps_nothing(root: Root) -> None:
    """A zombie may believe in commits that are long superseded."""
    root.commit("a", 40, b"by the successor", epoch=10)
    report = root.sweep()
    assert report.deleted == ()
    assert "newer attempt" in report.refused[0]


def test_without_conditional_writes_shared_chunks_stay(root: Root) -> None:
    """Two sweeps could not exclude each other; our own manifests still go."""
    report = root.sweep(conditional=False)
    assert {item.key.split("/")[0] for item in report.deleted} == {"jobs"}
    assert "conditional" in report.refused[0]


def test_unfinished_uploads_are_aborted(root: Root) -> None:
    """Whatever other writers left under our prefix costs money and is in no listing."""
    asked = []

    class Uploads(Root):
        def abandon_uploads(self, prefix: str, *, older_than_us: int) -> int:
            asked.append((prefix, older_than_us))
            return 2

    uploads = Uploads()
    uploads._objects = root._objects
    assert uploads.sweep().abandoned_uploads == 4
    assert [prefix for prefix, _ in asked] == ["chunks/", "jobs/"]
    assert all(at_us > ORPHAN_US for _, at_us in asked)
