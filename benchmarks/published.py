"""SkyNomad's published settings, replayed: ours, every baseline of ours, the bound, their figures.

Each point of three published curves (cost against deadline, checkpoint size and number of regions;
six starts each) runs through the production controller, under ``free`` observation (capacity is
visible) and under ``probe`` (only launching tells, which is what SkyNomad has). The world is
described in ``benchmarks.published_worlds``; how well it reproduces the artifact's is shown by the
two columns that need no policy of ours: the bound beside their optimum, greedy beside their UP(S).
``held-out`` is a world that was not looked at while the policy was built: the V100 zones of 2023.

``python -m benchmarks.published --json``, or ``--write-docs`` for docs/benchmarks/published.md.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import published_table
from benchmarks.published_worlds import Setting, World, published, settings, worlds
from jobs.spec import NANOS_PER_USD
from scheduler.bound import single_job
from scheduler.scenario import Scenario
from scheduler.sim_probes import probes
from scheduler.sim_report import add_up, egress_nanos
from scheduler.simulation import price_book
from scheduler.simulator import simulate

DOCS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "published.md"
RUNS = (
    ("lowtide", True),
    ("lowtide", False),
    ("greedy", False),
    ("uniform-progress", False),
)
"""Policy, and whether only launching tells."""


@dataclass(frozen=True, slots=True)
class Task:
    """One start of one setting under one policy; no policy = the bound."""

    setting: Setting
    world: World
    policy: str
    probe: bool


def tasks(data: Path, *, only: tuple[str, ...]) -> list[Task]:
    """List what is to be replayed: points whose "figure x" begins with one of ``only``."""
    listed = []
    for setting in settings():
        if not f"{setting.figure} {setting.x}".startswith(only):
            continue
        runs = RUNS if setting.figure in {"deadline", "held-out"} else RUNS[::2]
        for world in worlds(data, setting):
            listed.append(Task(setting, world, "", probe=False))
            listed += [Task(setting, world, policy, probe) for policy, probe in runs]
    return listed


def replay(task: Task) -> dict[str, float]:
    """Give the figures of one task, in dollars."""
    scenario = task.world.scenario(task.setting, probe=task.probe)
    if not task.policy:
        return {"usd": _bound_usd(scenario)}
    result = simulate(scenario, policy=task.policy)
    egress = sum(egress_nanos(result).values())
    (job,) = result.jobs.values()
    late = job.ended_us is None or job.ended_us > (job.deadline_us or 0)
    return {
        "usd": (add_up(result).bill_nanos + egress) / NANOS_PER_USD,
        "egress_usd": egress / NANOS_PER_USD,
        "missed": float(late),
        "evictions": float(job.evictions),
        **probes(result),
    }


def _bound_usd(scenario: Scenario) -> float:
    usd = single_job(scenario, scenario.arrivals[0], book=price_book(scenario)).usd
    assert usd, "on-demand capacity makes every case feasible"
    return usd


def measure(data: Path, *, only: tuple[str, ...], processes: int) -> list[dict[str, Any]]:
    """Replay every task; give a row per setting."""
    listed = tasks(data, only=only)
    with ProcessPoolExecutor(processes) as pool:
        found = list(pool.map(replay, listed))
    rows: list[dict[str, Any]] = []
    for setting in dict.fromkeys(task.setting for task in listed):
        pairs = [(t, f) for t, f in zip(listed, found, strict=True) if t.setting == setting]
        rows.append(_row(data, setting, pairs))
    return rows


def _row(
    data: Path, setting: Setting, pairs: list[tuple[Task, dict[str, float]]]
) -> dict[str, Any]:
    runs = dict.fromkeys((task.policy, task.probe) for task, _ in pairs if task.policy)
    bounds = [f["usd"] for task, f in pairs if not task.policy]
    half = len(bounds) // 2
    row: dict[str, Any] = {
        "figure": setting.figure,
        "x": setting.x,
        "starts": len(bounds),
        "bound": round(fmean(bounds), 2),
        "published": published(data, setting),
    }
    for policy, probe in runs:
        of_run = [f for task, f in pairs if (task.policy, task.probe) == (policy, probe)]
        row[f"{policy} {'probe' if probe else 'free'}"] = _summary(of_run, bounds, half)
    return row


def _summary(found: list[dict[str, float]], bounds: list[float], half: int) -> dict[str, float]:
    costs = [one["usd"] for one in found]
    return {
        "usd": round(fmean(costs), 2),
        "regret": round(fmean(costs) / fmean(bounds), 4),
        "first_half": round(fmean(costs[:half]) / fmean(bounds[:half]), 4),
        "second_half": round(fmean(costs[half:]) / fmean(bounds[half:]), 4),
        "missed": sum(one["missed"] for one in found),
        **{
            key: round(fmean([one[key] for one in found]), 2)
            for key in ("egress_usd", "probe_usd", "launches_refused", "evictions")
        },
    }


def main(arguments: Iterable[str] | None = None) -> None:
    """Print a table, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    parser.add_argument("--write-docs", action="store_true", help=f"write {DOCS.name}")
    parser.add_argument("--data", type=Path, default=os.environ.get("LOWTIDE_DATA"))
    parser.add_argument(
        "--only", nargs="+", default=[""], help='points that begin so: "deadline 1"'
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--add-to", type=Path, help="JSON of an earlier call: its points stay")
    asked = parser.parse_args(None if arguments is None else list(arguments))
    data = asked.data or Path(__file__).resolve().parents[2] / "shared" / "data"
    rows = json.loads(asked.add_to.read_text(encoding="utf-8")) if asked.add_to else []
    rows += measure(data, only=tuple(asked.only), processes=asked.processes)
    if asked.write_docs:
        DOCS.write_text(published_table.page(rows), encoding="utf-8")
    print(json.dumps(rows, indent=2) if asked.json else published_table.tables(rows))


if __name__ == "__main__":
    main()
