"""One job on one zone's spot market, with on-demand beside it: what each policy pays.

The bars of the design: V100 zones of 2023 (48 h of work, changeover 780 s, deadlines of 52, 60 and
70 h) and gangs on H100 zones of 2025 (6 h of work within 24 h, changeover 720 s). Costs are per
node; ``regret`` is the mean of cost / hindsight optimum, ``of_means`` the ratio of the means.
Constants were chosen on half of the zones (``benchmarks.spot_worlds.TUNED``); each figure is
printed for both halves of the zones, and for both halves of the time: ``python -m
benchmarks.spot_policy --json``. ``drawn`` is our policy in worlds that its own law has drawn: what
remains there is the price of not knowing the future. ``--write-docs`` renders the page and its
pictures.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.spot_worlds import H100, START_US, TUNED, V100, Case, cases, drawn, settings
from jobs.spec import NANOS_PER_USD
from scheduler.bound import single_job
from scheduler.sim_report import add_up
from scheduler.simulation import price_book
from scheduler.simulator import simulate

__all__ = ["H100", "START_US", "TUNED", "V100", "main", "measure", "table"]

POLICIES = ("lowtide", "greedy", "uniform-progress", "spot-now", "on-demand")
"""``lowest-window`` is ``spot-now`` where prices have no windows; ``--policies`` takes it too."""
BOUND, DRAWN = "bound", "drawn"
BARS = {"v100-52h": 1.12, "v100-60h": 1.05, "v100-70h": 1.04}
_GANG_BAR = 1.05
_DRAWN_OF_STARTS = 2  # one drawn world for so many real starts
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "spot_policy.md"
_BEGIN, _END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One zone of one setting under one policy, or the bounds of its cases."""

    data: Path
    setting: str
    zone: str
    starts: int
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What one job paid, dollars per node, or had to pay at least."""

    zone: str
    late: bool
    usd: float
    bound_usd: float = 0.0
    missed: bool = False
    evictions: int = 0


_settings = lru_cache(maxsize=1)(settings)


def play(task: Task) -> list[Played]:
    """Play the cases of a task; made for a process of its own."""
    setting = _settings(task.data)[task.setting]
    if task.policy == BOUND:
        listed = cases(setting, task.zone, starts=task.starts)
        return [
            Played(zone=one.zone, late=one.late, usd=_bound_usd(one) / setting.nodes)
            for one in listed
        ]
    if task.policy == DRAWN:
        worlds = drawn(setting, task.zone, starts=-(-task.starts // _DRAWN_OF_STARTS))
        return [_play(one, policy="lowtide", nodes=setting.nodes, bounded=True) for one in worlds]
    listed = cases(setting, task.zone, starts=task.starts)
    return [_play(one, policy=task.policy, nodes=setting.nodes) for one in listed]


def _play(case: Case, *, policy: str, nodes: int, bounded: bool = False) -> Played:
    result = simulate(case.scenario, policy=policy)
    (job,) = result.jobs.values()
    return Played(
        zone=case.zone,
        late=case.late,
        usd=add_up(result).bill_nanos / NANOS_PER_USD / nodes,
        bound_usd=_bound_usd(case) / nodes if bounded else 0.0,
        missed=job.ended_us is None or job.ended_us > (job.deadline_us or 0),
        evictions=job.evictions,
    )


def _bound_usd(case: Case) -> float:
    book = price_book(case.scenario)
    usd = single_job(case.scenario, case.scenario.arrivals[0], book=book).usd
    assert usd, "on-demand capacity makes every case feasible"
    return usd


def measure(
    data: Path, *, starts: int, policies: Iterable[str], only: str = "", workers: int = 2
) -> dict[str, dict[str, Any]]:
    """Play every case under every policy, the bound on the same cases, and drawn worlds."""
    named = tuple(policies)
    chosen = {name: one for name, one in settings(data).items() if name.startswith(only)}
    tasks = [
        Task(data=data, setting=name, zone=zone, starts=starts, policy=policy)
        for name, one in chosen.items()
        for policy in (BOUND, DRAWN, *named)
        for zone in one.zones
    ]
    played: dict[tuple[str, str], list[Played]] = {}
    with ProcessPoolExecutor(max_workers=workers) as pool:
        for task, found in zip(tasks, pool.map(play, tasks), strict=True):
            played.setdefault((task.setting, task.policy), []).extend(found)
    return {name: _setting(played, name, named) for name in chosen}


def _setting(
    played: dict[tuple[str, str], list[Played]], name: str, policies: tuple[str, ...]
) -> dict[str, Any]:
    bounds = [one.usd for one in played[name, BOUND]]
    worlds = played[name, DRAWN]
    return {
        "cases": len(bounds),
        "bar": BARS.get(name, _GANG_BAR),
        BOUND: round(fmean(bounds), 3),
        **{policy: _figures(played[name, policy], bounds) for policy in policies},
        DRAWN: _figures(worlds, [one.bound_usd for one in worlds]),
    }


def _figures(played: list[Played], bounds: list[float]) -> dict[str, Any]:
    return {
        "cost": round(fmean(one.usd for one in played), 3),
        "misses": sum(one.missed for one in played),
        "evictions": sum(one.evictions for one in played),
        "of_means": round(sum(one.usd for one in played) / sum(bounds), 4),
        **_halves(played, [one.usd / bound for one, bound in zip(played, bounds, strict=True)]),
    }


def _halves(played: list[Played], regrets: list[float]) -> dict[str, float]:
    """Give the mean regret, and that of each half of the zones and of the time."""
    both = list(zip(played, regrets, strict=True))
    parts = {
        "regret": regrets,
        "tuned": [regret for one, regret in both if one.zone in TUNED],
        "held_out": [regret for one, regret in both if one.zone not in TUNED],
        "early": [regret for one, regret in both if not one.late],
        "late": [regret for one, regret in both if one.late],
    }
    return {name: round(fmean(part), 4) for name, part in parts.items() if part}


def table(figures: dict[str, dict[str, Any]]) -> str:
    """Give the figures as a table in Markdown."""
    columns = ("regret", "tuned", "held_out", "early", "late", "of_means")
    heads = ("setting", "policy", "mean cost", *columns, "misses", "evictions")
    lines = [f"| {' | '.join(heads)} |".replace("_", " "), "|---" * len(heads) + "|"]
    for name, row in figures.items():
        bar = f"bar {row['bar']}"
        lines.append(f"| {name} | hindsight optimum, {bar} | {row[BOUND]:.3f} |" + " |" * 8)
        lines += _rows(row, columns)
    return "\n".join(lines)


def _rows(row: dict[str, Any], columns: tuple[str, ...]) -> Iterator[str]:
    for policy, found in row.items():
        if not isinstance(found, dict):
            continue
        shown = "lowtide, drawn worlds" if policy == DRAWN else policy
        cells = [f"{found['cost']:.3f}"]
        cells += [f"{found[key]:.4f}" if key in found else "" for key in columns]
        cells += [str(found["misses"]), str(found["evictions"])]
        yield f"| | {shown} | {' | '.join(cells)} |"


def write_docs(figures: dict[str, dict[str, Any]], *, command: str) -> None:
    """Put the table between the marks of the page, and draw its picture."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN, 1)
    made = f"{_BEGIN}\n\nMade by `{command}`:\n\n{table(figures)}\n\n{_END}"
    PAGE.write_text(before + made + rest.split(_END, 1)[1], encoding="utf-8")
    picture(figures)


def picture(figures: dict[str, dict[str, Any]]) -> None:
    """Draw mean cost against deadline on the V100 zones, a curve for each policy."""
    from benchmarks.plots import cost_curves

    rows = {int(name[5:-1]): row for name, row in figures.items() if name.startswith("v100-")}
    series: dict[str, list[tuple[float, float]]] = {}
    for deadline_h, row in rows.items():
        series.setdefault(BOUND, []).append((deadline_h, row[BOUND]))
        for policy, found in row.items():
            if isinstance(found, dict) and policy != DRAWN:
                series.setdefault(policy, []).append((deadline_h, found["cost"]))
    cost_curves(
        PAGE.with_name("spot_policy_v100.png"),
        title="48 h of work on one V100 zone, changeover 780 s",
        x_label="deadline, hours after submission",
        y_label="mean cost, $ per job",
        series=series,
    )


def main() -> None:
    """Print a table, or JSON with ``--json``; render the page with ``--write-docs``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data", type=Path, default=os.environ.get("LOWTIDE_DATA"))
    parser.add_argument("--starts", type=int, default=25, help="in each zone")
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    parser.add_argument("--only", default="", help="settings whose name begins so")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--write-docs", action="store_true", help=f"write {PAGE.name}")
    asked = parser.parse_args()
    data = Path(asked.data or ROOT.parent / "shared" / "data")
    figures = measure(
        data,
        starts=asked.starts,
        policies=asked.policies,
        only=asked.only,
        workers=asked.workers,
    )
    if asked.write_docs:
        command = f"python -m benchmarks.spot_policy --starts {asked.starts} --write-docs"
        write_docs(figures, command=command)
    print(json.dumps(figures, indent=2) if asked.json else table(figures))


if __name__ == "__main__":
    main()
