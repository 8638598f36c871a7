"""The published world of SkyNomad's artifact: six H100 zones, six starts, one job at a time.

Read from its result files and checked against its code (github.com/andylizf/skynomad-artifact):
a fixed deadline of 311 ticks of 600 s, work = deadline / ratio, a changeover of 0.2 h at each
launch, a checkpoint of 50 GB, egress of 0.02 $/GB between any two regions, spot and on-demand
prices per zone from the trace files, starts back to back from the first tick. Its clock moves in
whole ticks; ours does not. A launch that only probes is billed for a minute there, which is our
boot time; the other 11 minutes are set-up here.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.durations import US_PER_S
from jobs.spec import NANOS_PER_USD, JobSpec, Market
from scheduler.scenario import Arrival, Capacity, Scenario

START_US = 1_759_536_600 * US_PER_S
STEP_S, TICKS = 600, 311
BOOT_S, SETUP_S = 60, 660
EGRESS_USD_PER_GB = 0.02
SIX = (
    "us-central1-a",
    "us-west1-a",
    "europe-west1-c",
    "europe-west3-c",
    "asia-southeast1-b",
    "asia-south2-b",
)
SCALE = (
    "asia-southeast1-c",
    "asia-south2-b",
    "us-west1-b",
    "europe-west3-c",
    "us-west1-a",
    "us-east4-a",
    "europe-west1-c",
    "us-central1-c",
)
"""Zones in the order in which the published region scaling adds them."""
OTHERS = (
    "us-central1-b",
    "us-central1-c",
    "us-east4-a",
    "us-east4-b",
    "us-east5-a",
    "us-west1-b",
    "asia-southeast1-c",
)
"""Zones that are in none of the six: the policy was built looking at these, and at the six."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone's trace: nodes that can be up by tick, and its two prices in dollars per hour."""

    name: str
    up: tuple[int, ...]
    spot_usd: float
    sure_usd: float

    @property
    def region(self) -> str:
        """The zone without its letter."""
        return self.name.rpartition("-")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A point of a published curve."""

    figure: str
    x: str  # the value on the figure's axis, as published
    zones: tuple[str, ...]
    ratio: float
    checkpoint_gb: float = 50.0


def settings() -> Iterator[Setting]:
    """Give the points that are replayed."""
    for ratio in ("1.05", "1.1", "1.15", "1.2", "1.3", "1.5", "2.0"):
        yield Setting(figure="deadline", x=ratio, zones=SIX, ratio=float(ratio))
    for gb in ("0", "500", "1000", "2000", "4000"):
        yield Setting(figure="checkpoint", x=gb, zones=SIX, ratio=1.2, checkpoint_gb=float(gb))
    for count in range(2, len(SCALE) + 1):
        yield Setting(figure="regions", x=str(count), zones=SCALE[:count], ratio=1.2)


def load(data: Path) -> dict[str, Zone]:
    """Read the traces in the artifact's form, in which 1 = UNAVAILABLE."""
    name = "converted_multi_region_aligned_h100_16_merged.tar.gz"
    zones = {}
    with tarfile.open(data / "spot" / "h100-2025" / name) as archive:
        for member in archive.getmembers():
            if not member.name.endswith("/full.json"):
                continue
            held = archive.extractfile(member)
            assert held is not None, member.name
            zone = _zone(Path(member.name).parent.name, json.load(io.TextIOWrapper(held)))
            zones[zone.name] = zone
    return zones


def _zone(folder: str, body: dict[str, Any]) -> Zone:
    return Zone(
        name=folder.removesuffix("_h100_16"),
        up=tuple(1 - int(gone) for gone in body["data"]),
        spot_usd=float(body["prices"][0]),
        sure_usd=float(body["metadata"]["price_info"]["on_demand_price"]),
    )


def published(data: Path, setting: Setting) -> dict[str, float]:
    """Give the published mean cost by strategy at a point."""
    files = {
        "deadline": ("deadline_sensitivity", "deadline_ratio"),
        "checkpoint": ("checkpoint_sensitivity", "checkpoint_size"),
        "regions": ("region_scaling", "num_regions"),
    }
    name, column = files[setting.figure]
    path = data / "spot" / "published" / f"{name}.values.csv"
    with path.open(encoding="utf-8") as text:
        rows = [row for row in csv.DictReader(text) if float(row[column]) == float(setting.x)]
    return {row["strategy"]: round(float(row["mean"]), 2) for row in rows}


def scenario(zones: Sequence[Zone], setting: Setting, *, first: int, probe: bool) -> Scenario:
    """Give one start as a scenario of ours."""
    deadline_s = TICKS * STEP_S
    regions = list(dict.fromkeys(zone.region for zone in zones))
    spec = JobSpec(
        work=round(deadline_s / setting.ratio),
        deadline=deadline_s,
        setup=SETUP_S,
        checkpoint_interval=0,
        checkpoint_gb=setting.checkpoint_gb,
    )
    egress = round(EGRESS_USD_PER_GB * NANOS_PER_USD)
    return Scenario(
        start_us=START_US,
        end_us=START_US + 2 * deadline_s * US_PER_S,
        probe=probe,
        capacities=tuple(_capacities(zones, first)),
        arrivals=(Arrival(at_us=START_US, spec=spec),),
        egress_nanos_per_gb={(a, b): egress for a in regions for b in regions if a != b},
    )


def _capacities(zones: Sequence[Zone], first: int) -> Iterator[Capacity]:
    for zone in zones:
        up = StepSeries.regular(
            zone.up[first : first + TICKS], start_us=START_US, step_us=STEP_S * US_PER_S
        )
        yield Capacity(flavor=_flavor(zone, Market.SPOT), limits=up)
        yield Capacity(
            flavor=_flavor(zone, Market.ON_DEMAND), limits=StepSeries((START_US,), (1,))
        )


def _flavor(zone: Zone, market: Market) -> Flavor:
    usd = zone.spot_usd if market is Market.SPOT else zone.sure_usd
    return Flavor(
        name=f"{zone.name}-{market.value}",
        cluster="sim",
        market=market,
        accelerator="H100",
        region=zone.region,
        zone=zone.name,
        gpu_milli=1_000,
        cpus=8,
        usd_nanos_per_hour=round(usd * NANOS_PER_USD),
        list_usd_nanos_per_hour=round(zone.sure_usd * NANOS_PER_USD),
        max_nodes=1,
        boot_ms=BOOT_S * 1_000,
        idle_release_ms=0,
    )
