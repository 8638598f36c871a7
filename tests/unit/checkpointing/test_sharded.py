"""A sharded training goes on under any number of ranks, from the very bytes that were saved."""

from __future__ import annotations

import json
import multiprocessing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.unit.checkpointing.sharded_training import run_rank

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

LAUNCHES = count()


def launch(folder: Path, world: int, **options: Any) -> list[dict[str, Any]]:
    """Run all ranks to their ends; return what each found."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.unit.checkpointing.sharded_training"])
    meeting = folder / f"meeting-{next(LAUNCHES)}"
    ranks = [
        context.Process(target=run_rank, args=(rank, world, str(folder), str(meeting), options))
        for rank in range(world)
    ]
    files = [folder / f"rank-{rank}.json" for rank in range(world)]
    for path in files:
        path.unlink(missing_ok=True)
    try:
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(120)
    finally:
        for process in ranks:
            process.kill()
    found = [json.loads(path.read_text()) for path in files]
    assert not [one["error"] for one in found if "error" in one]
    return found


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2), (2, 3)])
def test_a_sharded_training_goes_on_with_other_ranks(
    tmp_path: Path, before: int, after: int
) -> None:
    """Model and optimizer begin as the others ended; each sample of the epoch comes once."""
    first = launch(tmp_path, before, steps=2, batch=3)
    second = launch(tmp_path, after, steps=4, batch=3)
    assert {one["first"] for one in second} == {2}
    assert {one["began"] for one in second} == {one["ended"] for one in first}
    assert len({one["ended"] for one in second}) == 1
    seen = [sample for one in (*first, *second) for sample in one["seen"]]
    assert len(set(seen)) == len(seen) == min(24, 6 * before + 6 * after)
    said = [[line for line in one["said"] if "start anew" in line] for one in second]
    assert [bool(lines) for lines in said] == [rank >= before for rank in range(after)]


def test_the_same_ranks_end_with_equal_bytes(tmp_path: Path) -> None:
    """Two ranks, interrupted after two steps, end as if they had never been."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = launch(tmp_path / "whole", 2, steps=5, batch=3)
    launch(tmp_path / "cut", 2, steps=2, batch=3)
    cut = launch(tmp_path / "cut", 2, steps=5, batch=3)
    assert [one["ended"] for one in cut] == [one["ended"] for one in whole]
    assert [one["drawn"] for one in cut] == [one["drawn"] for one in whole]


@pytest.mark.parametrize("mesh", [(2,), (2, 1)])
def test_each_shard_is_saved_once(tmp_path: Path, mesh: tuple[int, ...]) -> None:
    """The boxes in all manifests make up each parameter once, also where ranks hold replicas."""
    first = launch(tmp_path, 2, steps=1, batch=3, mesh=mesh)
    manifests = [json.loads(path.read_bytes()) for path in tmp_path.glob("store/jobs/*/*/*.json")]
    manifests += [json.loads(p.read_bytes()) for p in tmp_path.glob("store/jobs/*/parts/*/*.json")]
    boxes: dict[str, int] = {}
    for manifest in (one for one in manifests if one["format"] == "lowtide-checkpoint"):
        for entry in manifest["tensors"]:
            if "shard" in entry:
                name, shape, _ = entry["shard"]
                rows = boxes.get(name, shape[0]) - entry["shape"][0]
                boxes[name] = rows
    assert len(boxes) == 4 * 3  # each parameter, with two moments
    assert set(boxes.values()) == {0}
    again = launch(tmp_path, 2, steps=1, batch=3, mesh=mesh)
    assert [one["began"] for one in again] == [one["ended"] for one in first]
