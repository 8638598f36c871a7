"""Code archives on a node: verified, cached, and harmless to unpack."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from checkpointing.errors import MissingObject
from cluster.attempt_worker_code import CodeError, code_key, fetch, unpack_code
from jobs.spec import JobSpec


def packed(**members: str) -> bytes:
    """An archive of these files; ``->`` makes a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("UP", ".."))
            if text.startswith("->"):
                member.type, member.linkname = tarfile.SYMTYPE, text[2:]
                tar.addfile(member)
            else:
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def stored(data: bytes, *, storage: Path, digest: str = "") -> str:
    """Put an archive into the store; give its digest."""
    digest = digest or hashlib.sha256(data).hexdigest()
    path = storage / code_key(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return digest


def unpack(code: str, *, folder: Path, script: str = "train.py") -> Path:
    """Unpack for an attempt."""
    spec = JobSpec(script=script, code=code)
    return unpack_code(
        spec, storage=str(folder / "store"), cache=folder / "cache", into=folder / "work"
    )


def test_code_is_unpacked_and_served_from_the_cache_afterwards(tmp_path: Path) -> None:
    """The second attempt on a node needs no store."""
    data = packed(**{"train.py": "1", "lib__util.py": "2"})
    digest = stored(data, storage=tmp_path / "store")
    work = unpack(digest, folder=tmp_path)
    assert (work / "lib" / "util.py").read_text() == "2"
    (tmp_path / "store" / code_key(digest)).unlink()
    assert fetch(digest, storage=str(tmp_path / "store"), cache=tmp_path / "cache").is_file()


def test_an_archive_that_is_not_what_was_submitted_is_refused(tmp_path: Path) -> None:
    """The digest is checked, and nothing wrong stays in the cache."""
    digest = stored(packed(**{"train.py": "evil"}), storage=tmp_path / "store", digest="0" * 64)
    with pytest.raises(CodeError, match="not what was submitted"):
        unpack(digest, folder=tmp_path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "members",
    [
        {"UP__outside.py": "x"},
        {"__absolute.py": "x", "UP__UP__far.py": "x"},
        {"link": "->/etc/passwd"},
        {"link": "->../../up"},
    ],
)
def test_a_hostile_archive_writes_nothing_outside(tmp_path: Path, members: dict[str, str]) -> None:
    """Members and links that leave the folder are refused."""
    digest = stored(packed(**members), storage=tmp_path / "store")
    with pytest.raises(CodeError, match="cannot be unpacked"):
        unpack(digest, folder=tmp_path)
    assert not (tmp_path / "outside.py").exists()
    assert not (tmp_path.parent / "far.py").exists()


def test_a_broken_archive_and_a_missing_script_say_what_to_do(tmp_path: Path) -> None:
    """Cause and remedy, never a traceback."""
    torn = stored(packed(**{"train.py": "1" * 9_999})[:-20], storage=tmp_path / "store")
    with pytest.raises(CodeError, match="cannot be unpacked"):
        unpack(torn, folder=tmp_path)
    other = tmp_path / "other"
    digest = stored(packed(**{"other.py": "1"}), storage=other / "store")
    with pytest.raises(CodeError, match=r"no file 'train.py'"):
        unpack(digest, folder=other)


def test_an_archive_that_is_not_there_is_the_stores_trouble(tmp_path: Path) -> None:
    """The error of the storage comes through."""
    with pytest.raises(MissingObject):
        unpack("1" * 64, folder=tmp_path)
