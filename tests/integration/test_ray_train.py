"""Ray Train starts a dead worker again, and the training goes on from our commit, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from checkpointing import CheckpointError
from checkpointing.commit_log import CommitLog
from checkpointing.file_storage import FileStorage
from checkpointing.integrations.ray_train import address
from tests.integration.ray_training import STEPS, train_loop

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),  # Ray Train takes ten seconds and more to start its workers again
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROOT = Path(__file__).resolve().parents[2]
VARIABLES = {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",  # a shared machine is slow now and then
}


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """A Ray of this test's own."""
    ray.init(
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"env_vars": VARIABLES},
    )
    yield
    ray.shutdown()


def run(folder: Path, *, name: str, kill_in: int | None = None) -> dict[str, Any]:
    """Train with two workers; return what rank 0 told."""
    told = folder / f"{name}.json"
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"kill_in": kill_in, "told": str(told)},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            storage_path=str(folder), name=name, failure_config=FailureConfig(max_failures=1)
        ),
    )
    trainer.fit()
    found: dict[str, Any] = json.loads(told.read_text(encoding="ascii"))
    return found


def test_a_killed_worker_changes_no_bit(tmp_path: Path) -> None:
    """Of two workers one dies by SIGKILL: Ray starts both again, and the weights are equal."""
    whole = run(tmp_path, name="whole")
    cut = run(tmp_path, name="cut", kill_in=5)
    assert (tmp_path / "cut.json.killed").exists()
    assert 0 < cut["restored"] <= 5
    assert (whole["restored"], cut["digest"]) == (0, whole["digest"])
    commits = CommitLog(FileStorage(tmp_path / "cut/lowtide"), job_id="local").history().commits
    assert commits[0].step == STEPS


def test_the_store_lies_below_the_run() -> None:
    """In a folder or a bucket; a file system that only Ray can open is named."""
    assert address("local", path="/runs/nightly") == "/runs/nightly/lowtide"
    assert address("s3", path="bucket/nightly") == "s3://bucket/nightly/lowtide"
    with pytest.raises(CheckpointError, match="hdfs"):
        address("hdfs", path="cluster/runs/nightly")
