"""Many saves, crashes and exits: memory, file handles, shared memory and processes stay as few."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest
import torch

from checkpointing import Session
from checkpointing.uploader_process import ProcessUploader
from tests.integration.crash_job import await_ends
from tests.s3_server import S3Server, s3_server
from tests.unit.checkpointing.training import Interrupted, Trainee

__all__ = ["s3_server"]

pytestmark = pytest.mark.integration

EVERY_STEP_S: Final = 1e-6
STATE_BYTES: Final = 8 << 20
WARM_UP: Final = 10
"""Saves until every buffer, connection and cache is there."""
GROWTH_BYTES: Final = 3 * STATE_BYTES
"""A snapshot or a chunk that is kept by each save would be ten times that in 30 saves."""


def uploader_of(session: Session) -> psutil.Process:
    """The process beside this one."""
    assert session._engine is not None
    assert session._engine.saver is not None
    uploader = session._engine.saver._uploader
    assert isinstance(uploader, ProcessUploader)
    assert uploader.pid is not None
    return psutil.Process(uploader.pid)


def usage(process: psutil.Process) -> tuple[int, int, int]:
    """Resident bytes, file handles and threads."""
    return process.memory_info().rss, process.num_fds(), process.num_threads()


def soak(place: str, saves: int) -> None:
    """Save a state that changes as a whole, `saves` times, and watch both processes."""
    model = torch.nn.Linear(STATE_BYTES // 4 // 1024, 1024, bias=False)
    with Session(model=model, save_to=place, save_every_s=EVERY_STEP_S) as session:
        both = psutil.Process(), uploader_of(session)
        start: list[tuple[int, int, int]] = []
        for step in session.steps(saves):
            model.weight.data.add_(1)
            if step == WARM_UP:
                start = [usage(process) for process in both]
        # In `steps` the last save was committed.
        end = [usage(process) for process in both]
        assert session.stats.saves == saves
        assert session._engine is not None
        assert session._engine.saver is not None
        assert session._engine.saver._arena.allocations == 1
    for (rss, handles, threads), (rss_then, handles_then, threads_then) in zip(
        end, start, strict=True
    ):
        assert rss - rss_then < GROWTH_BYTES
        assert handles <= handles_then + 2  # connections come and go
        assert threads <= threads_then + 1
    await_ends([both[1].pid])


@pytest.fixture
def s3_place(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place on the S3 server."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket}/soak"


def test_forty_saves_leave_memory_as_it_was(s3_place: str) -> None:
    """On S3: no growth after the first saves, one arena, as many handles and threads as before."""
    soak(s3_place, 40)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_saves_leave_memory_as_it_was(s3_place: str) -> None:
    """The same for longer."""
    soak(f"{s3_place}-long", 200)


# ------------------------------------------------------------------ ends of all kinds


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Whatever a test does: no handle, thread, process or shared memory more than before."""
    me = psutil.Process()
    shared = set(Path("/dev/shm").glob("*lowtide*"))
    handles, threads = me.num_fds(), threading.active_count()
    children = {child.pid for child in me.children(recursive=True)}
    arenas = arena_inodes()
    yield
    new = [child.pid for child in me.children(recursive=True) if child.pid not in children]
    await_ends(new)
    assert me.num_fds() <= handles
    assert threading.active_count() <= threads
    assert set(Path("/dev/shm").glob("*lowtide*")) <= shared
    assert arena_inodes() <= arenas


def arena_inodes() -> set[int]:
    """The arenas that this process holds by a handle; other tests may have some."""
    return {path.stat().st_ino for path in Path("/proc/self/fd").iterdir() if is_arena(path)}


def is_arena(handle: Path) -> bool:
    """Whether a file handle of ours is an arena's."""
    try:
        return "lowtide-arena" in str(handle.readlink())
    except FileNotFoundError:  # the handle that read the folder
        return False


@pytest.fixture
def warm(tmp_path: Path) -> Path:
    """A folder, after a first session, which imports and opens what stays for good."""
    with Trainee().session(tmp_path / "first", save_every_s=EVERY_STEP_S) as session:
        for _ in session.steps(2):
            pass
    return tmp_path


def run(folder: Path, *, raises: BaseException | None = None, kill: bool = False) -> None:
    """A session of a few saves, left in one way or another."""
    trainee = Trainee()
    with trainee.session(folder / "second", save_every_s=EVERY_STEP_S) as session:
        uploader = uploader_of(session)
        for step in session.steps(8):
            trainee.step()
            if step == 4 and kill:
                uploader.send_signal(signal.SIGKILL)
            if step == 4 and raises is not None:
                raise raises


def test_a_finished_session_leaves_nothing(warm: Path, nothing_left: None) -> None:
    """All steps done."""
    run(warm)


def test_a_failed_session_leaves_nothing(warm: Path, nothing_left: None) -> None:
    """An exception in a step, with a save in flight."""
    with pytest.raises(Interrupted):
        run(warm, raises=Interrupted())


def test_a_killed_uploader_leaves_nothing(warm: Path, nothing_left: None) -> None:
    """The dead one and its successor."""
    run(warm, kill=True)


def test_a_failed_start_leaves_nothing(
    warm: Path, nothing_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that cannot restore: its job has a newer attempt."""
    monkeypatch.setenv("LOWTIDE_JOB_ID", "job")
    monkeypatch.setenv("LOWTIDE_CHECKPOINT_URI", str(warm / "third"))
    for epoch, fails in (("7", False), ("6", True)):
        monkeypatch.setenv("LOWTIDE_EPOCH", epoch)
        if fails:
            with pytest.raises(ValueError, match="epoch 7"):
                run(warm)
        else:
            run(warm)
