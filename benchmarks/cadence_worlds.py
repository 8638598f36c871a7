"""The lives of spot capacity that `benchmarks.cadence` is measured on: real traces, and made ones.

A life is a time for which a gang was up without a break. Traces are sampled every few minutes; an
end is put at random (seeded) between two samples, so that no interval profits from the grid.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.rows import KEPT_LEVELS

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
_MADE_LIVES = 1_500
_HEAVY = 0.8, 0.4  # the shape and the scale (hours) of the spells of public traces


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One spell of capacity; instants are seconds from the start of its trace."""

    from_s: float
    lasts_s: float
    cut: bool = False  # the trace ends before it does: nothing is lost
    late: bool = False  # in the second half of the trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """One place; `held_out` says that no constant of ours was chosen on it."""

    name: str
    nodes: int
    lives: tuple[Life, ...]
    held_out: bool


def worlds(data: Path) -> dict[str, list[Zone]]:
    """Give all worlds by name; those whose files are not in `data` are left out."""
    spot = data / "spot"
    found = {
        "v100": [*_v100(spot / "v100-2023" / "availability")],
        "v100-gang-4": [*_multinode(spot / "v100-2023" / "multinode")],
        "h100-gang-8": [*_h100(spot / "h100-2025" / "h100_16_instances_created.csv.gz")],
    }
    made = {f"exponential-{mean_h}h": [_exponential(mean_h)] for mean_h in (1, 3, 12)}
    return {name: zones for name, zones in found.items() if zones} | made | {"heavy": [_heavy()]}


def _v100(folder: Path) -> Iterator[Zone]:
    for index, path in enumerate(sorted(folder.glob("*.csv"))):
        with path.open(encoding="utf-8") as text:
            levels = [int(row["availability"]) for row in csv.DictReader(text)]
        yield _zone(path.stem, levels, nodes=1, step_s=195, held_out=index % 2 == 1)


def _multinode(folder: Path) -> Iterator[Zone]:
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        step_s = int(found["metadata"]["gap_seconds"])
        yield _zone(path.stem, found["data"], nodes=4, step_s=step_s, held_out=True)


def _h100(path: Path) -> Iterator[Zone]:
    if not path.is_file():
        return
    with gzip.open(path, "rt", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    for index, name in enumerate(H100):
        levels = [int(row[name] or 0) for row in rows]
        yield _zone(name, levels, nodes=8, step_s=600, held_out=index % 2 == 1)


def _zone(name: str, levels: list[int], *, nodes: int, step_s: int, held_out: bool) -> Zone:
    dice = random.Random(name)
    lives, began = [], None
    for index, level in enumerate([*levels, 0]):
        if level >= nodes and began is None:
            began = (index - dice.random()) * step_s if index else 0.0
        elif level < nodes and began is not None:
            cut = index == len(levels)
            end_s = (index if cut else index - dice.random()) * step_s
            late = 2 * index > len(levels)
            lives.append(Life(from_s=began, lasts_s=max(1, end_s - began), cut=cut, late=late))
            began = None
    return Zone(name=name, nodes=nodes, lives=tuple(lives), held_out=held_out)


def _exponential(mean_h: float) -> Zone:
    dice = random.Random(mean_h)
    drawn = [dice.expovariate(1 / (mean_h * 3_600)) for _ in range(_MADE_LIVES)]
    return _made(f"{mean_h} h", drawn)


def _heavy() -> Zone:
    dice = random.Random(1)
    shape, scale_h = _HEAVY
    drawn = [
        min(72, scale_h * ((1 - dice.random()) ** (-1 / shape) - 1)) * 3_600
        for _ in range(_MADE_LIVES)
    ]
    return _made("heavy-tailed", drawn)


def _made(name: str, drawn: list[float]) -> Zone:
    lives, at_s = [], 0.0
    for index, lasts_s in enumerate(drawn):
        late = 2 * index >= len(drawn)
        lives.append(Life(from_s=at_s, lasts_s=max(1, lasts_s), late=late))
        at_s += lasts_s + 600
    return Zone(name=name, nodes=1, lives=tuple(lives), held_out=True)


def mean_life_s(lives: tuple[Life, ...]) -> float:
    """Give the time lived per end: what is known in hindsight only."""
    ends = sum(not life.cut for life in lives)
    return sum(life.lasts_s for life in lives) / max(1, ends)


def levels_at(zone: Zone, index: int) -> tuple[tuple[int, int], ...]:
    """Give the ups and downs that a scheduler remembers when a life begins, in microseconds."""
    seen: list[tuple[int, int]] = []
    for one in zone.lives[max(0, index - KEPT_LEVELS // 2) : index + 1]:
        seen.append((int(one.from_s * 1e6), zone.nodes))
        seen.append((int((one.from_s + one.lasts_s) * 1e6), 0))
    return tuple(seen[:-1][-KEPT_LEVELS:])  # its own end is not known yet
