"""The worlds of ``benchmarks.spot_policy``: one job, one zone's spot, on-demand beside it.

Real ones are cut from the traces. Drawn ones follow the law that the policy believes in
(``scheduler.survival``), with each zone's own factors: where the law is exactly true, what is lost
against hindsight is the price of not knowing the future, not of a wrong model.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.durations import US_PER_S
from jobs.spec import NANOS_PER_USD, JobSpec, Market
from scheduler.scenario import Arrival, Capacity, Scenario
from scheduler.survival import FIRST_AGE_H, HAZARD, YOUNG_H, present

START_US = 1_676_419_200 * US_PER_S
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
_LONGEST_S = 70 * 3_600  # starts are the same for every deadline
_SEED = 7


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

    @property
    def steps(self) -> int:
        """How many steps of a trace one job may see."""
        return self.deadline_s // self.step_s + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One start in one zone."""

    zone: str
    late: bool  # in the second half of the trace
    scenario: Scenario


def settings(data: Path) -> dict[str, Setting]:
    """Give all settings by name."""
    return {one.name: one for one in (*v100(data), *h100(data))}


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
    """Give the two gangs on the H100 zones; costs are in units of the spot price."""
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


def cases(setting: Setting, zone: str, *, starts: int) -> Iterator[Case]:
    """Spread the starts evenly over a zone's trace, so that each deadline lies inside it."""
    trace = setting.zones[zone]
    last = len(trace) - _LONGEST_S // setting.step_s
    for index in range(starts):
        first = index * last // max(1, starts - 1)
        levels = trace[first : first + setting.steps]
        late = 2 * index >= starts
        yield Case(zone=zone, late=late, scenario=scenario(setting, levels))


def drawn(setting: Setting, zone: str, *, starts: int) -> Iterator[Case]:
    """Draw worlds by the policy's own law, with the factors of the zone's whole trace."""
    trace, step_us = setting.zones[zone], setting.step_s * US_PER_S
    series = StepSeries.regular(trace, start_us=0, step_us=step_us)
    seen = present(
        [tuple(zip(series.from_us, series.values, strict=True))],
        nodes=setting.nodes,
        now_us=len(trace) * step_us,
        up=True,
    )
    share = sum(level >= setting.nodes for level in trace) / len(trace)
    draw = Random(f"{_SEED} {setting.name} {zone}")
    factors = {True: seen.up_factor, False: seen.down_factor}
    for index in range(starts):
        levels: list[int] = []
        up, age_h = draw.random() < share, FIRST_AGE_H
        while len(levels) < setting.steps:
            lasts_h = spell_h(draw.random(), factor=factors[up], age_h=age_h)
            steps = min(setting.steps, max(1, round(lasts_h * 3_600 / setting.step_s)))
            levels += [setting.nodes * up] * steps
            up, age_h = not up, 0.0
        late = 2 * index >= starts
        yield Case(zone=zone, late=late, scenario=scenario(setting, levels[: setting.steps]))


def spell_h(chance: float, *, factor: float, age_h: float) -> float:
    """Give how much longer a spell of that age lasts, hours: the quantile of the law."""
    grows = min(700.0, -math.log(1 - chance) / (HAZARD * factor))
    return (age_h + YOUNG_H) * math.expm1(grows)


def scenario(setting: Setting, levels: list[int]) -> Scenario:
    """Give the world of one job that sees these levels of spot, submitted at the first of them."""
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
