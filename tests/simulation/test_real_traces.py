"""The real V100 traces: one job with a deadline, on one zone's spot capacity and on-demand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scheduler.simulator import simulate_file

pytestmark = pytest.mark.simulation

ZONE = "us-west-2a_v100_1"


def scenario(folder: Path, data: Path, *, deadline_h: int, from_s: int) -> Path:
    """48 hours of work, a changeover of 780 s, the published prices of the papers' setting."""
    trace = data / "spot" / "v100-2023" / "availability" / f"{ZONE}.csv"
    if not trace.is_file():
        pytest.skip(f"no trace {trace}: it comes from andylizf/skynomad-artifact")
    limit = {"file": str(trace), "column": "availability", "step_s": 195, "from_s": from_s}
    like = {"accelerator": "V100", "region": "us-west-2", "boot_s": 180}
    world = {
        "start": "2023-02-15T22:08:16Z",
        "flavors": [
            {
                "name": "spot",
                "market": "spot",
                "price_usd_per_hour": 0.9731,
                "nodes": limit,
                **like,
            },
            {
                "name": "sure",
                "market": "on-demand",
                "price_usd_per_hour": 3.06,
                "nodes": 16,
                **like,
            },
        ],
        "jobs": [
            {
                "name": "retrain",
                "work_s": 172_800,
                "deadline_s": deadline_h * 3_600,
                "restore_s": 600,
                "checkpoint_interval_s": 0,
            }
        ],
    }
    path = folder / "scenario.json"
    path.write_text(json.dumps(world))
    return path


@pytest.mark.parametrize("deadline_h", [52, 60, 70])
@pytest.mark.parametrize("day", [0, 9, 20])
def test_a_job_on_a_real_trace_meets_its_deadline(
    tmp_path: Path, data_folder: Path, deadline_h: int, day: int
) -> None:
    """No miss, and the cost lies between the hindsight optimum and all on demand."""
    path = scenario(tmp_path, data_folder, deadline_h=deadline_h, from_s=day * 86_400)
    figures = simulate_file(path)
    print(f"deadline {deadline_h} h, day {day}: regret {figures['regret']}")
    assert (figures["deadline_misses"], figures["unfinished"]) == (0, 0)
    assert figures["bound_kind"] == "dp"
    assert figures["regret"] >= 1
    assert figures["cost_usd"] < 3.06 * 48 * 1.05
