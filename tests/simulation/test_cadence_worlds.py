"""What the interval rule is worth, on made lives and on a real trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cadence import COST_US, RESTART_S, STALL_S, UPLOAD_S, fixed, live, measure
from benchmarks.cadence_worlds import worlds

pytestmark = pytest.mark.simulation


def test_a_life_without_a_save_is_lost_with_its_node() -> None:
    """All but the restart, which is a cost of its own; a life that is only cut loses nothing."""
    lost = live(1_000, interval=fixed(2_000), end="lost")
    assert (lost.restart, lost.saving, lost.lost) == (RESTART_S, 0, 1_000 - RESTART_S)
    assert live(1_000, interval=fixed(2_000), end="cut").lost == 0
    assert live(50, interval=fixed(2_000), end="lost").overhead == 1


def test_a_snapshot_protects_once_it_is_committed() -> None:
    """A second before its commit the end takes the work of both intervals."""
    committed_s = RESTART_S + 300 + STALL_S + UPLOAD_S
    assert live(committed_s + 1, interval=fixed(300), end="lost").lost < 30
    assert live(committed_s - 1, interval=fixed(300), end="lost").lost > 300


def test_every_save_costs_its_stall_and_its_interference() -> None:
    """Three saves in a thousand seconds."""
    sums = live(RESTART_S + 1_000, interval=fixed(300), end="cut")
    assert sums.saving == pytest.approx(3 * COST_US / 1e6)


def test_a_notice_saves_all_work_before_it() -> None:
    """Two minutes are time enough: a fresh save, and the rest is not paid for."""
    sums = live(5_000, interval=fixed(10_000), end="noticed")
    assert sums.lost == 0
    assert sums.saving == pytest.approx(STALL_S + UPLOAD_S)
    assert sums.paid == pytest.approx(5_000 - 120 + STALL_S + UPLOAD_S)


def test_the_rule_learns_what_hindsight_knows(tmp_path: Path) -> None:
    """One end in three hours: as good as the best interval in hindsight, half of ten minutes'."""
    (zone,) = worlds(tmp_path)["exponential-3h"]
    found = measure([replace(zone, lives=zone.lives[:300])])
    assert found["rule"]["overhead"] <= 1.05 * found["best-fixed"]["overhead"]
    assert found["rule"]["overhead"] < 0.5 * found["fixed-30min"]["overhead"]
    assert found["rule-notice"]["overhead"] < 0.7 * found["rule"]["overhead"]


def test_age_beats_every_fixed_interval_on_real_spells(data_folder: Path) -> None:
    """A zone of which no constant was chosen: below the best interval in hindsight."""
    zones = worlds(data_folder).get("v100", [])
    chosen = [zone for zone in zones if "us-west-2c" in zone.name]
    if not chosen:
        pytest.skip(f"no V100 traces in {data_folder}: they come from andylizf/skynomad-artifact")
    found = measure(chosen)
    assert found["rule-age"]["overhead"] < found["best-fixed"]["overhead"]
