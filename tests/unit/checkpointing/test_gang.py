"""Two real ranks over gloo: one commit for both, or none; resume is bit-exact on each."""

from __future__ import annotations

import json
import multiprocessing
import re
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.unit.checkpointing.gang_training import WORLD, run_rank

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

LAUNCHES = count()


def launch(folder: Path, **options: Any) -> tuple[list[int | None], list[str]]:
    """Run both ranks to their ends; return exit codes and what they said."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.unit.checkpointing.gang_training"])
    meeting = folder / f"meeting-{next(LAUNCHES)}"
    folder.mkdir(exist_ok=True)
    ranks = [
        context.Process(target=run_rank, args=(rank, str(folder), str(meeting), options))
        for rank in range(WORLD)
    ]
    try:
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(120)
        codes = [process.exitcode for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    files = [folder / f"rank-{rank}.txt" for rank in range(WORLD)]
    return codes, [path.read_text() if path.exists() else "" for path in files]


def digests(said: list[str]) -> list[str]:
    """The final weights' digests."""
    return [line.split()[1] for line in said]


def committed(folder: Path) -> list[dict[str, Any]]:
    """The commits in the store, oldest first."""
    found = [json.loads(path.read_bytes()) for path in folder.glob("store/jobs/local/commits/*")]
    return sorted((item for item in found if item["kind"] == "commit"), key=lambda one: one["seq"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The digests of an uninterrupted training."""
    codes, said = launch(tmp_path_factory.mktemp("whole"), steps=14)
    assert codes == [0, 0], said
    return digests(said)


def test_both_ranks_end_with_the_same_weights(whole: list[str]) -> None:
    """Data-parallel training: the replicas are equal."""
    assert whole[0] == whole[1]


def test_a_rank_that_dies_costs_no_bit(tmp_path: Path, whole: list[str]) -> None:
    """Rank 1 dies in a step: rank 0 ends too, and the next attempt of both ends byte-equal."""
    codes, said = launch(tmp_path, steps=14, crash=(1, 8))
    assert codes[1] == 9
    assert codes[0] not in {0, None}, said
    codes, said = launch(tmp_path, steps=14)
    assert codes == [0, 0]
    assert digests(said) == whole
    assert all(int(re.findall(r"from (\d+)", line)[0]) >= 6 for line in said)
    manifests = [
        json.loads((tmp_path / "store" / c["manifest"]).read_bytes()) for c in committed(tmp_path)
    ]
    assert all([part[0] for part in one["parts"]] == [1] for one in manifests)


def test_a_failing_rank_aborts_the_commit_everywhere(tmp_path: Path, whole: list[str]) -> None:
    """Rank 1 cannot store its first two parts: those steps are not committed, training goes on."""
    codes, said = launch(
        tmp_path,
        steps=14,
        failing_rank=1,
        failing_parts=2,
        step_s=0.02,
        env={"LOWTIDE_UPLOADER": "thread"},  # what breaks is in this process
    )
    assert codes == [0, 0], said
    assert digests(said) == whole
    failed = list(tmp_path.glob("store/jobs/local/parts/*/*-failed"))
    steps = {int(path.parent.name.rpartition("-")[2]) for path in failed}
    assert len(steps) == 2
    assert not steps & {one["step"] for one in committed(tmp_path)}


def test_one_rank_drained_drains_all(tmp_path: Path, whole: list[str]) -> None:
    """Only rank 1 is asked to leave: both save the same step and leave with 75; nothing is lost."""
    codes, said = launch(tmp_path, steps=14, drain=(1, 5), step_s=0.02)
    assert codes == [75, 75], said
    assert committed(tmp_path)[-1]["step"] >= 6
    codes, said = launch(tmp_path, steps=14)
    assert digests(said) == whole
