"""Learned availability: trusted where it forecast well, and only there."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from jobs.durations import to_us
from scheduler.learned_windows import TRUSTED_SKILL, Learned, learn, windows
from scheduler.windows import open_at
from tests.unit.scheduler.worlds import HOUR

MONDAY = to_us(datetime(2026, 6, 1, tzinfo=UTC))
DAY = 24 * HOUR


def hourly(levels: list[int]) -> list[tuple[int, int]]:
    """Give one level for each hour from a Monday on."""
    return [(MONDAY + index * HOUR, level) for index, level in enumerate(levels)]


def learned(levels: list[int], *, nodes: int = 8) -> Learned:
    """Learn from hourly levels."""
    found = learn(hourly(levels), nodes=nodes, now_us=MONDAY + len(levels) * HOUR)
    assert found is not None
    return found


NIGHTS = [16 if hour % 24 < 6 else 0 for hour in range(24 * 16)]


def test_a_pattern_that_holds_is_learned_and_trusted() -> None:
    """Up from midnight to six on every day: a window that says what it rests on."""
    found = learned(NIGHTS)
    assert found.trusted
    assert (found.days, found.tested_days) == (16, 9)
    made = windows(found, flavor="spot")
    assert len(made) == 7
    assert any(open_at(one, MONDAY + 21 * DAY + 3 * HOUR) for one in made)
    assert not any(open_at(one, MONDAY + 21 * DAY + 12 * HOUR) for one in made)
    assert made[0].rests_on.startswith("availability, learned from 16 days (skill 9")


def test_a_pattern_that_ends_loses_its_trust() -> None:
    """Nights of a first week that do not come again: shown, with its skill, and not used."""
    found = learned(NIGHTS[:168] + [0] * 168)
    assert not found.trusted
    assert found.skill < 0
    assert "not used" in found.label


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_not_trusted(seed: int) -> None:
    """Coin flips have no hours: what was learned of them saves nothing out of sample."""
    coins = np.random.default_rng(seed).integers(0, 2, 24 * 21) * 16
    assert not learned([int(coin) for coin in coins]).trusted


def test_the_size_of_the_gang_is_part_of_the_question() -> None:
    """One node always fits, sixteen only at night."""
    levels = [16 if level else 1 for level in NIGHTS]
    assert learned(levels, nodes=1).base == pytest.approx(1)
    assert learned(levels, nodes=16).base == pytest.approx(0.25)


def test_a_week_of_data_is_needed() -> None:
    """Less teaches nothing, and nothing was ever forecast from a week alone."""
    assert learn(hourly(NIGHTS[:100]), nodes=1, now_us=MONDAY + 100 * HOUR) is None
    assert learn([], nodes=1, now_us=MONDAY) is None
    assert not learned(NIGHTS[:168]).trusted


def test_on_real_h100_zones_few_have_hours(data_folder: Path) -> None:
    """us-east4-b has them for a gang of 8; most zones would be forecast worse than by the base."""
    path = data_folder / "spot" / "h100-2025" / "h100_16_instances_created.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    times = [to_us(datetime.fromisoformat(row["scheduled_at"])) for row in rows]
    skills = {}
    for zone in list(rows[0])[2:]:
        levels = [(at, int(row[zone] or 0)) for at, row in zip(times, rows, strict=True)]
        found = learn(levels, nodes=8, now_us=times[-1])
        assert found is not None
        skills[zone] = found.skill
    assert skills["us-east4-b"] > TRUSTED_SKILL
    assert sum(skill > TRUSTED_SKILL for skill in skills.values()) <= 3
