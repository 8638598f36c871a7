"""What saving costs and saves: the interval rule against fixed, Young, Daly and hindsight.

A training of 20 GB of state lives through spells of spot capacity. Its overhead is the share of
the time it was paid for that brought no work that counts: stalls, slowed steps, work lost with the
node, restarts. Young and Daly are given each zone's mean life in hindsight, `best-fixed` the best
interval of a grid in hindsight. Ours knows only what it has seen: `rule` learns a rate per zone,
`rule-age` (what the scheduler sends where capacity is observed) knows the spell's age as well, and
`rule-notice` gets a notice of two minutes of 9 ends in 10. `python -m benchmarks.cadence --json`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cadence_worlds import Life, Zone, levels_at, mean_life_s, worlds
from checkpointing.cadence import Cadence, interval_us, save_cost_us
from checkpointing.hazard_posterior import MILLION, HazardPosterior
from cluster.hazard import noticed_ppm, posterior
from jobs.spec import Market
from scheduler.survival import HAZARD, YOUNG_H, present

US = 1_000_000
MS_PER_HOUR = 3_600_000
STATE_GB = 20.0
STALL_S = 0.058 * STATE_GB  # one copy into touched memory, measured on the project's machine
UPLOAD_S = 1.0 * STATE_GB  # 8 Gbit/s
INTERFERENCE = 0.22
RESTART_S = 90.0
NOTICE_S = 120.0
KEPT_NOTICES = 0.9
COST_US = save_cost_us(
    int(STALL_S * US), upload_us=int(UPLOAD_S * US), interference_ppm=int(INTERFERENCE * MILLION)
)
GRID_S = [30 * 2 ** (step / 3) for step in range(25)]  # half a minute to two hours

Interval = Callable[[float], float]
"""Gives the seconds between saves from the seconds lived."""


@dataclass(slots=True)
class Sums:
    """Seconds, added up over lives."""

    paid: float = 0
    restart: float = 0
    saving: float = 0
    lost: float = 0

    def add(self, other: Sums) -> None:
        """Take in another part."""
        self.paid += other.paid
        self.restart += other.restart
        self.saving += other.saving
        self.lost += other.lost

    @property
    def overhead(self) -> float:
        """The share of what was paid for that brought nothing."""
        return (self.restart + self.saving + self.lost) / max(self.paid, 1)


def live(lasts_s: float, *, interval: Interval, end: str) -> Sums:
    """Train through one life; `end`: "cut" = it goes on, "noticed" = two minutes' warning, "lost".

    While an upload runs, training is slower and the snapshot protects nothing yet.
    """
    sums = Sums(paid=lasts_s, restart=min(RESTART_S, lasts_s))
    noticed = end == "noticed"
    until_s = max(sums.restart, lasts_s - NOTICE_S) if noticed else lasts_s
    snapshot_s = safe_s = sums.restart  # instants; work before `safe_s` cannot be lost
    due_s = _due_s(interval, snapshot_s)
    while due_s < until_s:
        committed_s = due_s + STALL_S + UPLOAD_S
        if committed_s > until_s:
            break
        sums.saving += COST_US / US
        snapshot_s = safe_s = due_s
        due_s = max(_due_s(interval, snapshot_s), committed_s)
    in_flight_s = 0.0
    if due_s < until_s:  # a save is in flight at the end: its cost is paid
        sums.saving += min(STALL_S + (until_s - due_s) * INTERFERENCE, until_s - due_s)
        in_flight_s = due_s + STALL_S + UPLOAD_S - until_s
    if noticed:  # it saves, leaves and gives the rest of the notice back
        used_s = min(in_flight_s + STALL_S + UPLOAD_S, lasts_s - until_s)
        sums.saving += used_s
        sums.paid = until_s + used_s
    elif end == "lost":
        sums.lost += until_s - safe_s
    return sums


def _due_s(interval: Interval, snapshot_s: float) -> float:
    """The rule is asked again and again: a belief that has calmed meanwhile waits longer."""
    due_s = snapshot_s + interval(snapshot_s)
    return max(due_s, snapshot_s + interval(due_s))


# -- strategies -----------------------------------------------------------------------------


def fixed(interval_s: float) -> Interval:
    """The same interval for ever."""
    return lambda _lived_s: interval_s


def young_s(mean_s: float) -> float:
    """Young 1974, with what a save costs training."""
    return math.sqrt(2 * COST_US / US * mean_s)


def daly_s(mean_s: float) -> float:
    """Daly 2006, the higher-order estimate."""
    cost_s = COST_US / US
    if cost_s >= 2 * mean_s:
        return mean_s
    part = math.sqrt(cost_s / (2 * mean_s))
    return young_s(mean_s) * (1 + part / 3 + part**2 / 9) - cost_s


def by_rule(belief: HazardPosterior, *, notice_ppm: int = 0) -> Interval:
    """Ours: what a training does that was told this belief at its start."""

    def interval_s(lived_s: float) -> float:
        hazard = belief.lived(int(lived_s * US)).hazard_ppb_per_s
        known = Cadence(hazard_ppb_per_s=hazard, notice_ppm=notice_ppm, cost_us=COST_US)
        return interval_us(known) / US

    return interval_s


def of_flavor(zone: Zone, index: int) -> HazardPosterior:
    """Give what the scheduler believes of the zone's nodes when a life begins."""
    before = zone.lives[:index]
    lived_ms = zone.nodes * int(sum(one.lasts_s for one in before) * 1_000)
    evictions, exposure_ms = posterior(Market.SPOT, evictions=len(before), exposure_ms=lived_ms)
    return HazardPosterior(evictions, exposure_ms * 1_000 // zone.nodes)


def of_spell(zone: Zone, index: int) -> HazardPosterior:
    """Give the same where the ups and downs were observed: by the age of the spell."""
    now_us = int(zone.lives[index].from_s * US)
    spell = present([levels_at(zone, index)], nodes=zone.nodes, now_us=now_us, up=True)
    exposure_us = int((YOUNG_H + spell.age_h) * MS_PER_HOUR) * 1_000
    return HazardPosterior(round(HAZARD * spell.up_factor * MILLION), exposure_us)


# -- measuring ------------------------------------------------------------------------------


@dataclass(slots=True)
class Row:
    """One strategy in one world."""

    total: Sums = field(default_factory=Sums)
    parts: dict[str, Sums] = field(default_factory=dict)

    def add(self, zone: Zone, life: Life, sums: Sums) -> None:
        """Take in a life, and put it into its halves."""
        self.total.add(sums)
        for part in ("late" if life.late else "early", "held_out" if zone.held_out else "tuned"):
            self.parts.setdefault(part, Sums()).add(sums)

    def figures(self) -> dict[str, float]:
        """Give percentages of what was paid for."""
        total, paid = self.total, max(self.total.paid, 1)
        shares = {"saving": total.saving, "lost": total.lost, "restart": total.restart}
        parts = {name: part.overhead for name, part in sorted(self.parts.items())}
        found = {"overhead": total.overhead} | {k: v / paid for k, v in shares.items()} | parts
        return {name: round(100 * share, 2) for name, share in found.items()}


def measure(zones: Iterable[Zone]) -> dict[str, Any]:
    """Give every strategy's overhead in one world, percent."""
    rows: dict[str, Row] = {}
    listed = list(zones)
    for zone in listed:
        dice = random.Random(zone.name)
        best = fixed(_best_fixed_s(zone))
        mean_s = mean_life_s(zone.lives)
        for index, life in enumerate(zone.lives):
            end = "cut" if life.cut else "lost"
            spell = of_spell(zone, index)
            share = noticed_ppm(evictions=index, noticed=int(KEPT_NOTICES * index))
            strategies = {f"fixed-{m}min": fixed(60 * m) for m in (10, 30, 60)} | {
                "young": fixed(young_s(mean_s)),
                "daly": fixed(daly_s(mean_s)),
                "best-fixed": best,
                "rule": by_rule(of_flavor(zone, index)),
                "rule-age": by_rule(spell),
            }
            for name, interval in strategies.items():
                sums = live(life.lasts_s, interval=interval, end=end)
                rows.setdefault(name, Row()).add(zone, life, sums)
            warned = "noticed" if end == "lost" and dice.random() < KEPT_NOTICES else end
            for name, interval in (
                ("rule-notice", by_rule(spell, notice_ppm=share * 8 // 9)),
                ("fixed-30min-notice", fixed(1_800)),
            ):
                sums = live(life.lasts_s, interval=interval, end=warned)
                rows.setdefault(name, Row()).add(zone, life, sums)
    lives = [life for zone in listed for life in zone.lives]
    shown = {name: row.figures() for name, row in rows.items()}
    return {"lives": len(lives), "mean_life_h": round(mean_life_s(tuple(lives)) / 3600, 2)} | shown


def _best_fixed_s(zone: Zone) -> float:
    def overhead(interval_s: float) -> float:
        total = Sums()
        for life in zone.lives:
            end = "cut" if life.cut else "lost"
            total.add(live(life.lasts_s, interval=fixed(interval_s), end=end))
        return total.overhead

    return min(GRID_S, key=overhead)


def main() -> None:
    """Print a table, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data", type=Path, default=os.environ.get("LOWTIDE_DATA"))
    parser.add_argument("--only", default="", help="worlds whose name begins so")
    asked = parser.parse_args()
    data = asked.data or Path(__file__).resolve().parents[2] / "shared" / "data"
    chosen = {n: zones for n, zones in worlds(Path(data)).items() if n.startswith(asked.only)}
    figures = {name: measure(zones) for name, zones in chosen.items()}
    if asked.json:
        print(json.dumps(figures, indent=2))
        return
    for name, found in figures.items():
        print(f"{name}: {found.pop('lives')} lives of {found.pop('mean_life_h')} h")
        for strategy, row in found.items():
            print(f"  {strategy:20}", *(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
