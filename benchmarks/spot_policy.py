"""One job on one zone's spot market, with on-demand beside it: what each policy pays.

The bars of the design: V100 zones of 2023 (48 h of work, changeover 780 s, deadlines of 52, 60 and
70 h) and gangs on H100 zones of 2025 (6 h of work within 24 h, changeover 720 s). Costs are per
node; ``regret`` is the mean of cost / hindsight optimum. Constants were chosen on half of the
zones (``TUNED``); each figure is printed for both halves of the zones, and for both halves of the
time: ``python -m benchmarks.spot_policy --json``.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.durations import US_PER_S
from jobs.spec import NANOS_PER_USD, JobSpec, Market
from scheduler.bound import single_job
from scheduler.scenario import Arrival, Capacity, Scenario
from scheduler.sim_report import add_up
from scheduler.simulation import price_book
from scheduler.simulator import simulate

START_US = 1_676_419_200 * US_PER_S
POLICIES = ("lowtide", "greedy", "uniform-progress")
V100 = ("us-east-1a", "us-east-1d", "us-east-1f", "us-east-2a", "us-west-2a", "us-west-2c")
H100 = (
    "asia-southeast1-c",
    "europe-west1-c",
    "us-central1-b",
    "us-central1-c",
    "us-east4-b",
    "us-east5-a",
    "us-west1-a",
    "us-west1-b",
)
TUNED = {*V100[::2], *H100[::2]}
"""Zones that the policy's constants were chosen on; the others are held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A row of the table of bars."""

    name: str
    zones: dict[str, list[int]]  # nodes that can be up, step by step
    step_s: int
    nodes: int
    work_s: int
    deadline_s: int
    changeover_s: int
    spot_usd: float
    sure_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One start in one zone."""

    zone: str
    late: bool  # in the second half of the trace
    scenario: Scenario


def v100(data: Path) -> Iterator[Setting]:
    """Give the three deadlines on the V100 zones."""
    folder = data / "spot" / "v100-2023" / "availability"
    zones = {}
    for zone in V100:
        with (folder / f"{zone}_v100_1.csv").open(encoding="utf-8") as text:
            zones[zone] = [int(row["availability"]) for row in csv.DictReader(text)]
    for deadline_h in (52, 60, 70):
        yield Setting(
            name=f"v100-{deadline_h}h",
            zones=zones,
            step_s=195,
            nodes=1,
            work_s=48 * 3_600,
            deadline_s=deadline_h * 3_600,
            changeover_s=780,
            spot_usd=0.9731,
            sure_usd=3.06,
        )


def h100(data: Path) -> Iterator[Setting]:
    """Give the two gangs on the H100 zones; costs are per node and in units of the spot price."""
    path = data / "spot" / "h100-2025" / "h100_16_instances_created.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    zones = {zone: [int(row[zone] or 0) for row in rows] for zone in H100}
    for nodes in (8, 16):
        yield Setting(
            name=f"h100-gang-{nodes}",
            zones=zones,
            step_s=600,
            nodes=nodes,
            work_s=6 * 3_600,
            deadline_s=24 * 3_600,
            changeover_s=720,
            spot_usd=1,
            sure_usd=4,
        )


def cases(setting: Setting, *, starts: int) -> Iterator[Case]:
    """Spread the starts evenly over each zone's trace, so that each deadline lies inside it."""
    for zone, trace in setting.zones.items():
        last = len(trace) - 70 * 3_600 // setting.step_s
        for index in range(starts):
            first = index * last // max(1, starts - 1)
            steps = setting.deadline_s // setting.step_s + 1
            yield Case(
                zone=zone,
                late=2 * index >= starts,
                scenario=_scenario(setting, trace[first : first + steps]),
            )


def _scenario(setting: Setting, levels: list[int]) -> Scenario:
    spot = StepSeries.regular(levels, start_us=START_US, step_us=setting.step_s * US_PER_S)
    sure = StepSeries((START_US,), (setting.nodes,))
    spec = JobSpec(
        nodes=setting.nodes,
        work=setting.work_s,
        deadline=setting.deadline_s,
        checkpoint_interval=0,
    )
    return Scenario(
        start_us=START_US,
        end_us=START_US + 2 * setting.deadline_s * US_PER_S,
        capacities=(
            Capacity(flavor=_flavor(setting, Market.SPOT), limits=spot),
            Capacity(flavor=_flavor(setting, Market.ON_DEMAND), limits=sure),
        ),
        arrivals=(Arrival(at_us=START_US, spec=spec),),
    )


def _flavor(setting: Setting, market: Market) -> Flavor:
    usd = setting.spot_usd if market is Market.SPOT else setting.sure_usd
    return Flavor(
        name=market.value,
        cluster="sim",
        market=market,
        accelerator="any",
        region="here",
        zone="here",
        gpu_milli=1_000,
        cpus=8,
        usd_nanos_per_hour=round(usd * NANOS_PER_USD),
        list_usd_nanos_per_hour=round(setting.sure_usd * NANOS_PER_USD),
        max_nodes=setting.nodes,
        boot_ms=setting.changeover_s * 1_000,
        idle_release_ms=0,
    )


def measure(
    settings: Iterable[Setting], *, starts: int, policies: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Run every case under every policy, and the bound on the same cases."""
    named = tuple(policies)
    return {one.name: _compare(list(cases(one, starts=starts)), one, named) for one in settings}


def _compare(listed: list[Case], setting: Setting, policies: tuple[str, ...]) -> dict[str, Any]:
    unit = setting.nodes
    bounds = [_bound_usd(case.scenario) for case in listed]
    found: dict[str, Any] = {"cases": len(listed), "bound": round(fmean(bounds) / unit, 3)}
    for policy in policies:
        costs, misses, evictions = [], 0, 0
        for case in listed:
            result = simulate(case.scenario, policy=policy)
            costs.append(add_up(result).bill_nanos / NANOS_PER_USD)
            (job,) = result.jobs.values()
            misses += job.ended_us is None or job.ended_us > (job.deadline_us or 0)
            evictions += job.evictions
        found[policy] = {
            "cost": round(fmean(costs) / unit, 3),
            "misses": misses,
            "evictions": evictions,
            **_halves(listed, [c / b for c, b in zip(costs, bounds, strict=True)]),
        }
    return found


def _bound_usd(scenario: Scenario) -> float:
    usd = single_job(scenario, scenario.arrivals[0], book=price_book(scenario)).usd
    assert usd, "on-demand capacity makes every case feasible"
    return usd


def _halves(listed: list[Case], regrets: list[float]) -> dict[str, float]:
    """Give the mean regret, and that of each half of the zones and of the time."""
    both = list(zip(listed, regrets, strict=True))
    parts = {
        "regret": regrets,
        "tuned": [regret for case, regret in both if case.zone in TUNED],
        "held_out": [regret for case, regret in both if case.zone not in TUNED],
        "early": [regret for case, regret in both if not case.late],
        "late": [regret for case, regret in both if case.late],
    }
    return {name: round(fmean(part), 4) for name, part in parts.items()}


def main() -> None:
    """Print a table, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data", type=Path, default=os.environ.get("LOWTIDE_DATA"))
    parser.add_argument("--starts", type=int, default=25)
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    parser.add_argument("--only", default="", help="settings whose name begins so")
    asked = parser.parse_args()
    data = asked.data or Path(__file__).resolve().parents[2] / "shared" / "data"
    settings = [one for one in (*v100(data), *h100(data)) if one.name.startswith(asked.only)]
    figures = measure(settings, starts=asked.starts, policies=asked.policies)
    if asked.json:
        print(json.dumps(figures, indent=2))
        return
    for name, row in figures.items():
        print(f"{name}: bound {row['bound']}, {row['cases']} cases")
        for policy in asked.policies:
            print(f"  {policy:18}", *(f"{key} {value}" for key, value in row[policy].items()))


if __name__ == "__main__":
    main()
