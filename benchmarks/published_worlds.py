"""The published world of SkyNomad's artifact: H100 zones, six starts, one job at a time.

Read from its result files and its code (github.com/andylizf/skynomad-artifact): a fixed deadline
of 311 ticks of 600 s, work = deadline / ratio, a changeover of 0.2 h at each launch, a checkpoint
of 50 GB, egress of 0.02 $/GB between any two regions, spot and on-demand prices per zone from the
trace files, starts back to back from the first tick. Its clock moves in whole ticks and its bill
in whole hours of them; ours do not. A launch that only probes is billed for a minute there, which
is our boot time; the other 11 minutes of the changeover are set-up here.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.durations import US_PER_S
from jobs.spec import NANOS_PER_USD, JobSpec, Market
from scheduler.scenario import Arrival, Capacity, Scenario

START_US = 1_759_536_600 * US_PER_S
BOOT_S, SETUP_S = 60, 660
EGRESS_USD_PER_GB, NEAR_USD_PER_GB = 0.02, 0.01
_NEAR = {("us-east-1", "us-east-2"), ("us-east-2", "us-east-1")}
_TAR = "converted_multi_region_aligned_h100_16_merged.tar.gz"
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
V100 = ("us-east-1a", "us-east-1d", "us-east-1f", "us-east-2a", "us-west-2a", "us-west-2c")


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone's trace: nodes that can be up and the spot price by tick, dollars per hour."""

    name: str
    region: str
    step_s: int
    up: tuple[int, ...]
    spot_usd: tuple[float, ...]
    sure_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A point of a curve."""

    figure: str
    x: str  # the value on the figure's axis, as published
    zones: tuple[str, ...]
    ratio: float
    checkpoint_gb: float = 50.0
    ticks: int = 311  # until the deadline
    starts: tuple[int, ...] = tuple(311 * start for start in range(6))


@dataclass(frozen=True, slots=True)
class World:
    """One start in the zones of a setting."""

    zones: tuple[Zone, ...]
    first: int

    def scenario(self, setting: Setting, *, probe: bool) -> Scenario:
        """Give it as a scenario of ours."""
        deadline_s = setting.ticks * self.zones[0].step_s
        spec = JobSpec(
            work=round(deadline_s / setting.ratio),
            deadline=deadline_s,
            setup=SETUP_S,
            checkpoint_interval=0,
            checkpoint_gb=setting.checkpoint_gb,
        )
        ends = slice(self.first, self.first + setting.ticks)
        return Scenario(
            start_us=START_US,
            end_us=START_US + 2 * deadline_s * US_PER_S,
            probe=probe,
            capacities=tuple(one for zone in self.zones for one in _capacities(zone, ends)),
            arrivals=(Arrival(at_us=START_US, spec=spec),),
            egress_nanos_per_gb=_egress([zone.region for zone in self.zones]),
        )


def settings() -> Iterator[Setting]:
    """Give the points that are replayed."""
    for ratio in ("1.05", "1.1", "1.2", "1.5", "2.0"):
        yield Setting(figure="deadline", x=ratio, zones=SIX, ratio=float(ratio))
    for gb in ("0", "1000", "4000"):
        yield Setting(figure="checkpoint", x=gb, zones=SIX, ratio=1.2, checkpoint_gb=float(gb))
    for count in (2, 4, 6, 8):
        yield Setting(figure="regions", x=str(count), zones=SCALE[:count], ratio=1.2)
    for ratio in ("1.2", "1.5"):
        yield Setting(
            figure="held-out",
            x=ratio,
            zones=V100,
            ratio=float(ratio),
            ticks=1_106,
            starts=tuple(3_400 * start for start in range(5)),
        )


def worlds(data: Path, setting: Setting) -> Iterator[World]:
    """Give the starts of a setting."""
    known = _h100(data) if setting.zones[0] not in V100 else _v100(data)
    zones = tuple(known[name] for name in setting.zones)
    for first in setting.starts:
        yield World(zones, first)


@lru_cache(maxsize=1)
def _h100(data: Path) -> dict[str, Zone]:
    """Read the traces in the artifact's form, in which 1 = UNAVAILABLE."""
    zones = {}
    with tarfile.open(data / "spot" / "h100-2025" / _TAR) as archive:
        for member in archive.getmembers():
            if not member.name.endswith("/full.json"):
                continue
            held = archive.extractfile(member)
            assert held is not None, member.name
            zone = _converted(Path(member.name).parent.name, json.load(io.TextIOWrapper(held)))
            zones[zone.name] = zone
    return zones


def _converted(folder: str, body: dict[str, Any]) -> Zone:
    name = folder.removesuffix("_h100_16")
    return Zone(
        name=name,
        region=name.rpartition("-")[0],
        step_s=600,
        up=tuple(1 - int(gone) for gone in body["data"]),
        spot_usd=tuple(float(usd) for usd in body["prices"]),
        sure_usd=float(body["metadata"]["price_info"]["on_demand_price"]),
    )


@lru_cache(maxsize=1)
def _v100(data: Path) -> dict[str, Zone]:
    folder = data / "spot" / "v100-2023"
    prices = json.loads((folder / "spot_prices.json").read_text(encoding="utf-8"))
    zones = {}
    for name in V100:
        path = folder / "availability" / f"{name}_v100_1.csv"
        with path.open(encoding="utf-8") as text:
            up = tuple(int(row["availability"]) for row in csv.DictReader(text))
        usd = tuple(float(one) for one in prices[f"{name}_v100_1"])
        zones[name] = Zone(name, name[:-1], 195, up, usd, 3.06)
    return zones


def published(data: Path, setting: Setting) -> dict[str, float]:
    """Give the published mean cost by strategy at a point; nothing was published held out."""
    files = {
        "deadline": ("deadline_sensitivity", "deadline_ratio"),
        "checkpoint": ("checkpoint_sensitivity", "checkpoint_size"),
        "regions": ("region_scaling", "num_regions"),
    }
    if setting.figure not in files:
        return {}
    name, column = files[setting.figure]
    path = data / "spot" / "published" / f"{name}.values.csv"
    with path.open(encoding="utf-8") as text:
        rows = [row for row in csv.DictReader(text) if float(row[column]) == float(setting.x)]
    return {row["strategy"]: round(float(row["mean"]), 2) for row in rows}


def _egress(regions: list[str]) -> dict[tuple[str, str], int]:
    pairs = [(a, b) for a in dict.fromkeys(regions) for b in dict.fromkeys(regions) if a != b]
    return {
        pair: round((NEAR_USD_PER_GB if pair in _NEAR else EGRESS_USD_PER_GB) * NANOS_PER_USD)
        for pair in pairs
    }


def _capacities(zone: Zone, ticks: slice) -> Iterator[Capacity]:
    step_us = zone.step_s * US_PER_S
    nanos = [round(usd * NANOS_PER_USD) for usd in zone.spot_usd[ticks]]
    yield Capacity(
        flavor=_flavor(zone, Market.SPOT, usd=zone.spot_usd[ticks.start]),
        limits=StepSeries.regular(zone.up[ticks], start_us=START_US, step_us=step_us),
        prices=StepSeries.regular(nanos, start_us=START_US, step_us=step_us),
    )
    yield Capacity(
        flavor=_flavor(zone, Market.ON_DEMAND, usd=zone.sure_usd),
        limits=StepSeries((START_US,), (1,)),
    )


def _flavor(zone: Zone, market: Market, *, usd: float) -> Flavor:
    return Flavor(
        name=f"{zone.name}-{market.value}",
        cluster="sim",
        market=market,
        accelerator="any",
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
