"""Is a quote true? Quotes at submission against what then happened under the real controller.

Each job is submitted to a controller that has watched a recorded market for a day; it is quoted
from what that controller sees, and then the simulation goes on. A good P95 holds for 95 % of the
jobs, a good P50 for half of them. Halves by zone and by week are printed apart. ``DOUBT``, the one
constant of quotes, was set beforehand and tuned on none of this; the law of survival is that of the
policies, with its own tuned zones. How the others of a queue are followed was changed once, after
both queues had been seen: ``python -m benchmarks.quote_calibration --json``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from time import perf_counter, process_time
from typing import Any

from benchmarks.quote_worlds import SETTINGS, Setting, World, queue, worlds
from jobs.durations import US_PER_S
from jobs.errors import InfeasibleError
from jobs.quotes import Quoted
from jobs.spec import NANOS_PER_USD
from scheduler.quote import quote
from scheduler.scenario import Arrival, Scenario
from scheduler.sim_report import add_up
from scheduler.simulation import Result, Simulation
from scheduler.snapshot import PolicySettings

HOUR_US = 3_600 * US_PER_S
TOLERANCE_US = 60 * US_PER_S
"""A finish within a minute of the quoted one is the quoted one."""
GOAL = 0.90
DOCS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "quote_calibration.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Where a check belongs."""

    setting: str
    tuned: bool
    late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One job: what it was quoted, and what came."""

    part: Part
    work_h: float
    wait_h: tuple[float | None, float | None, float]  # start after submission: P50, P95, actual
    finish_h: tuple[float | None, float | None, float | None]
    usd: tuple[float | None, float | None, float]
    naive_h: float
    naive_usd: float
    risk: float
    missed: bool
    cpu_s: float


class Quoting(Simulation):
    """A simulation that quotes each job just before it is submitted."""

    quotes: dict[int, tuple[Quoted, float, int]]

    def step(self, at_us: int) -> None:
        """Tick once without the newcomers, so that the quote sees what the loop sees."""
        due = [arrival for arrival in self._arrivals if arrival.at_us <= at_us]
        if due:
            self.clock.advance_to(at_us)
            self.driver.run_until(at_us)
            for _ in range(2):
                self.controller.tick()
                self.driver.acknowledge()
            for arrival in due:
                self._quote(arrival)
        super().step(at_us)

    def _quote(self, arrival: Arrival) -> None:
        seen = self.controller.seen
        assert seen is not None, "the controller has ticked"
        began = process_time()
        try:
            found = quote(seen, arrival.spec, others=False).quoted
        except InfeasibleError:
            return
        cheapest = min(
            offer.usd_nanos_per_hour for offer in seen.offers if offer.limit >= arrival.spec.nodes
        )
        self.quotes[id(arrival)] = (found, process_time() - began, cheapest)


def play(scenario: Scenario, *, policy: str) -> tuple[Quoting, Result]:
    """Play a scenario under a policy, with a quote for each job."""
    sim = Quoting(scenario, settings=PolicySettings(margin_percent=0, name=policy))
    sim.quotes = {}
    return sim, sim.run()


def checks(scenario: Scenario, *, policy: str, part: Part) -> list[Check]:
    """Compare every job of a scenario with its quote."""
    sim, result = play(scenario, policy=policy)
    sums = add_up(result).jobs
    found = []
    for job_id, arrival in result.job_ids.items():
        known = sim.quotes.get(id(arrival))
        if known is not None:
            row = result.jobs[job_id]
            actual = (
                row.ended_us,
                _first_us(result, job_id),
                sums[job_id].usd_nanos / NANOS_PER_USD,
            )
            missed = row.deadline_us is not None and (row.ended_us or 1 << 62) > row.deadline_us
            found.append(_check(arrival, known, actual, missed=missed, part=part))
    return found


def _first_us(result: Result, job_id: str) -> int:
    starts = [one.created_us for one in result.attempts.values() if one.job_id == job_id]
    return min(starts, default=result.ended_us)


def _check(
    arrival: Arrival,
    known: tuple[Quoted, float, int],
    actual: tuple[int | None, int, float],
    *,
    missed: bool,
    part: Part,
) -> Check:
    quoted, cpu_s, cheapest = known
    ended_us, first_us, usd = actual
    work_h = (arrival.spec.work or 0) / 3_600_000

    def hours(at_us: int | None) -> float | None:
        return None if at_us is None else (at_us - arrival.at_us) / HOUR_US

    def dollars(nanos: int | None) -> float | None:
        return None if nanos is None else nanos / NANOS_PER_USD

    return Check(
        work_h=work_h,
        wait_h=(hours(quoted.start_p50_us), hours(quoted.start_p95_us), hours(first_us) or 0.0),
        finish_h=(hours(quoted.finish_p50_us), hours(quoted.finish_p95_us), hours(ended_us)),
        usd=(dollars(quoted.cost_p50_usd_nanos), dollars(quoted.cost_p95_usd_nanos), usd),
        naive_h=work_h,
        naive_usd=work_h * arrival.spec.nodes * cheapest / NANOS_PER_USD,
        risk=quoted.miss_permille / 1_000,
        missed=missed,
        cpu_s=cpu_s,
        part=part,
    )


def _of_world(world: World, *, policy: str) -> list[Check]:
    part = Part(setting=world.setting, tuned=world.tuned, late=world.late)
    return checks(world.scenario, policy=policy, part=part)


def _of_queue(late: bool, *, data: Path, jobs: int, policy: str) -> list[Check]:  # noqa: FBT001 - mapped
    scenario = queue(data, jobs=jobs, late=late)
    part = Part(setting="philly-queue", tuned=not late, late=late)
    return checks(scenario, policy=policy, part=part)


def measure(
    data: Path,
    *,
    starts: int,
    jobs: int,
    policy: str,
    processes: int,
    settings: Iterable[Setting] = SETTINGS,
) -> list[Check]:
    """Quote and play every case."""
    listed = [world for one in settings for world in worlds(data, one, starts=starts)]
    with ProcessPoolExecutor(processes) as pool:
        parts = list(pool.map(partial(_of_world, policy=policy), listed, chunksize=4))
        if jobs:
            one = partial(_of_queue, data=data, jobs=jobs, policy=policy)
            parts += pool.map(one, (False, True))
    return [check for part in parts for check in part]


# -- figures ----------------------------------------------------------------------------------


def figures(found: list[Check]) -> dict[str, Any]:
    """Add up what the quotes were worth."""
    ends = [(p50, p95, end) for p50, p95, end in (one.finish_h for one in found)]
    late_h = TOLERANCE_US / HOUR_US
    inside = [p95 is None or (end is not None and end <= p95 + late_h) for _, p95, end in ends]
    cents = 1.001
    return {
        "jobs": len(found),
        "finish_inside_p95": _mean(inside),
        "finish_above_p95": round(1 - _mean(inside), 4),
        "finish_inside_p50": _mean(
            p50 is None or (end is not None and end <= p50 + late_h) for p50, _, end in ends
        ),
        "start_inside_p95": _mean(
            p95 is None or at <= p95 + late_h for _, p95, at in (one.wait_h for one in found)
        ),
        "cost_inside_p95": _mean(
            p95 is None or usd <= p95 * cents for _, p95, usd in (one.usd for one in found)
        ),
        "cost_inside_p50": _mean(
            p50 is None or usd <= p50 * cents for p50, _, usd in (one.usd for one in found)
        ),
        "finish_bias_p50": round(median((end - p50) / w for (p50, _, end), w in _known(found)), 4),
        "pinball_p95": _pinball(found, 0.95, lambda one: one.finish_h[1]),
        "pinball_p95_naive": _pinball(found, 0.95, lambda one: one.naive_h),
        "pinball_p50": _pinball(found, 0.5, lambda one: one.finish_h[0]),
        "pinball_p50_naive": _pinball(found, 0.5, lambda one: one.naive_h),
        "cost_ratio_p50": round(fmean(_cost_ratios(found)), 4),
        "risk_quoted": round(fmean(one.risk for one in found), 4),
        "missed": sum(one.missed for one in found),
        "cpu_s_p50": round(median(one.cpu_s for one in found), 3),
        "cpu_s_max": round(max(one.cpu_s for one in found), 3),
    }


def _mean(flags: Iterable[bool]) -> float:
    return round(fmean(flags), 4)


def _known(found: list[Check]) -> list[tuple[tuple[float, Any, float], float]]:
    triples = [(one.finish_h, one.work_h) for one in found]
    return [((a, b, c), w) for (a, b, c), w in triples if a is not None and c is not None] or [
        ((0.0, None, 0.0), 1.0)
    ]


def _cost_ratios(found: list[Check]) -> list[float]:
    return [usd / p50 for p50, _, usd in (one.usd for one in found) if p50] or [1.0]


def _pinball(found: list[Check], share: float, of: Callable[[Check], float | None]) -> float:
    """Mean pinball loss of a quantile of the finish, in units of the job's own work."""
    losses = []
    for one in found:
        told, end = of(one), one.finish_h[2]
        if told is not None and end is not None:
            gap = (end - told) / one.work_h
            losses.append(max(share * gap, (share - 1) * gap))
    return round(fmean(losses), 4) if losses else 0.0


def report(found: list[Check]) -> dict[str, Any]:
    """Give the figures of everything, of each half, and of each setting."""
    parts = {
        "all": found,
        "tuned": [one for one in found if one.part.tuned and not one.part.late],
        "held out": [one for one in found if not (one.part.tuned and not one.part.late)],
        "held-out zones": [one for one in found if not one.part.tuned],
        "early": [one for one in found if not one.part.late],
        "late": [one for one in found if one.part.late],
    }
    for name in dict.fromkeys(one.part.setting for one in found):
        parts[name] = [one for one in found if one.part.setting == name]
    return {name: figures(part) for name, part in parts.items() if part}


COLUMNS = {
    "jobs": "jobs",
    "finish_inside_p95": "finish <= P95",
    "finish_inside_p50": "finish <= P50",
    "start_inside_p95": "start <= P95",
    "cost_inside_p95": "cost <= P95",
    "cost_inside_p50": "cost <= P50",
    "finish_bias_p50": "bias of P50 / work",
    "pinball_p95": "pinball P95",
    "pinball_p95_naive": "naive",
    "risk_quoted": "risk quoted",
    "missed": "missed",
}


def write_docs(data: dict[str, Any], *, path: Path = DOCS) -> None:
    """Write the table and what it rests on."""
    lines = [
        "# Are quotes true?",
        "",
        f"Made by `python -m benchmarks.quote_calibration {data['settings']} --write-docs`.",
        "",
        (__doc__ or "").partition("\n")[2].strip(),
        "",
        f"Goal: at least {GOAL:.0%} of finishes inside P95.",
        "",
        "| part | " + " | ".join(COLUMNS.values()) + " |",
        "|---|" + "---:|" * len(COLUMNS),
    ]
    for part, row in data["figures"].items():
        lines.append(f"| {part} | " + " | ".join(_cell(row[name]) for name in COLUMNS) + " |")
    overall = data["figures"]["all"]
    lines += ["", ABOUT.format(**overall, above=f"{overall['finish_above_p95']:.1%}"), *NOTES]
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


ABOUT = """Above P95 (should be near 5 %): {above}. A quote took {cpu_s_p50} s of processor time at
the median and {cpu_s_max} s at most, without the cost-deadline curve.

`tuned` is the tuned zones in the first half of the time, `held out` everything else. The naive
quote is the work at the cheapest price of the moment, done at once. Pinball losses are in units of
the job's own work; lower is better.
"""
NOTES = (
    """What to know when reading it:

- Quotes err on the safe side: fewer than 5 % of finishes lie above P95. There are only 20 to 64
  futures, so that a quote stays quick, and the P95 of 20 is nearly the worst of them; and `DOUBT`
  widens every future.
- P50 is too late nearly everywhere (three quarters of the finishes are inside it, half should be):
  spot mostly lived longer than the law that all policies share believes before it has seen much.
  That points at the prior of `scheduler/survival.py` rather than at the walk; it was not taken
  apart further.
- Of three zones at once a job hardly ever waits, so a naive quote is nearly exact there and the
  futures, in which zones fail together, are too wide.
- The queue is what taught most: while the others of a queue kept their nodes whatever spot did,
  70 % of the finishes of 80 jobs in it were inside P95. Now they are evicted under the same sky,
  and spot that comes back is theirs first. So its row is not held out in the strict sense.
- Work is exact in these replays. A real estimate is not, and its error comes on top.""",
)


def _cell(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def main() -> None:
    """Print a table, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data", type=Path, default=os.environ.get("LOWTIDE_DATA"))
    parser.add_argument("--starts", type=int, default=3, help="starts in each zone")
    parser.add_argument("--jobs", type=int, default=30, help="jobs in each of the two queues")
    parser.add_argument("--policy", default=PolicySettings().name)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="settings whose name begins so")
    parser.add_argument("--checks", type=Path, help="a JSON file for every single check")
    parser.add_argument("--write-docs", action="store_true", help=f"write {DOCS.name}")
    asked = parser.parse_args()
    data = asked.data or Path(__file__).resolve().parents[2] / "shared" / "data"
    began = perf_counter()
    found = measure(
        data,
        starts=asked.starts,
        jobs=0 if asked.only else asked.jobs,
        policy=asked.policy,
        processes=asked.processes,
        settings=[one for one in SETTINGS if one.name.startswith(asked.only)],
    )
    told = f"--starts {asked.starts} --jobs {asked.jobs} --policy {asked.policy}"
    result = {
        "settings": told,
        "wall_s": round(perf_counter() - began, 1),
        "figures": report(found),
    }
    if asked.checks:
        asked.checks.write_text(json.dumps([asdict(one) for one in found]), encoding="utf-8")
    if asked.write_docs:
        write_docs(result)
    if asked.json:
        print(json.dumps(result, indent=2))
        return
    for part, row in report(found).items():
        print(f"{part:26}", *(f"{COLUMNS[name]} {_cell(row[name])} " for name in COLUMNS))


if __name__ == "__main__":
    main()
