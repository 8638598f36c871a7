"""A portfolio of 300 Philly jobs on six V100 zones: the whole queue planned ahead, or each alone.

It proves what the plan of the whole queue is worth: ``lowtide`` against the same policy without
that plan (``alone``), against every baseline in the same world through the same controller, and
against the bound in hindsight. ``python -m benchmarks.portfolio --json``; ``--write-docs`` makes
``docs/benchmarks/portfolio.md`` and its pictures. The worlds are in ``portfolio_worlds``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

from benchmarks.portfolio_docs import HORIZON_MS, write_docs
from benchmarks.portfolio_worlds import ZONES, Sample, world
from jobs.spec import NANOS_PER_USD
from scheduler.bound_lp import several_jobs
from scheduler.horizon_keeper import highs
from scheduler.horizon_model import Program, Solution
from scheduler.sim_report import add_up
from scheduler.simulation import Result, Simulation, price_book
from scheduler.snapshot import PolicySettings

BASELINES = ("greedy", "uniform-progress", "spot-now", "lowest-window", "on-demand")
POLICIES = ("lowtide", "alone", *BASELINES)
SAMPLES = {
    "tuned: week 1": Sample(week=0, seed=1),
    "held out: week 3": Sample(week=2, seed=2),
    "held out: week 4": Sample(week=3, seed=3),
    "held out: week 2, three zones": Sample(week=1, seed=4, jobs=150, zones=ZONES[1::2]),
    "held out: week 3, calm": Sample(week=2, seed=5, jobs=150),
}
"""What is measured. Constants were chosen on the first alone."""
ALONE = ("held out: week 2, three zones", "held out: week 3, calm")
"""Where the policy for one job is measured too: it takes minutes for a large queue."""
SLACKS = (1.2, 1.6, 2.4, 4.0)
CURVE = Sample(week=2, seed=6, jobs=100)
CURVE_POLICIES = ("lowtide", "greedy", "uniform-progress", "spot-now")

Row = dict[str, Any]


def run(sample: Sample, policy: str, data: Path) -> Row:
    """Play one sample under one policy, or bound it (``bound``)."""
    scenario, began = world(sample, data=data), perf_counter()
    if policy == "bound":
        usd = several_jobs(scenario, scenario.arrivals, book=price_book(scenario)).usd
        return {"cost_usd": usd, "wall_s": round(perf_counter() - began, 1)}
    settings = PolicySettings(margin_percent=0, name=policy, horizon_ms=HORIZON_MS)
    if policy == "alone":
        settings = replace(settings, name="lowtide", horizon_ms=0)
    simulation, timed = Simulation(scenario, settings=settings), _Timed()
    simulation.controller.horizons.solver = timed
    result = simulation.run()
    return {**_figures(result), **timed.figures(), "wall_s": round(perf_counter() - began, 1)}


class _Timed:
    """The solver, with its time and sizes."""

    def __init__(self) -> None:
        self._solve, self._wall_s, self._variables = highs(), [0.0], 0

    def __call__(self, program: Program) -> Solution | None:
        began = perf_counter()
        found = self._solve(program)
        self._wall_s.append(perf_counter() - began)
        self._variables = max(self._variables, len(program.cost))
        return found

    def figures(self) -> Row:
        """Give how often it solved, how long that took, and how large the largest was."""
        if not self._variables:
            return {}
        return {
            "plans": len(self._wall_s) - 1,
            "plan_mean_ms": round(1_000 * sum(self._wall_s) / (len(self._wall_s) - 1), 1),
            "plan_most_ms": round(1_000 * max(self._wall_s), 1),
            "plan_variables": self._variables,
        }


def _figures(result: Result) -> Row:
    jobs = list(result.jobs.values())
    late = [j for j in jobs if j.ended_us is None or j.ended_us > (j.deadline_us or j.ended_us)]
    return {
        "cost_usd": round(add_up(result).bill_nanos / NANOS_PER_USD, 2),
        "misses": len(late) + len(result.refused),
        "evictions": sum(job.evictions for job in jobs),
        "stops": sum(job.preemptions for job in jobs),
    }


def measure(
    samples: dict[str, Sample], policies: Iterable[str], data: Path, *, rows_file: Path | None
) -> Row:
    """Play every sample under every policy, on two cores; go on from the rows of a file."""
    named = (*policies, "bound")
    tasks = [
        (name, policy)
        for policy in named
        for name, sample in samples.items()
        if policy != "alone" or name in ALONE
    ]
    rows = _rows(rows_file)
    with ProcessPoolExecutor(2) as pool:
        missing = [task for task in tasks if task not in rows]
        asked = {pool.submit(run, samples[name], pol, data): (name, pol) for name, pol in missing}
        for done in as_completed(asked):
            rows[asked[done]] = done.result()
            if rows_file is not None:
                with rows_file.open("a", encoding="utf-8") as text:
                    print(json.dumps([*asked[done], done.result()]), file=text)
    return {
        name: _compared({policy: rows[one, policy] for one, policy in tasks if one == name})
        for name in samples
    }


def _rows(path: Path | None) -> dict[tuple[str, str], Row]:
    """Read what was measured before."""
    lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
    return {(name, policy): row for name, policy, row in map(json.loads, lines)}


def _compared(rows: dict[str, Row]) -> Row:
    bound = rows.pop("bound")
    for row in rows.values():
        row["ratio"] = round(row["cost_usd"] / bound["cost_usd"], 4)
    best = min((name for name in rows if name in BASELINES), key=lambda n: rows[n]["cost_usd"])
    saved = 1 - rows["lowtide"]["cost_usd"] / rows[best]["cost_usd"]
    return {
        "bound_usd": round(bound["cost_usd"], 2),
        "bound_wall_s": bound["wall_s"],
        "best_baseline": best,
        "saved_percent": round(100 * saved, 2),
        "policies": rows,
    }


def curve(policies: Iterable[str], data: Path) -> Row:
    """Give cost against deadline / work: the same jobs, all with the same slack."""
    samples = {str(slack): replace(CURVE, slack=slack) for slack in SLACKS}
    return measure(samples, policies, data, rows_file=None)


def main() -> None:
    """Print a table, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data", type=Path, default=os.environ.get("LOWTIDE_DATA"))
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    parser.add_argument("--only", nargs="+", choices=SAMPLES, help="these samples")
    parser.add_argument("--rows", type=Path, help="keep each result there, and go on from it")
    parser.add_argument("--no-curve", action="store_true", help="leave out cost against slack")
    parser.add_argument("--write-docs", action="store_true", help="write docs/benchmarks")
    asked = parser.parse_args()
    data = Path(asked.data or Path(__file__).resolve().parents[2] / "shared" / "data")
    began = perf_counter()
    samples = {name: one for name, one in SAMPLES.items() if name in (asked.only or SAMPLES)}
    found: Row = {"samples": measure(samples, asked.policies, data, rows_file=asked.rows)}
    if not asked.no_curve:
        found["curve"] = curve([p for p in CURVE_POLICIES if p in asked.policies], data)
    found["mean_ratio"] = round(
        fmean(one["policies"]["lowtide"]["ratio"] for one in found["samples"].values()), 4
    )
    found["wall_s"] = round(perf_counter() - began, 1)
    found["played_s"] = round(sum(_played_s(found["samples"])), 1)
    only = " ".join(f"'{name}'" for name in asked.only or ())
    flags = [f"--only {only}"] * bool(only) + ["--no-curve"] * asked.no_curve
    flags += [f"--policies {' '.join(asked.policies)}"] * (asked.policies != POLICIES)
    found["command"] = " ".join(["python -m benchmarks.portfolio --write-docs", *flags])
    if asked.write_docs:
        write_docs(found, Path(__file__).resolve().parents[1] / "docs" / "benchmarks")
    print(json.dumps(found, indent=2) if asked.json else "\n".join(_table(found)))


def _played_s(samples: dict[str, Row]) -> Iterator[float]:
    for sample in samples.values():
        yield sample["bound_wall_s"]
        yield from (row["wall_s"] for row in sample["policies"].values())


def _table(found: Row) -> Iterator[str]:
    for name, sample in found["samples"].items():
        yield f"{name}: bound ${sample['bound_usd']}, {sample['saved_percent']} % below the best"
        for policy, row in sample["policies"].items():
            yield f"  {policy:18}" + " ".join(f"{key} {value}" for key, value in row.items())


if __name__ == "__main__":
    main()
