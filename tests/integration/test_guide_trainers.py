"""The guide's examples of trainers work as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpointing.commit_log import CommitLog
from checkpointing.file_storage import FileStorage
from tests.guide import examples, run_example

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def committed(store: Path) -> int:
    """The newest committed step."""
    return CommitLog(FileStorage(store), job_id="local").history().commits[0].step


@pytest.mark.parametrize(("heading", "steps"), [("Hugging Face Trainer", 5), ("Lightning", 20)])
def test_a_trainer(tmp_path: Path, heading: str, steps: int) -> None:
    """It trains to the end and commits that."""
    (code,) = examples()[heading]
    run_example(code, folder=tmp_path)
    assert committed(tmp_path / "checkpoints") == steps


def test_ray_train(tmp_path: Path) -> None:
    """It trains to the end in a Ray of its own, and commits that below the run's storage."""
    (code,) = examples()["Ray Train"]
    start = "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)"
    main = f"STORAGE = {str(tmp_path)!r}\nimport ray\n{start}\n"
    run_example(f"{main}{code}\nray.shutdown()\n", folder=tmp_path)
    assert committed(tmp_path / "nightly/lowtide") == 20
