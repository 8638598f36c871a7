"""The prefetch of an attempt worker: there at once, gone with its worker however that ends."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cluster.attempt_worker_prefetch import Prefetch
from cluster.worker_wire import WorkerOrder
from jobs.codec import encode
from jobs.spec import JobSpec
from tests.unit.checkpointing.training import train

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]


def order(store: Path) -> WorkerOrder:
    """A second attempt's order."""
    return WorkerOrder(
        attempt_id="local/2",
        job_id="local",
        epoch=2,
        index=0,
        nodes=1,
        spec=JobSpec(script="train.py"),
        storage=str(store),
        agent_host="127.0.0.1",
        agent_port=1,
        token="secret",
    )


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.02)


def brought(folder: Path) -> list[Path]:
    """What waits for rank 0."""
    return [path for path in folder.iterdir() if path.suffix != ".mine"]


def test_it_brings_the_restore_point_and_leaves_nothing(tmp_path: Path) -> None:
    """Manifest and chunks come without anybody's doing; closing removes all."""
    train(tmp_path / "store", steps=3)
    prefetch = Prefetch(order(tmp_path / "store"), scratch=tmp_path)
    folder = prefetch.folder_of(0)
    until(lambda: len(brought(folder)) >= 2, "manifest and chunk are there")
    prefetch.close()
    assert not folder.parent.exists()


def test_after_a_killed_worker_its_process_ends_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    """Memory that a crash left filled is given back by the next; the living keep theirs."""
    train(tmp_path / "store", steps=3)
    program = f"""
        import sys, threading
        from pathlib import Path
        from cluster.attempt_worker_prefetch import Prefetch
        from cluster.worker_wire import WorkerOrder
        from jobs.codec import decode
        order = decode({encode(order(tmp_path / "store"))!r}, into=WorkerOrder)
        prefetch = Prefetch(order, scratch=Path({str(tmp_path)!r}))
        print(prefetch.folder_of(0), prefetch._process.pid, flush=True)
        threading.Event().wait(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        path, pid = worker.stdout.readline().decode().split()
        folder = Path(path).parent
        alive = Prefetch(order(tmp_path / "store"), scratch=tmp_path)
        assert folder.exists()
        worker.kill()
    until(lambda: not psutil.pid_exists(int(pid)), "its process is gone")
    alive.close()
    after = Prefetch(order(tmp_path / "store"), scratch=tmp_path)
    assert not folder.exists()
    after.close()
