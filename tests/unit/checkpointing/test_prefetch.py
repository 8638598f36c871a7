"""Prefetch: the same bytes sooner, never other ones, and nothing is left behind."""

from __future__ import annotations

import fcntl
import subprocess
import threading
from pathlib import Path

import pytest

from checkpointing.commit_log import CommitLog
from checkpointing.digest import digest_state
from checkpointing.file_storage import FileStorage
from checkpointing.prefetch import PrefetchedStorage, PrefetchOrder, command, fetch, prefetched
from checkpointing.restore import load_commit, state_fields
from tests.unit.checkpointing.training import train


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a commit of a real training."""
    train(tmp_path / "store", steps=4)
    return tmp_path / "store"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where files are brought to."""
    made = tmp_path / "brought"
    (made / "0").mkdir(parents=True)
    return made


def order(
    store: Path, folder: Path, *, ranks: tuple[int, ...] = (0,), limit: int = 1 << 30
) -> PrefetchOrder:
    """An order for ranks of a training of one."""
    return PrefetchOrder(str(store), "local", ranks, 1, str(folder), limit)


def loaded(store: Path, folder: Path) -> tuple[str, int]:
    """Load the newest commit; give its digest and how much of it had been brought."""
    storage = PrefetchedStorage(FileStorage(store), folder / "0")
    record = CommitLog(storage, job_id="local").history().commits[0]
    state = state_fields(load_commit(storage, record).shared)
    return digest_state(state), storage.hits


def files(folder: Path) -> list[Path]:
    """What waits to be used or is half there."""
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".mine"]


def test_a_restore_reads_what_was_brought_and_uses_it_up(store: Path, folder: Path) -> None:
    """All of it comes from the folder, with the same bytes, and the folder is empty then."""
    plain, none = loaded(store, folder)
    assert none == 0
    for marker in (folder / "0").iterdir():
        marker.unlink()
    assert fetch(order(store, folder), storage=FileStorage(store)) > 0
    brought = len(files(folder))
    assert brought >= 2  # the manifest and its chunks
    assert loaded(store, folder) == (plain, brought)
    assert not files(folder)


def test_it_runs_as_a_process_without_torch(store: Path, folder: Path) -> None:
    """The command works from a folder whose modules have the names of ours."""
    (folder / "checkpointing").mkdir()
    (folder / "json.py").write_text("raise SystemExit(3)")
    subprocess.run(command(order(store, folder)), cwd=folder, check=True, timeout=50)
    assert len(files(folder / "0")) >= 2
    probe = "import sys, checkpointing.prefetch; sys.exit('torch' in sys.modules)"
    subprocess.run([*command(order(store, folder))[:1], "-c", probe], check=True, timeout=50)


def test_harmed_files_do_no_harm(store: Path, folder: Path) -> None:
    """Flipped, cut and empty files are found out by the loader, which asks the store."""
    plain, _ = loaded(store, folder)
    for harm in (lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data[:-1], bytes):
        for marker in (folder / "0").iterdir():
            marker.unlink()
        fetch(order(store, folder), storage=FileStorage(store))
        for path in files(folder):
            data = path.read_bytes()
            path.write_bytes(harm(data) if harm is not bytes else b"")
        assert loaded(store, folder)[0] == plain


def test_no_more_is_brought_than_there_is_room_for(store: Path, folder: Path) -> None:
    """Without room only the manifest comes; the restore is as right as ever."""
    assert fetch(order(store, folder, limit=0), storage=FileStorage(store)) == 0
    assert loaded(store, folder) == (loaded(store, folder)[0], 1)


def test_each_rank_of_a_node_has_files_of_its_own(store: Path, folder: Path) -> None:
    """What one rank used up is still there for the other, and was downloaded once."""
    shared = PrefetchOrder(str(store), "local", (0, 1), 2, str(folder), 1 << 30)
    fetch(shared, storage=FileStorage(store))
    first = files(folder / "0")
    assert [path.stat().st_nlink for path in first] == [2] * len(first)
    loaded(store, folder)
    assert {path.name for path in files(folder / "1")} == {path.name for path in first}


def test_a_rank_waits_for_a_download_but_not_for_a_dead_one(store: Path, folder: Path) -> None:
    """A locked part is waited for; one that nobody holds is not."""
    fetch(order(store, folder), storage=FileStorage(store))
    (chunk, *_) = (path for path in files(folder) if path.suffix != ".json")
    data, key = chunk.read_bytes(), f"chunks/{chunk.name[:2]}/{chunk.name}"
    chunk.unlink()
    storage = PrefetchedStorage(FileStorage(store), folder / "0")
    part = folder / f"{chunk.name}.part"
    with part.open("wb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(storage.get(key)))
        reader.start()
        while not (folder / "0" / f"{chunk.name}.mine").exists():
            threading.Event().wait(0.005)
        assert not found
        chunk.write_bytes(data)
        part.unlink()
    reader.join(20)
    assert (found, storage.hits) == ([data], 1)
    part.write_bytes(data[:3])  # its writer died
    assert storage.get(key) == data
    assert storage.hits == 1


def test_what_a_rank_fetches_itself_is_not_brought(store: Path, folder: Path) -> None:
    """No byte comes twice once the training has overtaken the prefetch."""
    loaded(store, folder)  # leaves its marks: nothing had been brought
    assert fetch(order(store, folder), storage=FileStorage(store)) == 0
    assert [path.suffix for path in files(folder)] == [".json"]


def test_without_a_folder_the_store_stays_itself(store: Path, tmp_path: Path) -> None:
    """Outside Lowtide, and where a worker could not make one, nothing is wrapped."""
    storage = FileStorage(store)
    assert prefetched(storage, None) is storage
    assert prefetched(storage, str(tmp_path / "absent")) is storage


def test_a_job_without_a_commit_brings_nothing(tmp_path: Path, folder: Path) -> None:
    """A first attempt that died before its first save."""
    (tmp_path / "empty").mkdir()
    storage = FileStorage(tmp_path / "empty")
    assert fetch(order(tmp_path / "empty", folder), storage=storage) == 0
    assert not files(folder)
