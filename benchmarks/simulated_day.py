"""A simulated day: 2,000 jobs, at least 200 evictions, and a clean audit at its end.

It proves that the whole loop (admission, placement, eviction, resume, ledger) keeps its books
under churn, and how fast the controller replays: ``python -m benchmarks.simulated_day --json``.
"""

from __future__ import annotations

import argparse
import json
from random import Random
from time import perf_counter
from typing import Any

from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.durations import US_PER_S
from jobs.spec import NANOS_PER_USD, JobSpec, Market
from scheduler.audit_store import audit_store
from scheduler.scenario import Arrival, Capacity, Scenario
from scheduler.sim_report import report
from scheduler.simulator import simulate

START_US = 1_676_419_200 * US_PER_S  # 2023-02-15T00:00:00Z
DAY_S = 86_400
STEP_S = 600
ZONES = ("a", "b", "c", "d")


def day(*, jobs: int, seed: int) -> Scenario:
    """Make the scenario: four spot zones that come and go, and on-demand beside them."""
    random = Random(seed)
    spot = [_spot(zone, nodes=max(2, jobs // 50), random=random) for zone in ZONES]
    arrivals = sorted(
        (_arrival(number, random) for number in range(jobs)), key=lambda one: one.at_us
    )
    return Scenario(
        start_us=START_US,
        end_us=START_US + 4 * DAY_S * US_PER_S,
        seed=seed,
        capacities=(*spot, _on_demand(max(8, jobs // 4))),
        arrivals=tuple(arrivals),
    )


def _spot(zone: str, *, nodes: int, random: Random) -> Capacity:
    """Give a zone whose limit walks at random between nothing and ``nodes``."""
    limit, walk = nodes, []
    for _ in range(2 * DAY_S // STEP_S):
        limit = min(nodes, max(0, limit + random.choice((-4, -2, -1, 0, 0, 1, 2, 4))))
        walk.append(limit)
    flavor = _flavor(f"spot-{zone}", Market.SPOT, zone=zone, usd=random.uniform(0.9, 1.6))
    return Capacity(
        flavor=flavor,
        limits=StepSeries.regular(walk, start_us=START_US, step_us=STEP_S * US_PER_S),
    )


def _on_demand(nodes: int) -> Capacity:
    flavor = _flavor("on-demand", Market.ON_DEMAND, zone="a", usd=3.06, nodes=nodes)
    return Capacity(flavor=flavor, limits=StepSeries((START_US,), (nodes,)))


def _flavor(name: str, market: Market, *, zone: str, usd: float, nodes: int = 0) -> Flavor:
    return Flavor(
        name=name,
        cluster="us-east-1",
        market=market,
        accelerator="V100",
        region="us-east-1",
        zone=f"us-east-1{zone}",
        gpu_milli=4_000,
        cpus=64,
        usd_nanos_per_hour=round(usd * 1_000) * NANOS_PER_USD // 1_000,
        list_usd_nanos_per_hour=3_060_000_000,
        max_nodes=nodes,
        boot_ms=120_000,
        notice_ms=120_000 if market is Market.SPOT else 0,
        idle_release_ms=60_000,
    )


def _arrival(number: int, random: Random) -> Arrival:
    """Give a job: minutes to hours, a fraction of a GPU to a gang of two nodes."""
    work_s = random.choice((300, 900, 1_800, 3_600, 7_200))
    slack = random.choice((None, 3, 6, 12))
    spec = JobSpec(
        name=f"retrain-{number}",
        nodes=random.choice((1, 1, 1, 1, 1, 2)),
        gpus=random.choice((0.5, 1, 1, 2, 4)),
        work=work_s,
        deadline=None if slack is None else work_s * slack + 1_800,
        setup=20,
        restore=40,
        save=random.choice((0, 10, 150)),
        checkpoint_interval=random.choice((0, 600, None)),
        team=random.choice(("ads", "search", "vision")),
    )
    return Arrival(at_us=START_US + random.randrange(DAY_S) * US_PER_S, spec=spec)


def measure(*, jobs: int = 2_000, seed: int = 7, policy: str | None = None) -> dict[str, Any]:
    """Play the day, audit its store and give the figures."""
    result = simulate(day(jobs=jobs, seed=seed), policy=policy)
    began = perf_counter()
    findings = audit_store(result.store)
    audit_s = perf_counter() - began
    figures = report(result)
    figures["audit_s"] = round(audit_s, 3)
    figures["findings"] = [f"{one.rule} {one.subject}: {one.detail}" for one in findings[:20]]
    figures["clean"] = not findings
    figures["jobs_per_s"] = round(jobs / result.wall_s, 1)
    return figures


def main() -> None:
    """Print the figures, as JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--policy")
    asked = parser.parse_args()
    figures = measure(jobs=asked.jobs, seed=asked.seed, policy=asked.policy)
    if asked.json:
        print(json.dumps(figures, indent=2))
        return
    for name in ("jobs", "evictions", "deadline_misses", "unfinished", "wall_s", "clean"):
        print(f"{name:16} {figures[name]}")


if __name__ == "__main__":
    main()
