"""The worlds of the portfolio benchmark: Philly jobs with deadlines on six real V100 zones.

Everything is drawn from real traces by a seed. See ``docs/benchmarks/portfolio.md`` for what was
chosen, and why.
"""

from __future__ import annotations

import csv
import json
import lzma
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from random import Random

from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.durations import US_PER_S
from jobs.spec import NANOS_PER_USD, JobSpec, Market
from scheduler.scenario import Arrival, Capacity, Scenario
from scheduler.windows import PriceWindow

ZONES = ("us-east-1a", "us-east-1d", "us-east-1f", "us-east-2a", "us-west-2a", "us-west-2c")
TRACE_US = int(datetime(2023, 2, 15, 22, 8, 16, tzinfo=UTC).timestamp()) * US_PER_S
STEP_S = 195
HOUR_S, DAY_S = 3_600, 86_400
WEEKS = 5  # of the trace in which jobs arrive; two more for what they leave behind
POOL = 8  # nodes that a zone has while it has spot at all: the largest gang fits
SURE_USD, SURE_NODES = 3.06, 400
BOOT_S, SETUP_S, RESTORE_S, NOTICE_S = 120, 180, 300, 120
LOOKED_S = DAY_S  # the zones were watched for so long before the first job
SHORTEST_S, LONGEST_S, MOST_GPUS = HOUR_S, 48 * HOUR_S, 4
TIGHTEST, LOOSEST = 1.15, 4.0  # deadline / work, drawn evenly by its logarithm
GRACE_S = HOUR_S  # and so much more
TEAMS = 6
NIGHT = PriceWindow(
    name="night",
    start_s=20 * HOUR_S,
    end_s=8 * HOUR_S,
    time_zone="America/New_York",
    markets=("on-demand",),
    price_percent=50,
    rests_on="chargeback",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One world: which zones, which week of the trace, which jobs."""

    zones: tuple[str, ...] = ZONES
    week: int = 0
    seed: int = 0
    jobs: int = 300
    days: int = 3  # in which they arrive
    slack: float | None = None  # deadline / work of all jobs, instead of a draw for each


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job of the trace."""

    at_s: int  # within its week
    work_s: int
    gpus: int


@lru_cache(maxsize=1)
def philly(data: Path) -> tuple[tuple[Submitted, ...], ...]:
    """Give the jobs that a deadline is about, by week of the trace; quiet weeks are left out."""
    path = data / "jobs" / "philly.csv.xz"
    weeks: dict[int, list[Submitted]] = {}
    with lzma.open(path, "rt", encoding="utf-8") as text:
        for row in csv.DictReader(text):
            if not row["duration"] or not row["num_gpus"]:
                continue
            work_s, gpus = int(float(row["duration"])), int(row["num_gpus"])
            if SHORTEST_S <= work_s <= LONGEST_S and gpus <= MOST_GPUS:
                at = datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC)
                week, at_s = divmod(int(at.timestamp()) - 4 * DAY_S, 7 * DAY_S)  # from Mondays
                weeks.setdefault(week, []).append(Submitted(at_s, work_s, gpus))
    return tuple(tuple(weeks[week]) for week in sorted(weeks) if len(weeks[week]) > 800)


def world(sample: Sample, *, data: Path) -> Scenario:
    """Make the world of a sample: the spot zones, on-demand with its night tariff, the jobs."""
    first_us = TRACE_US + (sample.week * 7 * DAY_S + LOOKED_S) * US_PER_S
    spots = [_spot(zone, week=sample.week, data=data) for zone in sample.zones]
    return Scenario(
        start_us=first_us - LOOKED_S * US_PER_S,
        end_us=first_us + 60 * DAY_S * US_PER_S,
        seed=sample.seed,
        capacities=(*spots, _sure()),
        arrivals=tuple(sorted(_arrivals(sample, first_us, data), key=lambda one: one.at_us)),
        windows=(NIGHT,),
    )


def _arrivals(sample: Sample, first_us: int, data: Path) -> Iterator[Arrival]:
    random = Random(sample.seed)
    weeks = philly(data)
    week = weeks[sample.seed % len(weeks)]
    drawn = random.sample([job for job in week if job.at_s < sample.days * DAY_S], sample.jobs)
    for number, job in enumerate(drawn):
        ratio = sample.slack or math.exp(random.uniform(math.log(TIGHTEST), math.log(LOOSEST)))
        spec = JobSpec(
            name=f"job-{number}",
            nodes=job.gpus,
            work=job.work_s,
            deadline=int(job.work_s * ratio) + GRACE_S,
            setup=SETUP_S,
            restore=RESTORE_S,
            checkpoint_interval=0,
            team=f"team-{random.randrange(TEAMS)}",
        )
        yield Arrival(at_us=first_us + job.at_s * US_PER_S, spec=spec)


@lru_cache(maxsize=8)
def _trace(zone: str, data: Path) -> tuple[int, ...]:
    path = data / "spot" / "v100-2023" / "availability" / f"{zone}_v100_1.csv"
    with path.open(encoding="utf-8") as text:
        return tuple(int(row["availability"]) for row in csv.DictReader(text))


@lru_cache(maxsize=1)
def _prices(data: Path) -> dict[str, list[float]]:
    path = data / "spot" / "v100-2023" / "spot_prices.json"
    found: dict[str, list[float]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _spot(zone: str, *, week: int, data: Path) -> Capacity:
    skip = week * 7 * DAY_S // STEP_S
    start_us = TRACE_US + week * 7 * DAY_S * US_PER_S
    levels = [POOL * level for level in _trace(zone, data)[skip:]]
    series = _prices(data)
    name = next(key for key in series if key.startswith(zone))
    prices = [round(usd * NANOS_PER_USD) for usd in series[name][skip:]]
    return Capacity(
        flavor=_flavor(f"spot-{zone}", Market.SPOT, zone=zone, nodes=POOL, usd_nanos=prices[0]),
        limits=_steps(levels, start_us=start_us),
        prices=_steps(prices, start_us=start_us),
    )


def _steps(values: list[int], *, start_us: int) -> StepSeries:
    """Give a series that names changes alone."""
    changes = [i for i, value in enumerate(values) if not i or value != values[i - 1]]
    return StepSeries(
        tuple(start_us + i * STEP_S * US_PER_S for i in changes),
        tuple(values[i] for i in changes),
    )


def _sure() -> Capacity:
    nanos = round(SURE_USD * NANOS_PER_USD)
    flavor = _flavor("on-demand", Market.ON_DEMAND, zone="", nodes=SURE_NODES, usd_nanos=nanos)
    return Capacity(flavor=flavor, limits=StepSeries((TRACE_US,), (SURE_NODES,)))


def _flavor(name: str, market: Market, *, zone: str, nodes: int, usd_nanos: int) -> Flavor:
    return Flavor(
        name=name,
        cluster="aws",
        market=market,
        accelerator="V100",
        region=zone[:-1] or "us-east-1",
        zone=zone or "us-east-1a",
        gpu_milli=1_000,
        cpus=8,
        usd_nanos_per_hour=usd_nanos,
        list_usd_nanos_per_hour=round(SURE_USD * NANOS_PER_USD),
        max_nodes=nodes,
        boot_ms=BOOT_S * 1_000,
        notice_ms=NOTICE_S * 1_000 if market is Market.SPOT else 0,
        idle_release_ms=BOOT_S * 1_000,
    )
