"""Trainings that are started as scripts, and what a test waits for in them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from checkpointing.commit_log import CommitLog
from checkpointing.storage import open_storage

ROOT = Path(__file__).resolve().parents[2]


def start(script: str, folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start a script of this folder as a user would, on a laptop."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("LOWTIDE_")}
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name(script)), str(folder), *words],
        cwd=ROOT,
        env={**variables, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def await_step(folder: Path, process: subprocess.Popen[str], step: int) -> None:
    """Wait until `step` is committed."""
    for _ in range(2_400):
        if folder.is_dir():
            log = CommitLog(open_storage(str(folder)), job_id="local")
            if any(record.step >= step for record in log.history().commits):
                return
        assert process.poll() is None, process.communicate()
        threading.Event().wait(0.05)
    pytest.fail("no commit within two minutes")
