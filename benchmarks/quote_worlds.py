"""Worlds on which quotes are checked: one job on recorded spot markets, and a queue on them.

Each world begins a day before its job is submitted, so that the scheduler has seen the market as
it would have in production. Half of the zones and half of the time are held out.
"""

from __future__ import annotations

import csv
import gzip
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.spot_policy import H100, START_US, TUNED, V100
from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.durations import US_PER_S
from jobs.spec import NANOS_PER_USD, JobSpec, Market
from scheduler.scenario import Arrival, Capacity, Scenario

HOUR_S = 3_600
WARM_S = 24 * HOUR_S
"""How long the scheduler has watched the market before the job comes."""
AFTER_S = 10 * WARM_S
V100_STEP_S, H100_STEP_S = 195, 600
V100_USD, V100_SURE_USD, H100_USD, H100_SURE_USD = 0.9731, 3.06, 1.0, 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A kind of job on a kind of market."""

    name: str
    work_h: float
    deadline_h: float | None
    nodes: int = 1
    boot_s: int = 780
    zones: int = 1  # of the market at once


SETTINGS = (
    Setting(name="v100-6h-in-12h", work_h=6, deadline_h=12),
    Setting(name="v100-12h-in-24h", work_h=12, deadline_h=24),
    Setting(name="v100-48h-in-60h", work_h=48, deadline_h=60),
    Setting(name="v100-12h-free", work_h=12, deadline_h=None),
    Setting(name="v100-12h-in-24h-3-zones", work_h=12, deadline_h=24, zones=3),
    Setting(name="h100-gang-8-6h-in-24h", work_h=6, deadline_h=24, nodes=8, boot_s=720),
    Setting(name="h100-gang-16-6h-in-24h", work_h=6, deadline_h=24, nodes=16, boot_s=720),
    Setting(name="h100-one-12h-in-18h", work_h=12, deadline_h=18, boot_s=720),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A scenario, and which half it belongs to."""

    setting: str
    zone: str
    tuned: bool  # of the zones that constants were chosen on
    late: bool  # in the second half of the trace
    scenario: Scenario


def traces(data: Path, *, kind: str) -> tuple[dict[str, list[int]], int]:
    """Give the nodes that can be up by zone, step by step, and the step in seconds."""
    if kind == "h100":
        path = data / "spot" / "h100-2025" / "h100_16_instances_created.csv.gz"
        with gzip.open(path, "rt", encoding="utf-8") as text:
            rows = list(csv.DictReader(text))
        return {zone: [int(row[zone] or 0) for row in rows] for zone in H100}, H100_STEP_S
    folder = data / "spot" / "v100-2023" / "availability"
    found = {}
    for zone in V100:
        with (folder / f"{zone}_v100_1.csv").open(encoding="utf-8") as text:
            found[zone] = [int(row["availability"]) for row in csv.DictReader(text)]
    return found, V100_STEP_S


def worlds(data: Path, setting: Setting, *, starts: int) -> Iterator[World]:
    """Spread the starts evenly over each zone's trace."""
    known, step_s = traces(data, kind=setting.name[:4])
    names = list(known)
    span_s = WARM_S + int((setting.deadline_h or 5 * setting.work_h) * HOUR_S)
    for rank, zone in enumerate(names):
        zones = [names[(rank + 2 * other) % len(names)] for other in range(setting.zones)]
        last = len(known[zone]) - span_s // step_s
        for index in range(starts):
            first = index * last // max(1, starts - 1)
            levels = {name: known[name][first:] for name in zones}
            yield World(
                setting=setting.name,
                zone=zone,
                tuned=zone in TUNED,
                late=2 * index >= starts,
                scenario=single(setting, levels, step_s=step_s),
            )


def single(setting: Setting, levels: dict[str, list[int]], *, step_s: int) -> Scenario:
    """Give one job on some zones and on demand."""
    h100 = setting.name.startswith("h100")
    usd, sure_usd = (H100_USD, H100_SURE_USD) if h100 else (V100_USD, V100_SURE_USD)
    spec = JobSpec(
        name=setting.name,
        nodes=setting.nodes,
        work=round(setting.work_h * HOUR_S),
        deadline=None if setting.deadline_h is None else round(setting.deadline_h * HOUR_S),
        checkpoint_interval=0,
    )
    spots = [
        _capacity(
            f"spot-{zone}", Market.SPOT, usd, boot_s=setting.boot_s, levels=steps, step_s=step_s
        )
        for zone, steps in levels.items()
    ]
    sure = _capacity(
        "on-demand", Market.ON_DEMAND, sure_usd, boot_s=setting.boot_s, levels=[setting.nodes]
    )
    return Scenario(
        start_us=START_US,
        end_us=START_US + (WARM_S + AFTER_S) * US_PER_S,
        capacities=(*spots, sure),
        arrivals=(Arrival(at_us=START_US + WARM_S * US_PER_S, spec=spec),),
    )


def _capacity(
    name: str, market: Market, usd: float, *, boot_s: int, levels: list[int], step_s: int = 600
) -> Capacity:
    sure_usd = V100_SURE_USD if usd < 1 else H100_SURE_USD
    flavor = Flavor(
        name=name,
        cluster="sim",
        market=market,
        accelerator="any",
        region="here",
        zone=name,
        gpu_milli=1_000,
        cpus=8,
        usd_nanos_per_hour=round(usd * NANOS_PER_USD),
        list_usd_nanos_per_hour=round(sure_usd * NANOS_PER_USD),
        max_nodes=max(levels),
        boot_ms=boot_s * 1_000,
        idle_release_ms=0,
    )
    series = StepSeries.regular(levels, start_us=START_US, step_us=step_s * US_PER_S)
    return Capacity(flavor=flavor, limits=series)


def queue(data: Path, *, jobs: int, late: bool) -> Scenario:
    """Give jobs of Philly on six V100 zones of a few nodes each, with fewer on-demand nodes.

    ``late`` takes later jobs and the later half of the market.
    """
    known, step_s = traces(data, kind="v100")
    spots = []
    for zone, steps in known.items():
        half = steps[len(steps) // 2 :] if late else steps[: len(steps) // 2]
        levels = [3 * up for up in half]
        spots.append(
            _capacity(
                f"spot-{zone}", Market.SPOT, V100_USD, boot_s=180, levels=levels, step_s=step_s
            )
        )
    sure = _capacity("on-demand", Market.ON_DEMAND, V100_SURE_USD, boot_s=180, levels=[12])
    arrivals = tuple(_philly(data, jobs=jobs, skip=40_000 if late else 10_000))
    return Scenario(
        start_us=START_US,
        end_us=arrivals[-1].at_us + AFTER_S * US_PER_S,
        capacities=(*spots, sure),
        arrivals=arrivals,
    )


def _philly(data: Path, *, jobs: int, skip: int) -> Iterator[Arrival]:
    with lzma.open(data / "jobs" / "philly.csv.xz", "rt", encoding="utf-8") as text:
        rows = [row for row in csv.DictReader(text) if row["duration"] and row["timestamp"]]
    rows.sort(key=lambda row: row["timestamp"])
    first = _instant_s(rows[skip]["timestamp"])
    made = 0
    for row in rows[skip:]:
        gpus, work_s = int(row["num_gpus"]), int(float(row["duration"]))
        if made == jobs:
            return
        if not (1 <= gpus <= 4 and 1_800 <= work_s <= 24 * HOUR_S):
            continue
        slack = (None, 1.6, 2.5, 4.0)[made % 4]
        spec = JobSpec(
            name=f"philly-{made}",
            nodes=gpus,
            work=work_s,
            deadline=None if slack is None else round(work_s * slack) + HOUR_S,
            checkpoint_interval=0,
        )
        at_s = 3 * (_instant_s(row["timestamp"]) - first)  # a third of their pace
        yield Arrival(at_us=START_US + (WARM_S + at_s) * US_PER_S, spec=spec)
        made += 1


def _instant_s(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
