"""S3 storage against a server that misbehaves as scripted: what is tried again, what is told."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import (
    CredentialRetrievalError,
    NoRegionError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from benchmarks.null_s3 import null_s3
from checkpointing.errors import MissingObject, StorageError
from checkpointing.object_storage import ObjectStorage
from checkpointing.object_storage_patience import Patience, Tries
from checkpointing.object_storage_trouble import Kind, Refused, trouble_of
from checkpointing.storage import keeps_conditions
from tests.scripted_s3 import Say, ScriptedS3, scripted_s3

QUICK = Patience(
    connect_s=2.0, stall_s=0.5, attempts=4, total_s=20.0, first_wait_s=0.001, longest_wait_s=0.002
)
BODY = bytes(range(256)) * 8192
RANGE = {"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"}
FETCHED = Say(206, body=BODY, headers=RANGE)
HALF = Say(206, body=BODY[: len(BODY) // 2], headers=RANGE, claims_bytes=len(BODY))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedS3]:
    """A scripted server that our storage is led to."""
    with scripted_s3() as found:
        lead(found, monkeypatch)
        yield found


@pytest.fixture
def storage(server: ScriptedS3) -> ObjectStorage:
    """Our storage, with little patience."""
    return ObjectStorage("bucket", prefix="here", patience=QUICK)


def lead(server: ScriptedS3, monkeypatch: pytest.MonkeyPatch, **changed: str) -> None:
    """Point botocore at the server."""
    known = {
        "AWS_ENDPOINT_URL": server.endpoint_url,
        "AWS_ACCESS_KEY_ID": "first",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in {**known, **changed}.items():
        monkeypatch.setenv(name, value)


def fetched(storage: ObjectStorage) -> bytes:
    """Read the object into memory of our own, from its start."""
    target = bytearray(len(BODY))
    count = storage.get_into("k", memoryview(target))
    return bytes(target[:count])


PASSING = [
    Say(500, "InternalError"),
    Say(503, "SlowDown"),
    Say(429, "TooManyRequests"),
    Say(400, "RequestTimeout"),
    Say(502),
    Say(silent=True),
]


@pytest.mark.parametrize("trouble", PASSING)
def test_what_can_pass_is_tried_again(
    server: ScriptedS3, storage: ObjectStorage, trouble: Say
) -> None:
    """A write meets each trouble twice; it gets through, whole, over fresh connections."""
    server.will(trouble, trouble)
    storage.put("k", BODY)
    assert [asked.body for asked in server.asked] == [BODY] * 3
    assert len({asked.connection for asked in server.asked}) == 3


@pytest.mark.parametrize(
    "trouble",
    [
        *PASSING,
        HALF,
        Say(206, claims_bytes=9, stalls=True),
        Say(206, claims_bytes=9**6, drips=True),
    ],
)
def test_a_read_is_never_short_by_trouble(
    server: ScriptedS3, storage: ObjectStorage, trouble: Say
) -> None:
    """Half bodies, silence and dripping count as failures; the next try fills the target."""
    server.will(trouble, FETCHED)
    assert fetched(storage) == BODY
    assert len({asked.connection for asked in server.asked}) == 2


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (Say(503, "SlowDown"), "storage-refused"),
        (Say(silent=True), "storage-unreachable"),
        (HALF, "storage-unreachable"),
    ],
)
def test_patience_ends(server: ScriptedS3, storage: ObjectStorage, trouble: Say, code: str) -> None:
    """After the allowed number of tries the trouble is told, with its code."""
    server.will(*[trouble] * 9)
    with pytest.raises(StorageError) as caught:
        fetched(storage)
    assert caught.value.code == code
    assert len(server.asked) == QUICK.attempts


def test_total_time_is_bounded(server: ScriptedS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that would end too late is not begun."""
    storage = ObjectStorage("bucket", prefix="", patience=Patience(total_s=0.0))
    with pytest.raises(StorageError) as caught:
        storage.put("k", b"x")
    assert caught.value.code == "storage-unreachable"
    assert server.asked == []


def test_waits_are_jittered_and_bounded() -> None:
    """Every wait lies between nothing and a limit that doubles up to the longest."""
    patience = Patience(first_wait_s=1.0, longest_wait_s=4.0)
    for failed, limit_s in ((1, 1.0), (2, 2.0), (3, 4.0), (9, 4.0)):
        waits = [patience.wait_s(failed) for _ in range(200)]
        assert 0.0 <= min(waits) < limit_s / 4
        assert limit_s * 3 / 4 < max(waits) <= limit_s


def test_a_large_body_has_time_to_move() -> None:
    """The slower limit is a rate: no body is too large for it, and none waits for ever."""
    for length_bytes in (2**20, 2**30, 2**40):
        tries = Tries(Patience(stall_s=10**9), length_bytes=length_bytes)
        assert tries.timer().left_s() > length_bytes / Patience().slowest_bytes_per_s
    assert Tries(Patience(stall_s=10**9)).timer().left_s() <= Patience().total_s


def test_damage_is_not_tried_for_long() -> None:
    """A body that arrives damaged again and again is damaged here."""
    tries = Tries(QUICK)
    assert [tries.again(damaged=True) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(("theirs", "ours"), [(b"mine", True), (b"someone else's", False)])
def test_a_lost_answer_is_told_from_another_writer(
    server: ScriptedS3, storage: ObjectStorage, theirs: bytes, ours: bool
) -> None:
    """The write took effect or another's did, the answer is lost, the retry meets a 412."""
    server.will(Say(silent=True), Say(412, "PreconditionFailed"), Say(body=theirs))
    assert storage.put_if_absent("k", b"mine") is ours
    assert [asked.method for asked in server.asked] == ["PUT", "PUT", "GET"]


def test_a_taken_name_is_taken(server: ScriptedS3, storage: ObjectStorage) -> None:
    """A 412 to the first try is final, whatever the other object holds."""
    server.will(Say(412, "PreconditionFailed"))
    assert not storage.put_if_absent("k", b"mine")
    assert [asked.headers.get("if-none-match") for asked in server.asked] == ["*"]


def test_a_name_that_is_gone_after_a_lost_answer_is_not_ours(
    server: ScriptedS3, storage: ObjectStorage
) -> None:
    """Whoever took it has deleted it: we did not add it."""
    server.will(Say(silent=True), Say(412, "PreconditionFailed"), Say(404, "NoSuchKey"))
    assert not storage.put_if_absent("k", b"mine")


def test_a_conflict_is_looked_at_again(server: ScriptedS3, storage: ObjectStorage) -> None:
    """S3 answers 409 while another conditional write of the name is under way."""
    server.will(Say(409, "ConditionalRequestConflict"), Say(412, "PreconditionFailed"), Say(404))
    assert not storage.put_if_absent("k", b"mine")
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "answers",
    [
        [Say(501, "NotImplemented")],
        [Say(400, "InvalidArgument")],
        [Say(), Say(), Say(body=b"second"), Say(204)],
    ],
)
def test_a_store_without_conditions_is_found_out(
    server: ScriptedS3, storage: ObjectStorage, answers: list[Say]
) -> None:
    """Whether it says that it has none, refuses the header, or ignores it."""
    server.will(*answers)
    assert not keeps_conditions(storage, probe_key="probe")


def test_the_probe_tells_other_troubles(server: ScriptedS3, storage: ObjectStorage) -> None:
    """A store that does not let us in is not one without conditions."""
    server.will(*[Say(403, "AccessDenied")] * 2)
    with pytest.raises(StorageError) as caught:
        keeps_conditions(storage, probe_key="probe")
    assert caught.value.code == "storage-credentials"


def credentials_in_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lead botocore to a credentials file, as a role's agent keeps one up to date."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    path = folder / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    write_credentials(path, "old")
    return path


def write_credentials(path: Path, name: str) -> None:
    """Write a profile."""
    lines = f"[default]\naws_access_key_id = {name}\naws_secret_access_key = s\n"
    path.write_text(lines, encoding="ascii")


def test_expired_credentials_are_looked_up_anew(
    server: ScriptedS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They expire in mid-upload, the file on disk has new ones: the same call goes through."""
    path = credentials_in_a_file(tmp_path, monkeypatch)
    storage = ObjectStorage("bucket", prefix="", patience=QUICK)
    storage.put("a", BODY)
    server.will(Say(400, "ExpiredToken", action=lambda: write_credentials(path, "new")))
    storage.put("b", BODY)
    used = ["old" if "Credential=old" in asked.target else "new" for asked in server.asked]
    assert used == ["old", "old", "new"]
    assert server.asked[-1].body == BODY


@pytest.mark.parametrize("code", ["ExpiredToken", "AccessDenied", "InvalidAccessKeyId"])
def test_credentials_without_a_better_one_are_told(
    server: ScriptedS3, storage: ObjectStorage, code: str
) -> None:
    """One fresh look, one more try, then a clear error."""
    server.will(*[Say(403, code)] * 9)
    with pytest.raises(StorageError, match=code) as caught:
        storage.put("k", b"x")
    assert caught.value.code == "storage-credentials"
    assert len(server.asked) == 2


def test_no_credentials_at_all_are_told(
    server: ScriptedS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent unsigned."""
    credentials_in_a_file(tmp_path, monkeypatch).unlink()
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    storage = ObjectStorage("bucket", prefix="", patience=QUICK)
    for ask in (lambda: storage.put("k", b"x"), lambda: storage.list("")):
        with pytest.raises(StorageError) as caught:
            ask()
        assert caught.value.code == "storage-credentials"
    assert server.asked == []


def test_credentials_that_cannot_be_read_are_told(
    server: ScriptedS3, storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The profile is gone when we look again: the first refusal is what the user hears."""
    server.will(
        Say(403, "ExpiredToken", action=lambda: monkeypatch.setenv("AWS_PROFILE", "nobody"))
    )
    with pytest.raises(StorageError, match="ExpiredToken") as caught:
        storage.put("k", b"x")
    assert caught.value.code == "storage-credentials"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UnauthorizedSSOTokenError(), Kind.CREDENTIALS),
        (TokenRetrievalError(provider="p", error_msg="gone"), Kind.CREDENTIALS),
        (CredentialRetrievalError(provider="p", error_msg="gone"), Kind.CREDENTIALS),
        (Refused(507, code="OutOfSpace"), Kind.BUSY),
        (Refused(418, code="Teapot"), Kind.REFUSED),
        (Refused(404, code="NoSuchBucket"), Kind.BUCKET),
        (NoRegionError(), Kind.BROKEN),
    ],
)
def test_every_failure_has_its_kind(error: Exception, kind: Kind) -> None:
    """What the other tests do not meet: log-ins, odd statuses, words that beat a status."""
    assert trouble_of(error).kind is kind


def test_a_refusal_in_mid_upload_is_heard(server: ScriptedS3, storage: ObjectStorage) -> None:
    """The store refuses and hangs up before it has read the body: the words beat the reset."""
    server.will(*[Say(403, "AccessDenied", deaf=True)] * 2)
    with pytest.raises(StorageError) as caught:
        storage.put("k", bytes(64 * 2**20))
    assert caught.value.code == "storage-credentials"


def test_a_store_that_ignores_ranges(server: ScriptedS3, storage: ObjectStorage) -> None:
    """From the start its whole object serves; from elsewhere no wrong byte is passed on."""
    target = bytearray(4)
    server.will(Say(body=b"0123456789"))
    assert storage.get_into("k", memoryview(target)) == 4
    assert target == b"0123"
    server.will(*[Say(body=b"0123456789")] * 9)
    with pytest.raises(StorageError):
        storage.get_into("k", memoryview(target), start=4)


def test_what_is_absent_is_not_tried_again(server: ScriptedS3, storage: ObjectStorage) -> None:
    """A 404 is an answer."""
    server.will(Say(404, "NoSuchKey"))
    with pytest.raises(MissingObject):
        fetched(storage)
    assert len(server.asked) == 1


def test_connections_are_reused(server: ScriptedS3, storage: ObjectStorage) -> None:
    """Writes and reads without trouble share one connection, also after one read a part."""
    for _ in range(3):
        storage.put("k", BODY)
        server.will(FETCHED)
        assert fetched(storage) == BODY
    assert {asked.connection for asked in server.asked} == {1}


def test_after_trouble_no_idle_connection_is_trusted(
    server: ScriptedS3, storage: ObjectStorage
) -> None:
    """Two connections are idle, one meets trouble: the other may be dead the same way."""
    gate = threading.Barrier(2)
    meet = Say(action=lambda: gate.wait(10))
    server.will(meet, meet)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda key: storage.put(key, b"x"), ("a", "b")))
    server.will(Say(503, "SlowDown"))
    storage.put("c", b"x")
    assert [asked.connection in {1, 2} for asked in server.asked[2:]] == [True, False]


def test_no_signer_reads_a_body(server: ScriptedS3, storage: ObjectStorage) -> None:
    """Over http too: the signature covers the checksum's header, the checksum the body."""
    storage.put("k", b"hello", crc32c=0x9A71BB4C)
    asked = server.asked[0]
    assert "X-Amz-SignedHeaders=host%3Bx-amz-checksum-crc32c" in asked.target
    assert asked.headers["x-amz-checksum-crc32c"] == "mnG7TA=="
    assert "x-amz-content-sha256" not in asked.headers


def test_bodies_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sending and receiving 32 MiB takes next to no memory of its own."""
    body = memoryview(bytearray(32 * 2**20))
    with null_s3() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        storage = ObjectStorage(server.bucket, prefix="", patience=QUICK)
        storage.put("warm", b"")
        tracemalloc.start()
        try:
            storage.put("k", body)
            assert storage.get_into("k", body) == body.nbytes
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 2**20


def test_a_proxy_is_used(
    server: ScriptedS3, storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`HTTP_PROXY` holds as for any client; it sees the whole URL and its password."""
    address = server.endpoint_url.removeprefix("http://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.invalid")
    monkeypatch.setenv("http_proxy", f"http://me:word@{address}")
    storage = ObjectStorage("bucket", prefix="", patience=QUICK)
    storage.put("k", b"x")
    assert server.asked[0].target.startswith("http://store.invalid/bucket/k?")
    assert server.asked[0].headers["host"] == "store.invalid"
    assert server.asked[0].headers["proxy-authorization"].startswith("Basic ")
