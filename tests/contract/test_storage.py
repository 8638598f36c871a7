"""One suite that every `Storage` passes: in memory, on a file system, on a real S3 server."""

from __future__ import annotations

import importlib.util
import os
import resource
import signal
import sys
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest
from typing_extensions import Buffer

from checkpointing.clock import now_us
from checkpointing.errors import MissingObject, StorageError
from checkpointing.file_storage import FileStorage
from checkpointing.fsspec_storage import FsspecStorage
from checkpointing.hashing import crc32c
from checkpointing.memory_storage import MemoryStorage
from checkpointing.storage import Storage, keeps_conditions, open_storage
from tests.s3_server import S3Server, s3_server

__all__ = ["s3_server"]

S3 = pytest.param("s3", marks=pytest.mark.integration)


@pytest.fixture(params=["memory", "file", "fsspec", S3])
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Storage:
    """A fresh, empty store of each kind."""
    if request.param == "memory":
        return MemoryStorage()
    if request.param == "file":
        return open_storage(f"file://{tmp_path}/store")
    if request.param == "fsspec":
        return open_storage(f"memory://{tmp_path}")
    server = request.getfixturevalue("s3_server")
    use(server, monkeypatch)
    return open_storage(f"s3://{server.bucket}/{tmp_path.name}")


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch, **changed: str) -> None:
    """Point boto3 at the server."""
    for name, value in {**server.environment(), **changed}.items():
        monkeypatch.setenv(name, value)


def test_what_was_put_is_got(storage: Storage) -> None:
    """Bytes come back as they were, whatever buffer they came in, and can be replaced."""
    storage.put("a/b", b"one", crc32c=crc32c(b"one"))
    storage.put("a/b", memoryview(bytearray(b"two")))
    storage.put("empty", b"")
    assert storage.get("a/b") == b"two"
    assert storage.get("empty") == b""


def test_a_large_object_survives_whole(storage: Storage) -> None:
    """Many times an HTTP client's block: nothing is lost or doubled at the seams."""
    data = bytes(range(256)) * 20_000 + b"end"
    storage.put("large", data, crc32c=crc32c(data))
    assert storage.get("large") == data


def test_a_range_is_cut_exactly(storage: Storage) -> None:
    """Ranges are exact inside, short at the end, empty past it."""
    storage.put("k", b"0123456789")
    assert storage.get_range("k", 2, 3) == b"234"
    assert storage.get_range("k", 8, 5) == b"89"
    assert storage.get_range("k", 10, 5) == b""
    assert storage.get_range("k", 3, 0) == b""


def test_a_range_lands_in_the_target(storage: Storage) -> None:
    """A range fills the caller's memory and touches no byte beside it; short only at the end."""
    storage.put("k", b"0123456789")
    held = bytearray(b"........")
    assert storage.get_into("k", memoryview(held)[2:5], start=3) == 3
    assert held == b"..345..."
    assert storage.get_into("k", memoryview(held)[4:], start=8) == 2
    assert held[:6] == b"..3489"
    assert storage.get_into("k", memoryview(held), start=10) == 0
    assert storage.get_into("k", memoryview(held), start=99) == 0
    assert storage.get_into("k", memoryview(held)[:0]) == 0


def test_a_large_object_lands_whole(storage: Storage) -> None:
    """Many times any block size, into memory of a wider type: nothing is lost at the seams."""
    data = bytes(range(256)) * 20_000
    storage.put("large", data)
    target = array("q", bytes(len(data)))
    assert storage.get_into("large", memoryview(target)) == len(data)
    assert target.tobytes() == data


def test_an_empty_object_fills_nothing(storage: Storage) -> None:
    """An object without bytes is there, and gives none."""
    storage.put("empty", b"")
    assert storage.get_into("empty", memoryview(bytearray(3))) == 0


def test_if_absent_stores_once(storage: Storage) -> None:
    """The second writer of a name is told so and changes nothing."""
    assert storage.put_if_absent("c", b"first")
    assert not storage.put_if_absent("c", b"second")
    assert storage.get("c") == b"first"


def test_if_absent_has_one_winner(storage: Storage) -> None:
    """Of many writers at the same time exactly one wins, and its bytes are there."""
    gate = threading.Barrier(8)

    def write(number: int) -> bool:
        gate.wait(10)
        return storage.put_if_absent("race", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert storage.get("race") == str(won.index(True)).encode()


def test_what_is_absent_is_named(storage: Storage) -> None:
    """Reading what is not there raises `MissingObject` with the name; deleting it does not."""
    target = memoryview(bytearray(1))
    for read in (
        storage.get,
        lambda key: storage.get_range(key, 0, 1),
        lambda key: storage.get_into(key, target),
    ):
        with pytest.raises(MissingObject, match="no/such"):
            read("no/such")
    assert not storage.exists("no/such")
    storage.delete("no/such")


def test_deleted_is_gone(storage: Storage) -> None:
    """After a delete the name is free again."""
    storage.put("d", b"x")
    assert storage.exists("d")
    storage.delete("d")
    assert not storage.exists("d")
    assert storage.put_if_absent("d", b"y")


def test_a_listing_is_complete_and_sorted(storage: Storage) -> None:
    """A prefix is plain text, not a folder; lengths and times are right."""
    for key in ("p/b", "p/a/1", "p/a/2", "pq", "z"):
        storage.put(key, key.encode())
    assert [item.key for item in storage.list("p/")] == ["p/a/1", "p/a/2", "p/b"]
    assert [item.key for item in storage.list("p/a/1")] == ["p/a/1"]
    assert [item.key for item in storage.list("p")] == ["p/a/1", "p/a/2", "p/b", "pq"]
    assert [item.length for item in storage.list("pq")] == [2]
    assert storage.list("p/")[0].modified_us > 1_500_000_000_000_000
    assert storage.list("nothing/") == ()


def test_abandoning_uploads_leaves_objects(storage: Storage) -> None:
    """A store without unfinished uploads has nothing to abort, and keeps what it holds."""
    storage.put("p/a", b"1")
    assert storage.abandon_uploads("p/", older_than_us=now_us() + 10**9) == 0
    assert storage.get("p/a") == b"1"


def test_the_probe_finds_conditions_kept(storage: Storage) -> None:
    """Each of our stores honours conditional writes, and the probe leaves nothing behind."""
    assert keeps_conditions(storage, probe_key="probes/1")
    assert storage.list("probes/") == ()


def test_the_probe_finds_conditions_ignored() -> None:
    """A store that overwrites in spite of the condition is found out."""

    class Careless(MemoryStorage):
        def put_if_absent(self, key: str, data: Buffer) -> bool:
            self.put(key, data)
            return True

    assert not keeps_conditions(Careless(), probe_key="probes/1")


def test_a_file_store_leaves_no_temporary_files(tmp_path: Path) -> None:
    """Neither a win nor a loss leaves anything but the objects."""
    store = FileStorage(tmp_path)
    store.put("a", b"1")
    store.put_if_absent("b", b"2")
    store.put_if_absent("b", b"3")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a", "b"]


def test_a_full_disk_is_explained_and_not_kept_full(tmp_path: Path) -> None:
    """A write that does not fit says so, and gives back what it had taken."""
    store = FileStorage(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(StorageError) as caught:
            store.put("large", bytes(2**21))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, heard)
    assert caught.value.code == "storage-full"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_strays_of_dead_writers_are_dropped(tmp_path: Path) -> None:
    """An old temporary file goes when the store is opened; a young one may have a living writer."""
    FileStorage(tmp_path)
    for name, age_s in (("old", 7200), ("young", 60)):
        stray = tmp_path / ".tmp" / name
        stray.write_bytes(b"half")
        written_s = now_us() / 1e6 - age_s
        os.utime(stray, (written_s, written_s))
    assert FileStorage(tmp_path).list("") == ()
    assert [path.name for path in (tmp_path / ".tmp").iterdir()] == ["young"]


def test_an_unusable_folder_is_explained(tmp_path: Path) -> None:
    """A file where the folder should be gives cause and remedy, not a traceback."""
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be used") as caught:
        open_storage(str(tmp_path / "taken"))
    assert caught.value.code == "storage-failed"


@pytest.mark.parametrize("uri", ["", "nowhere://bucket/x", "http://host/x", "gs://bucket/x"])
def test_an_unknown_place_is_explained(uri: str) -> None:
    """No such scheme, one that only reads, one without its driver: each says what there is."""
    if uri.startswith("gs:") and importlib.util.find_spec("gcsfs"):
        pytest.skip("the driver is installed here")
    with pytest.raises(StorageError, match="s3://BUCKET") as caught:
        open_storage(uri)
    assert caught.value.code == "storage-uri"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("changed", "bucket", "code"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, None, "storage-credentials"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, None, "storage-credentials"),
        ({}, "no-such-bucket", "storage-bucket-missing"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, None, "storage-unreachable"),
    ],
)
def test_a_bad_s3_set_up_is_explained(
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, str],
    bucket: str | None,
    code: str,
) -> None:
    """Wrong credentials, no bucket, no server: each has its code, its cause and its remedy."""
    use(s3_server, monkeypatch, **changed)
    with pytest.raises(StorageError) as caught:
        open_storage(f"s3://{bucket or s3_server.bucket}/x")
    assert caught.value.code == code
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.integration
def test_s3_verifies_the_checksum(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that do not match their CRC32C are refused by the store, and nothing is stored."""
    use(s3_server, monkeypatch)
    storage = open_storage(f"s3://{s3_server.bucket}/checked")
    with pytest.raises(StorageError):
        storage.put("bad", b"hello", crc32c=0)
    assert not storage.exists("bad")


@pytest.mark.integration
def test_old_unfinished_uploads_are_aborted(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those under our prefix, and only those that began before the given instant."""
    use(s3_server, monkeypatch)
    storage = open_storage(f"s3://{s3_server.bucket}/ours")
    client = boto3.session.Session().client("s3")
    for key in ("ours/p/a", "ours/p/b", "ours/q", "theirs/p/a"):
        client.create_multipart_upload(Bucket=s3_server.bucket, Key=key)
    hour_us = 3_600_000_000
    assert storage.abandon_uploads("p/", older_than_us=now_us() - hour_us) == 0
    assert storage.abandon_uploads("p/", older_than_us=now_us() + hour_us) == 2
    left = client.list_multipart_uploads(Bucket=s3_server.bucket)["Uploads"]
    assert sorted(item["Key"] for item in left) == ["ours/q", "theirs/p/a"]


def test_memory_is_shared_in_a_process(tmp_path: Path) -> None:
    """Whoever opens the same `memory://` URI sees the same objects; another URI, others."""
    open_storage(f"memory://{tmp_path}").put("k", b"x")
    assert open_storage(f"memory://{tmp_path}").get("k") == b"x"
    assert open_storage("memory://elsewhere").list("") == ()


def test_memory_creates_once(tmp_path: Path) -> None:
    """In fsspec's memory "create" is a look and then a write; our lock makes it one."""
    storage = open_storage(f"memory://{tmp_path}")
    names = [f"k{number}" for number in range(300)]
    gate = threading.Barrier(4)

    def write(_: int) -> int:
        won = 0
        for name in names:
            gate.wait(10)
            won += storage.put_if_absent(name, b"x")
        return won

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads meet at every bytecode that they can
    try:
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(write, range(4))) == len(names)
    finally:
        sys.setswitchinterval(interval_s)


def test_a_plain_fsspec_file_system_has_no_conditions(tmp_path: Path) -> None:
    """A driver whose "create" is a look and then a write is not trusted with commits."""
    storage = open_storage(f"local://{tmp_path}/store")
    assert not keeps_conditions(storage, probe_key="probes/1")
    storage.put("a/b", b"1")
    storage.put("a/b", b"2")
    assert storage.get("a/b") == b"2"
    assert [item.key for item in storage.list("")] == ["a/b"]
    assert storage.list("")[0].modified_us > 1_500_000_000_000_000


def test_a_driver_s_own_errors_are_explained(tmp_path: Path) -> None:
    """Whatever a driver raises comes out as a `StorageError` with its words."""

    class Broken:
        def cat_file(self, path: str) -> bytes:
            raise LookupError("the moon is full")

    storage = FsspecStorage(Broken(), root="r", uri="odd://r", scheme="odd")
    with pytest.raises(StorageError, match="the moon is full") as caught:
        storage.get("k")
    assert caught.value.code == "storage-failed"


@pytest.mark.parametrize(
    ("told", "modified_us"),
    [
        ({"mtime": 1.5}, 1_500_000),
        ({"LastModified": datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)}, 2_000_000),
        ({"created": datetime(1970, 1, 1, 0, 0, 3)}, 3_000_000),  # noqa: DTZ001 - some drivers do
        ({"updated": "1970-01-01T00:00:04Z"}, 4_000_000),
    ],
)
def test_drivers_tell_times_in_many_ways(told: dict[str, object], modified_us: int) -> None:
    """Each is read as UTC; retention depends on it."""

    class Telling:
        def invalidate_cache(self) -> None:
            """Nothing is kept."""

        def find(self, folder: str, *, detail: bool) -> dict[str, dict[str, object]]:
            return {f"{folder}/k": {"size": 1, **told}}

    storage = FsspecStorage(Telling(), root="r", uri="odd://r", scheme="odd")
    assert [item.modified_us for item in storage.list("")] == [modified_us]
