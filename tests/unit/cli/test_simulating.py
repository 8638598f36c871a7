"""`lowtide simulate` on a terminal: the figures, the comparison, and who was not served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Lowtide

WORLD = {
    "start": "2026-11-23T08:00:00+01:00",
    "flavors": [
        {"name": "spot", "market": "spot", "price_usd_per_hour": 1, "nodes": 1},
        {"name": "sure", "market": "on-demand", "price_usd_per_hour": 4, "nodes": 1},
    ],
    "jobs": [
        {"name": "ranker", "team": "ads", "work_s": 3_600, "deadline_s": 9_000},
        {"name": "hopeless", "team": "ads", "work_s": 3_600, "deadline_s": 600},
    ],
}


@pytest.fixture
def world(tmp_path: Path) -> str:
    """A scenario with a job that can be served and one that cannot."""
    path = tmp_path / "world.json"
    path.write_text(json.dumps(WORLD))
    return str(path)


def test_the_summary_ends_with_who_was_not_served(world: str, lowtide: Lowtide) -> None:
    """By name, with what would have been possible and the reason."""
    outcome = lowtide("simulate", world)
    assert outcome.code == 0
    assert "cost / bound" in outcome.out
    assert "Not served as asked" in outcome.out
    (told,) = (line for line in outcome.out.splitlines() if line.startswith("hopeless"))
    assert "refused" in told
    assert "cannot be met: the earliest finish is" in told


def test_policies_stand_side_by_side(world: str, lowtide: Lowtide) -> None:
    """A row each, cheapest first, and the same as JSON."""
    asked = ("simulate", world, "--policy", "on-demand", "--policy", "greedy")
    lines = lowtide(*asked).out.splitlines()
    assert [line.split()[0] for line in lines] == ["policy", "greedy", "on-demand"]
    found = lowtide(*asked, "--json").data
    assert [one["policy"] for one in found["results"]] == ["on-demand", "greedy"]


def test_a_file_for_several_policies_is_refused(
    world: str, lowtide: Lowtide, tmp_path: Path
) -> None:
    """Rows belong to one policy; nothing is written."""
    out = tmp_path / "jobs.csv"
    outcome = lowtide("simulate", world, "--policy", "all", "--jobs-out", str(out))
    assert outcome.code != 0
    assert "Name one --policy" in outcome.err
    assert not out.exists()
