"""docs/simulate.md is true: its scenarios run, and its tables name every field and figure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from scheduler.scenario_models import FlavorIn, JobIn, ScenarioIn, SeriesIn
from scheduler.simulator import compare_file, simulate_file
from scheduler.spot_policy import POLICIES

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "simulate.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL))
SCENARIOS = [name for name in BLOCKS if name.endswith(".yaml")]

pytestmark = pytest.mark.simulation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every file of the guide, saved under its name."""
    for name, content in BLOCKS.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def named_in_code() -> set[str]:
    """Every name that the guide writes as code."""
    return set(re.findall(r"`([a-z_]+)`", TEXT))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_of_the_guide_runs(folder: Path, name: str) -> None:
    """As it stands, to a bound and without a missed deadline."""
    figures = simulate_file(folder / name)
    assert figures["deadline_misses"] == figures["unfinished"] == 0
    assert figures["regret"] >= 1
    assert [row["name"] for row in figures["unmet"]] == (
        ["hopeless"] if name == "night.yaml" else []
    )


def test_every_figure_is_explained(folder: Path) -> None:
    """A key that --json prints stands in the guide."""
    figures: dict[str, Any] = simulate_file(folder / "tariff.yaml")
    plain = {"policy", "jobs", "egress_usd", "not_applied"}
    assert set(figures) - plain - named_in_code() == set()


@pytest.mark.parametrize("model", [ScenarioIn, FlavorIn, JobIn, SeriesIn])
def test_every_field_is_explained(model: Any) -> None:
    """A field that is read stands in the guide."""
    words = set(re.findall(r"[a-z_0-9]+", TEXT))
    assert set(model.model_fields) - words == set()


def test_every_policy_is_named(folder: Path) -> None:
    """And can be compared on the first scenario."""
    assert set(re.findall(r"`([a-z-]+)`", TEXT)) >= set(POLICIES)
    found = compare_file(folder / "night.yaml", policies=["all"])
    assert [result["policy"] for result in found["results"]] == list(POLICIES)
    assert all(result["deadline_misses"] == 0 for result in found["results"])
