"""Signed commits: whoever can write to the store still cannot make us load what he wants."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from checkpointing.archive import open_archive
from checkpointing.commit import CLAIM, COMMIT, CommitRecord, decode_record, encode_record
from checkpointing.commit_log import CommitLog
from checkpointing.environment import KeySources
from checkpointing.errors import CheckpointError
from checkpointing.identity import Identity
from checkpointing.keyring import NO_KEYS, Keyring, environment_keyring
from checkpointing.keys import commit_key
from checkpointing.memory_storage import MemoryStorage


def private_pem(
    key: Ed25519PrivateKey | X25519PrivateKey,
    encryption: KeySerializationEncryption | None = None,
) -> str:
    """The private key as PEM text."""
    kind = encryption or NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, kind).decode()


def public_pem(key: Ed25519PrivateKey | X25519PrivateKey) -> str:
    """The public key as PEM text."""
    public = key.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


OURS, OLD, THEIRS = (Ed25519PrivateKey.generate() for _ in range(3))


def keyring(signing: Ed25519PrivateKey | None, *trusted: Ed25519PrivateKey) -> Keyring:
    """The keys as the environment would name them."""
    texts = "\n".join(public_pem(key) for key in trusted)
    return environment_keyring(KeySources(private_pem(signing) if signing else "", texts))


def draft(step: int, *, epoch: int = 1, kind: str = COMMIT) -> CommitRecord:
    """A record that has no number yet."""
    return CommitRecord(kind, epoch, "a", 1, at_us=0, step=step, manifest=f"m{step}")


def log(storage: MemoryStorage, keys: Keyring, *, job: str = "j") -> CommitLog:
    """A log, read with these keys."""
    return CommitLog(storage, job_id=job, keyring=keys)


def test_a_signed_commit_is_accepted() -> None:
    """With the key, with several keys, and by readers that have none."""
    storage = MemoryStorage()
    log(storage, keyring(OURS, OURS)).append(draft(10))
    for keys in (keyring(OURS, OURS), keyring(None, OLD, OURS), NO_KEYS):
        history = log(storage, keys).history()
        assert [record.step for record in history.commits] == [10]
        assert history.skipped == ()


def test_what_is_not_ours_is_skipped_and_named() -> None:
    """Unsigned and foreign records do not count; the older verified one does."""
    storage = MemoryStorage()
    log(storage, keyring(OURS)).append(draft(10))
    log(storage, NO_KEYS).append(draft(20))
    log(storage, keyring(THEIRS)).append(draft(30))
    history = log(storage, keyring(OURS, OURS)).history()
    assert [record.step for record in history.commits] == [10]
    assert [record.step for record in history.untrusted] == [20, 30]
    assert "Record 2 is refused: it is not signed" in history.skipped[0]
    assert "not among our verify keys" in history.skipped[1]


@pytest.mark.parametrize(
    "change", [{"step": 11}, {"manifest": "m"}, {"manifest_blake3": "ff"}, {"epoch": 9}]
)
def test_an_altered_record_is_refused(change: dict) -> None:
    """Every field is covered: a correct hash over changed content is not enough."""
    storage = MemoryStorage()
    record = log(storage, keyring(OURS)).append(draft(10))
    storage.put(commit_key("j", 1), encode_record(replace(record, **change)))
    history = log(storage, keyring(OURS, OURS)).history()
    assert history.commits == ()
    assert "its signature is not that of the key" in history.skipped[0]


def test_a_signed_record_means_nothing_elsewhere() -> None:
    """Copied to another number (a replay) or into another job's log, it is refused."""
    storage = MemoryStorage()
    log(storage, keyring(OURS)).append(draft(10))
    log(storage, keyring(OURS)).append(draft(20))
    data = storage.get(commit_key("j", 1))
    storage.put(commit_key("j", 3), data)
    storage.put(commit_key("other", 1), data)
    history = log(storage, keyring(OURS, OURS)).history()
    assert [record.step for record in history.commits] == [20, 10]
    assert "it is record 1 of job j" in history.skipped[0]
    assert log(storage, NO_KEYS, job="other").history().commits == ()


def test_an_unsigned_claim_fences_nobody() -> None:
    """Claims are signed too: a stranger cannot stop a training."""
    storage = MemoryStorage()
    log(storage, NO_KEYS).append(draft(0, epoch=99, kind=CLAIM))
    added = log(storage, keyring(OURS, OURS)).append(draft(10))
    assert added.seq == 2
    assert [record.step for record in log(storage, keyring(None, OURS)).history().commits] == [10]


def test_keys_rotate() -> None:
    """The new key signs, both are trusted, old commits stay good until the old key is dropped."""
    storage = MemoryStorage()
    log(storage, keyring(OLD, OLD)).append(draft(10))
    log(storage, keyring(OURS, OLD, OURS)).append(draft(20))
    both, new = keyring(None, OLD, OURS), keyring(None, OURS)
    assert [record.step for record in log(storage, both).history().commits] == [20, 10]
    assert [record.step for record in log(storage, new).history().commits] == [20]


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        (lambda: keyring(None, OURS), "signing-key-missing"),
        (lambda: keyring(THEIRS, OURS), "signing-key-untrusted"),
    ],
)
def test_a_writer_that_nobody_would_believe_is_told(keys: object, code: str) -> None:
    """Before it writes anything: its commits would be lost for everybody, itself included."""
    storage = MemoryStorage()
    with pytest.raises(CheckpointError) as caught:
        log(storage, keys()).append(draft(10))  # type: ignore[operator]
    assert caught.value.code == code
    assert storage.list("") == ()


def test_keys_come_as_files_folders_and_text(tmp_path: Path) -> None:
    """A PEM file signs; a folder and a file, joined by a colon, verify."""
    folder = tmp_path / "verify"
    folder.mkdir()
    (folder / "old.pem").write_text(public_pem(OLD))
    (tmp_path / "ours.pem").write_text(public_pem(OURS))
    (tmp_path / "signing.pem").write_text(private_pem(OURS))
    verify = f"{folder}:{tmp_path / 'ours.pem'}"
    found = environment_keyring(KeySources(str(tmp_path / "signing.pem"), verify))
    assert len(found.trusted) == 2
    assert found.signer is not None
    assert found.signer.key_id in found.trusted


@pytest.mark.parametrize(
    ("signing", "verify", "code", "told"),
    [
        ("nowhere.pem", "", "signing-key-unreadable", "nowhere.pem of LOWTIDE_SIGNING_KEY"),
        ("", "nowhere", "signing-key-unreadable", "LOWTIDE_VERIFY_KEYS"),
        ("", "empty", "signing-key-unreadable", "no [*].pem file"),
        ("junk.pem", "", "signing-key-invalid", "junk.pem of LOWTIDE_SIGNING_KEY"),
        ("locked.pem", "", "signing-key-invalid", "unencrypted"),
        ("x25519.pem", "", "signing-key-invalid", "Ed25519"),
        ("", "x25519-public.pem", "signing-key-invalid", "Ed25519"),
        ("", "ours.pem", "signing-key-invalid", "public key"),
        ("public.pem", "", "signing-key-invalid", "private key"),
    ],
)
def test_a_bad_key_is_named_and_never_shown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signing: str,
    verify: str,
    code: str,
    told: str,
) -> None:
    """Missing, empty, not PEM, encrypted, another algorithm, the wrong half."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    Path("junk.pem").write_text("-----BEGIN JUNK-----\nzzz\n-----END JUNK-----\n")
    Path("locked.pem").write_text(private_pem(OURS, BestAvailableEncryption(b"x")))
    other = X25519PrivateKey.generate()
    Path("x25519.pem").write_text(private_pem(other))
    Path("x25519-public.pem").write_text(public_pem(other))
    Path("ours.pem").write_text(private_pem(OURS))
    Path("public.pem").write_text(public_pem(OURS))
    with pytest.raises(CheckpointError, match=told) as caught:
        environment_keyring(KeySources(signing, verify))
    assert caught.value.code == code
    assert "BEGIN" not in str(caught.value)


def test_an_archive_uses_the_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a session writes is signed, its claim included, and another reader verifies it."""
    monkeypatch.setenv("LOWTIDE_SIGNING_KEY", private_pem(OURS))
    monkeypatch.setenv("LOWTIDE_VERIFY_KEYS", public_pem(OURS))
    storage = MemoryStorage()
    open_archive(storage, Identity("j", "a", 1, 1)).claim()
    record = decode_record(storage.get(commit_key("j", 1)), key="k")
    assert keyring(None, OURS).doubt(record) is None


def test_without_keys_no_cryptography_is_imported() -> None:
    """The common case costs nothing."""
    code = (
        "import sys; from checkpointing.keyring import environment_keyring as load; load();"
        "assert 'cryptography' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={})
