"""The examples of docs/windows.md are read by the program itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scheduler.scenario import load_scenario
from scheduler.settings import parse_settings

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "windows.md"
BLOCKS = re.findall(
    r"^```yaml\n(.*?)^```$", GUIDE.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL
)
CLUSTER = """\
clusters:
  - name: c
    provider: static
    flavors: [{name: h100-reserved, market: reserved, price_usd_per_hour: 4, max_nodes: 8}]
"""


@pytest.mark.parametrize("block", [one for one in BLOCKS if "price_windows" in one])
def test_each_example_of_the_configuration_is_read(block: str) -> None:
    """Windows, holidays, tables and feeds, as the guide writes them."""
    settings = parse_settings(CLUSTER + block, source="docs/windows.md")
    assert len(settings.windows) >= len(settings.price_windows)


def test_the_example_of_a_scenario_is_read(tmp_path: Path) -> None:
    """A published price, whose negative hours cost nothing."""
    (block,) = (one for one in BLOCKS if "known_ahead_s" in one)
    (tmp_path / "s.yaml").write_text(block, encoding="utf-8")
    (tmp_path / "power.csv").write_text("usd_per_mwh\n-5\n30\n60\n", encoding="utf-8")
    scenario = load_scenario(tmp_path / "s.yaml")
    assert min(scenario.price_series["gpu"].values) == 0
    assert scenario.known_ahead_us == {"gpu": 36 * 3_600_000_000}


def test_the_guide_has_its_examples() -> None:
    """A guide without them would pass in silence."""
    assert len(BLOCKS) == 6
