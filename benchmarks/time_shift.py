"""Time shifting on a known tariff: what each policy pays for jobs that may wait, and the bound.

Real jobs (Alibaba PAI 2020, as sampled by the authors of GAIA) on the real hourly shape of a
wholesale electricity price, mapped to a GPU price: negative hours count as 0, the rest is scaled
so that its mean over the replay is 100 cents an hour. Jobs of up to two hours may end 6 h later
than if they had started at once, longer ones 24 h later (GAIA's short and long wait). A launch
boots for 120 s and a restore takes 60 s. Costs are cents for each useful GPU-hour, so a policy that
knows nothing of the price pays about 100 and the launches.

Ours and the baselines go through the real controller (``scheduler.simulator``). ``bound`` is the
exact dynamic program of ``scheduler.bound`` for each job alone; ``hours`` the cheapest hours of
each job without any changeover, which no plan of anybody can beat. Constants were chosen on
``TUNED`` in its first weeks; the rest is held out: ``python -m benchmarks.time_shift --json``.
"""

from __future__ import annotations

import argparse
import csv
import json
import lzma
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.durations import US_PER_MS, US_PER_S
from jobs.spec import NANOS_PER_USD, JobSpec, Market
from scheduler.bound import hindsight, past_of
from scheduler.scenario import Arrival, Capacity, Scenario
from scheduler.scenario_files import as_prices
from scheduler.sim_report import add_up
from scheduler.simulation import price_book
from scheduler.simulator import simulate
from scheduler.stretches import cheapest_hours

START_US = 1_640_995_200 * US_PER_S  # 2022-01-01T00:00Z, the first hour of the tariffs
HOUR_S = 3_600
HOUR_US = HOUR_S * US_PER_S
WEEKS = 2  # of prices: the jobs arrive in the first
REGIONS = ("US-CAL-CISO", "US-TEX-ERCO", "DE-LU", "ES")
TUNED = ("US-CAL-CISO",)
"""Regions that constants were chosen on, in the early weeks; the others are held out."""
PERIODS = {"early": 2, "late": 70}
"""The week of the two years in which a replay starts."""
POLICIES = ("on-demand", "lowest-window", "lowtide")
BOOT_S, RESTORE_S = 120, 60
SHORT_S, SHORT_WAIT_S, LONG_WAIT_S = 2 * HOUR_S, 6 * HOUR_S, 24 * HOUR_S
DAY_AHEAD_S = 36 * HOUR_S  # at noon the prices of the next day are published
_CELLS = 3_000_000  # of the bound of one job: about 0.05 s
REFERENCE = {"run-now": 122.6, "lowest window": 109.2, "suspend/resume bound": 99.4}
"""The design's figures for another sample of jobs; their construction is not on record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One region's prices in one fortnight."""

    region: str
    period: str
    cents: tuple[Decimal, ...]  # by hour, mean 100


def settings(data: Path, *, regions: Iterable[str] = REGIONS) -> Iterator[Setting]:
    """Give each region in each period."""
    path = data / "tariffs" / "electricity_price_usd_per_mwh_hourly_2022_2023.csv.xz"
    with lzma.open(path, "rt", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    for region in regions:
        for period, week in PERIODS.items():
            first = week * 7 * 24
            hours = [Decimal(row[region]) for row in rows[first : first + WEEKS * 7 * 24]]
            yield Setting(
                region=region, period=period, cents=tuple(as_prices(hours, mean_usd=Decimal(100)))
            )


def arrivals(data: Path, *, every: int) -> tuple[Arrival, ...]:
    """Give each so many-th job of the sample, with what it may wait."""
    with lzma.open(data / "jobs" / "pai_1k.csv.xz", "rt", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))[::every]
    return tuple(
        Arrival(
            at_us=START_US + int(Decimal(row["arrival_time"]) * US_PER_S),
            spec=_spec(float(row["length"])),
        )
        for row in rows
    )


def _spec(work_s: float) -> JobSpec:
    wait_s = SHORT_WAIT_S if work_s <= SHORT_S else LONG_WAIT_S
    return JobSpec(
        work=work_s,
        restore=RESTORE_S,
        deadline=BOOT_S + work_s + wait_s,
        checkpoint_interval=0,
    )


def scenario(setting: Setting, jobs: tuple[Arrival, ...], *, known_s: int = 0) -> Scenario:
    """Give the world: room for everybody at the hour's price, published so far ahead (0 = all)."""
    nanos = [int(cents * NANOS_PER_USD / 100) for cents in setting.cents]
    flavor = Flavor(
        name="gpu",
        cluster="sim",
        market=Market.ON_DEMAND,
        accelerator="any",
        region=setting.region,
        zone=setting.region,
        gpu_milli=1_000,
        cpus=8,
        usd_nanos_per_hour=nanos[0],
        list_usd_nanos_per_hour=NANOS_PER_USD,
        max_nodes=len(jobs),
        boot_ms=BOOT_S * 1_000,
        idle_release_ms=0,
    )
    prices = StepSeries.regular(nanos, start_us=START_US, step_us=HOUR_US)
    capacity = Capacity(
        flavor=flavor,
        limits=StepSeries((START_US,), (len(jobs),)),
        prices=prices,
        known_ahead_us=known_s * US_PER_S or len(nanos) * HOUR_US,
    )
    end_us = START_US + len(nanos) * HOUR_US
    return Scenario(start_us=START_US, end_us=end_us, capacities=(capacity,), arrivals=jobs)


def compare(setting: Setting, jobs: tuple[Arrival, ...]) -> dict[str, Any]:
    """Play one setting under every policy, and bound it."""
    world = scenario(setting, jobs)
    useful_h = sum(job.spec.work or 0 for job in jobs) / (HOUR_S * 1_000)
    found: dict[str, Any] = {"region": setting.region, "period": setting.period}
    found |= {"useful_gpu_h": round(useful_h, 1), **_floors(world, useful_h)}
    for policy in POLICIES:
        found[policy] = _play(world, policy, useful_h=useful_h)
    ahead = scenario(setting, jobs, known_s=DAY_AHEAD_S)
    found["lowtide, 36 h ahead"] = _play(ahead, "lowtide", useful_h=useful_h)
    return found


def _floors(world: Scenario, useful_h: float) -> dict[str, float]:
    past = past_of(world, book=price_book(world), until_us=world.end_us)
    exact = sum(
        hindsight(
            job.spec,
            submitted_us=job.at_us,
            deadline_us=job.spec.deadline_us(submitted_us=job.at_us),
            past=past,
            cells=_CELLS,
        ).usd
        or 0.0
        for job in world.arrivals
    )
    hours = sum(_hours_usd(world, job) for job in world.arrivals)
    return {"bound": round(100 * exact / useful_h, 2), "hours": round(100 * hours / useful_h, 2)}


def _hours_usd(world: Scenario, job: Arrival) -> float:
    """Give the cost of a job in its cheapest hours, the first boot included and no other."""
    series = world.price_series["gpu"]
    end_us = job.spec.deadline_us(submitted_us=job.at_us)
    assert end_us is not None, "every job of the replay has a deadline"
    cuts = [job.at_us, *(at for at in series.from_us if job.at_us < at < end_us), end_us]
    steps = [(b - a, series.at(a)) for a, b in pairwise(cuts)]
    need_us = (job.spec.work or 0) * US_PER_MS + BOOT_S * US_PER_S
    return cheapest_hours(steps, need_us)[0] / HOUR_US / NANOS_PER_USD


def _play(world: Scenario, policy: str, *, useful_h: float) -> dict[str, Any]:
    result = simulate(world, policy=policy)
    jobs = result.jobs.values()
    missed = sum(job.ended_us is None or job.ended_us > (job.deadline_us or 0) for job in jobs)
    return {
        "cost": round(100 * add_up(result).bill_nanos / NANOS_PER_USD / useful_h, 2),
        "misses": missed + len(result.refused),
        "stops": sum(job.preemptions for job in jobs),
        "wall_s": round(result.wall_s, 1),
    }


def measure(
    data: Path, *, every: int, regions: Iterable[str] = REGIONS, workers: int = 2
) -> dict[str, Any]:
    """Play all settings; give each, and the mean over the halves."""
    jobs = arrivals(data, every=every)
    listed = list(settings(data, regions=regions))
    with ProcessPoolExecutor(max_workers=workers) as pool:
        rows = list(pool.map(compare, listed, [jobs] * len(listed)))
    return {"jobs": len(jobs), "rows": rows, "means": _halves(rows), "reference": REFERENCE}


def _halves(rows: list[dict[str, Any]]) -> dict[str, Any]:
    parts = {
        "all": rows,
        "tuned": [row for row in rows if row["region"] in TUNED and row["period"] == "early"],
        "held out": [row for row in rows if row["region"] not in TUNED or row["period"] != "early"],
        "regions held out": [row for row in rows if row["region"] not in TUNED],
        "early": [row for row in rows if row["period"] == "early"],
        "late": [row for row in rows if row["period"] == "late"],
    }
    return {name: _mean(part) for name, part in parts.items() if part}


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    bound = sum(row["bound"] for row in rows)
    found: dict[str, Any] = {"bound": round(bound / len(rows), 2)}
    found["hours"] = round(sum(row["hours"] for row in rows) / len(rows), 2)
    for policy in (*POLICIES, "lowtide, 36 h ahead"):
        cost = sum(row[policy]["cost"] for row in rows)
        found[policy] = {
            "cost": round(cost / len(rows), 2),
            "regret": round(cost / bound, 4),
            "misses": sum(row[policy]["misses"] for row in rows),
        }
    return found


def table(figures: dict[str, Any]) -> str:
    """Give the figures as Markdown."""
    named = (*POLICIES, "lowtide, 36 h ahead")
    lines = [
        f"| prices | bound | cheapest hours | {' | '.join(named)} | lowtide / bound | misses |",
        "|---|---|---|" + "---|" * (len(named) + 2),
    ]
    for row in figures["rows"]:
        costs = [f"{row[name]['cost']:.2f}" for name in named]
        misses = sum(row[name]["misses"] for name in named)
        regret = row["lowtide"]["cost"] / row["bound"]
        cells = [f"{row['region']} {row['period']}", f"{row['bound']:.2f}", f"{row['hours']:.2f}"]
        lines.append(f"| {' | '.join([*cells, *costs, f'{regret:.4f}', str(misses)])} |")
    for part, mean in figures["means"].items():
        costs = [f"{mean[name]['cost']:.2f}" for name in named]
        misses = sum(mean[name]["misses"] for name in named)
        cells = [f"mean, {part}", f"{mean['bound']:.2f}", f"{mean['hours']:.2f}"]
        ratio = f"{mean['lowtide']['regret']:.4f}"
        lines.append(f"| {' | '.join([*cells, *costs, ratio, str(misses)])} |")
    return "\n".join(lines)


def write_docs(figures: dict[str, Any], path: Path, *, command: str) -> None:
    """Put the table between the marks of the page, with the command that made it."""
    begin, end = "<!-- figures: begin -->", "<!-- figures: end -->"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    made = f"{begin}\n\n{figures['jobs']} jobs, `{command}`:\n\n{table(figures)}\n\n{end}"
    path.write_text(before + made + after, encoding="utf-8")


def main() -> None:
    """Print a table, or JSON with ``--json``; ``--write-docs`` puts the table into docs/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data", type=Path, default=os.environ.get("LOWTIDE_DATA"))
    parser.add_argument("--every", type=int, default=8, help="take each so many-th job")
    parser.add_argument("--regions", nargs="+", default=REGIONS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write-docs", action="store_true")
    asked = parser.parse_args()
    data = asked.data or Path(__file__).resolve().parents[2] / "shared" / "data"
    figures = measure(data, every=asked.every, regions=asked.regions, workers=asked.workers)
    if asked.write_docs:
        page = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "time_shift.md"
        command = f"python -m benchmarks.time_shift --every {asked.every} --write-docs"
        write_docs(figures, page, command=command)
    print(json.dumps(figures, indent=2) if asked.json else table(figures))


if __name__ == "__main__":
    main()
