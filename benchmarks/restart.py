"""How long until lost training goes on: ours and Ray Train's, in one run, the same training.

A node dies without notice while a spare one is up. ``first_step_s`` ends with the first step of the
new process, ``new_step_s`` with the first that the old one had not reached: lost steps count. With
a notice the clock begins at the last step before the move. Medians over ``--repeats`` deaths.

    python -m benchmarks.restart --json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.restart_ours import Pace, Restart, lowtide
from benchmarks.restart_ray import ray_train

BAR = 0.33


def ours(folder: Path, *, pace: Pace, repeats: int) -> tuple[list[Restart], list[Restart]]:
    """Give the restarts after deaths, and those after notices."""
    with lowtide(folder, pace=pace) as place:
        job_id = place.begin()
        killed, noticed = [], []
        for _ in range(repeats):
            place.spare()
            killed.append(place.kill(job_id))
            _say("Lowtide, killed", killed[-1])
        for _ in range(max(1, repeats // 2)):
            place.spare()
            noticed.append(place.evict(job_id, notice="10s"))
            _say("Lowtide, noticed", noticed[-1])
        place.end(job_id)
        return killed, noticed


def theirs(folder: Path, *, pace: Pace, repeats: int) -> list[Restart]:
    """Give Ray Train's restarts after deaths."""
    with ray_train(folder, pace=pace) as place:
        place.spare()
        place.begin()
        found = []
        for _ in range(repeats):
            place.spare()
            found.append(place.kill())
            _say("Ray Train, killed", found[-1])
        return found


def summary(restarts: Sequence[Restart]) -> dict[str, Any]:
    """Give medians, and every restart."""
    names = sorted({name for one in restarts for name in one.phases})
    return {
        "first_step_s": round(median(one.first_step_s for one in restarts), 3),
        "new_step_s": round(median(one.new_step_s for one in restarts), 3),
        "steps_lost": median(one.steps_lost for one in restarts),
        "phases_s": {
            name: round(median(one.phases.get(name, 0.0) for one in restarts), 3) for name in names
        },
        "stood_ready": sum(one.stood_ready for one in restarts),
        "each": [asdict(one) for one in restarts],
    }


def run(*, repeats: int, pace: Pace) -> dict[str, Any]:
    """Measure both sides, one after the other."""
    with tempfile.TemporaryDirectory(prefix="restart-") as base:
        for name in ("ours", "ray"):
            (Path(base) / name).mkdir()
        killed, noticed = ours(Path(base) / "ours", pace=pace, repeats=repeats)
        ray = theirs(Path(base) / "ray", pace=pace, repeats=repeats)
    mine, other = summary(killed), summary(ray)
    return {
        "pace": asdict(pace),
        "repeats": repeats,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "lowtide_killed": mine,
        "lowtide_noticed": summary(noticed),
        "ray_train_killed": other,
        "ratio_new_step": round(mine["new_step_s"] / other["new_step_s"], 3),
        "ratio_first_step": round(mine["first_step_s"] / other["first_step_s"], 3),
        "bar": BAR,
    }


def _say(what: str, restart: Restart) -> None:
    print(f"{what}: {restart.new_step_s:.2f} s, {restart.steps_lost} lost", file=sys.stderr)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--step-s", type=float, default=0.1)
    parser.add_argument("--save-every-steps", type=int, default=10)
    given = parser.parse_args()
    pace = Pace(step_s=given.step_s, save_every_steps=given.save_every_steps)
    found = run(repeats=given.repeats, pace=pace)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for name in ("lowtide_killed", "lowtide_noticed", "ray_train_killed"):
        one = found[name]
        print(f"{name:<18} {one['new_step_s']:7.2f} s, {one['steps_lost']} steps lost")
        print("  " + ", ".join(f"{phase} {s:.2f}" for phase, s in one["phases_s"].items()))
    print(f"ratio {found['ratio_new_step']} (bar {BAR}), load {found['load_average']}")


if __name__ == "__main__":
    main()
