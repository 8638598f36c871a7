"""Ray Train starts a dead worker again, and the training goes on from our commit, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkpointing.commit_log import CommitLog
from checkpointing.file_storage import FileStorage

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),  # Ray Train takes ten seconds and more to start its workers again
]
ROOT = Path(__file__).resolve().parents[2]
STEPS = 8


def python(*arguments: str) -> str:
    """Run Python at the project's root; return what it printed."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def train(folder: Path, *, name: str, kill_in: int | None = None) -> dict[str, Any]:
    """Train with two workers; return what rank 0 told."""
    extra = [] if kill_in is None else [str(kill_in)]
    python("-m", "tests.integration.ray_training", str(folder), name, *extra)
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="ascii"))
    return found


def test_a_killed_worker_changes_no_bit(tmp_path: Path) -> None:
    """Of two workers one dies by SIGKILL: Ray starts both again, and the weights are equal."""
    whole = train(tmp_path, name="whole")
    cut = train(tmp_path, name="cut", kill_in=5)
    assert (tmp_path / "cut.json.killed").exists()
    assert 0 < cut["restored"] <= 5
    assert (whole["restored"], cut["digest"]) == (0, whole["digest"])
    commits = CommitLog(FileStorage(tmp_path / "cut/lowtide"), job_id="local").history().commits
    assert commits[0].step == STEPS


@pytest.mark.parametrize(
    ("kind", "path", "wanted"),
    [
        ("local", "/runs/nightly", "/runs/nightly/lowtide"),
        ("s3", "bucket/nightly", "s3://bucket/nightly/lowtide"),
        ("hdfs", "cluster/runs/nightly", "refused"),
    ],
)
def test_the_store_lies_below_the_run(kind: str, path: str, wanted: str) -> None:
    """In a folder or a bucket; a file system that only Ray can open is refused."""
    code = (
        "import sys\n"
        "from checkpointing import CheckpointError\n"
        "from checkpointing.integrations.ray_train import address\n"
        "try: print(address(sys.argv[1], path=sys.argv[2]))\n"
        "except CheckpointError as error: print('refused' if sys.argv[1] in str(error) else error)"
    )
    assert python("-c", code, kind, path).strip() == wanted
