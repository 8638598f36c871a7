"""The uploader is a process of its own: light, outliving its training, replaced when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from checkpointing import Session
from checkpointing.archive import open_log
from checkpointing.errors import CheckpointError, FencedOut
from checkpointing.file_storage import FileStorage
from checkpointing.publish import Published
from checkpointing.uploader import Outcome
from checkpointing.uploader_process import ProcessUploader, _import_path
from checkpointing.uploader_wire import outcome_from, outcome_json
from tests.unit.checkpointing.training import Interrupted, Trainee, train

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def descriptors() -> Iterator[None]:
    """After the test this process has no more open descriptors and children than before."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as names
    children = set(psutil.Process().children())  # of other tests: not ours to judge
    yield
    assert set(psutil.Process().children()) <= children
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def uploader_of(session: object) -> ProcessUploader:
    """The process uploader inside a session."""
    found = session._engine.saver._uploader  # type: ignore[attr-defined]
    assert isinstance(found, ProcessUploader)
    return found


def test_it_imports_nothing_heavy() -> None:
    """The process needs neither torch nor numpy, and boto3 only for an S3 store."""
    code = (
        "import sys, checkpointing.uploader_main;"
        "print([name for name in ('torch', 'numpy', 'boto3') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_snapshot_outlives_its_training(tmp_path: Path) -> None:
    """The training is killed with its save in flight: the uploader commits it, and ends."""
    command = [sys.executable, "-m", "tests.unit.checkpointing.dying_training", str(tmp_path)]
    died = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert died.returncode == -signal.SIGKILL
    uploader = psutil.Process(int(died.stdout))
    log = open_log(FileStorage(tmp_path), job_id="local")
    assert log.history().commits == ()
    uploader.resume()
    psutil.wait_procs([uploader], timeout=30)
    assert not uploader.is_running()
    assert [record.step for record in log.history().commits] == [1]
    _, session = train(tmp_path, steps=2)
    assert session.restored_step == 1


def test_a_dead_uploader_costs_one_save(tmp_path: Path, descriptors: None) -> None:
    """It is killed: that save fails by name, the next one has a new process and all chunks."""
    trainee = Trainee()
    with trainee.session(tmp_path, save_every_s=1e-6) as session:
        for step in session.steps(6):
            trainee.step()
            if step == 3:
                pid = uploader_of(session).pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                psutil.Process(pid).wait(10)
    assert session.stats.failures == 1
    digest = session.final_digest()
    again, resumed = train(tmp_path, steps=6)
    assert resumed.restored_step == 6
    assert again == digest


class Growing:
    """A state that needs a larger arena at every save."""

    def __init__(self) -> None:
        """Start with a megabyte."""
        self.data = torch.zeros(1 << 20, dtype=torch.uint8)

    def grow(self, step: int) -> None:
        """Double, with other content."""
        self.data = torch.full((2 * self.data.numel(),), step, dtype=torch.uint8)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the data."""
        return {"data": self.data}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take data."""
        self.data = state["data"].clone()


def test_an_arena_that_grew_is_mapped_again(tmp_path: Path, descriptors: None) -> None:
    """Another arena under the same descriptor number is not taken for the old one."""
    growing = Growing()
    with Session(growing=growing, save_to=str(tmp_path), save_every_s=1e-6) as session:
        for step in session.steps(4):
            growing.grow(step)
    fresh = Growing()
    with Session(growing=fresh, save_to=str(tmp_path)) as session:
        assert session.restored_step == 4
    assert torch.equal(fresh.data, growing.data)


def test_nothing_is_left_after_the_end(tmp_path: Path, descriptors: None) -> None:
    """After a training that ends, and after one that fails, no process and no descriptor stays."""
    before = set(os.listdir("/dev/shm"))  # noqa: PTH208
    train(tmp_path, steps=4, save_every_s=1e-6)
    with pytest.raises(Interrupted):
        train(tmp_path / "other", steps=4, crash_at=2, save_every_s=1e-6)
    assert set(os.listdir("/dev/shm")) <= before  # noqa: PTH208


def test_the_trainings_folder_cannot_break_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository with a `blake3.py` and a `queue.py` of its own saves as any other."""
    for name in ("blake3", "queue", "threading"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not yours')")
    monkeypatch.chdir(tmp_path)
    _, session = train(tmp_path / "store", steps=3, save_every_s=1e-6)
    assert session.stats.saves >= 1
    assert session.stats.failures == 0


def test_both_processes_are_of_one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another installed `checkpointing` does not run in the uploader; no stdlib is hidden."""
    installed = str(Path(pytest.__file__).parents[1])
    monkeypatch.setattr(sys, "path", ["/lib/stdlib", str(ROOT / "other"), installed, str(ROOT)])
    path = _import_path()
    assert path.index("/lib/stdlib") < path.index(str(ROOT)) < path.index(installed)


def test_a_store_in_memory_is_served_by_a_thread() -> None:
    """Another process would see another, empty memory."""
    uri = "memory://own-memory"
    train(uri, steps=3)
    _, session = train(uri, steps=3)
    assert session.restored_step == 3
    assert session.skipped == ()


def test_a_thread_does_it_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`LOWTIDE_UPLOADER=thread` starts no process."""
    monkeypatch.setenv("LOWTIDE_UPLOADER", "thread")
    seen: set[psutil.Process] = set()
    before = set(psutil.Process().children())
    train(
        tmp_path,
        steps=4,
        each=lambda _step: seen.update(psutil.Process().children()),
        save_every_s=1e-6,
    )
    assert seen <= before
    assert threading.active_count() >= 1


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(3, published=Published(3, 17, 100, 50, "jobs/j/manifests/x")),
        Outcome(4, error=FencedOut("fenced-out", cause="c", remedy="r")),
        Outcome(5, error=CheckpointError("some-code", cause="ü\n", remedy="")),
    ],
)
def test_an_outcome_survives_the_wire(outcome: Outcome) -> None:
    """What became of a save arrives as it was, the kind of its error included."""
    arrived = outcome_from(outcome_json(outcome))
    assert arrived.published == outcome.published
    assert type(arrived.error) is type(outcome.error)
    assert str(arrived.error) == str(outcome.error)
