"""What the uploader of a dead training tells its worker: the true restore point, once it counts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from checkpointing.archive import open_log
from checkpointing.control import Beside, Committed, Hello, Message, decode
from checkpointing.file_storage import FileStorage

ROOT = Path(__file__).resolve().parents[3]


def said_by(listener: socket.socket, count: int) -> dict[type, list[Message]]:
    """Take ``count`` connections to their ends; give what came on them, by the first message."""
    found: dict[type, list[Message]] = {}
    for _ in range(count):
        link, _ = listener.accept()
        with link, link.makefile("rb") as lines:
            messages = [decode(line) for line in lines]
        found[type(messages[0])] = messages[1:]
    return found


def test_the_save_of_a_dead_training_is_told_by_its_uploader(tmp_path: Path) -> None:
    """Killed with a save in flight, the training never says what counts; its uploader does."""
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(50)
        died = subprocess.run(
            [sys.executable, "-m", "tests.unit.checkpointing.dying_training", str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "LOWTIDE_CONTROL": str(path)},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert died.returncode == -signal.SIGKILL
        uploader = psutil.Process(int(died.stdout))
        assert uploader.environ()["LOWTIDE_CONTROL"] == str(path)  # as the mark of its node
        uploader.resume()
        said = said_by(listener, 2)
    assert not any(isinstance(one, Committed) for one in said[Hello])
    (commit,) = said[Beside]
    (record,) = open_log(FileStorage(tmp_path), job_id="local").history().commits
    assert isinstance(commit, Committed)
    assert (commit.step, commit.manifest) == (record.step, record.manifest)
    assert commit.bytes >= commit.new_bytes > 0
