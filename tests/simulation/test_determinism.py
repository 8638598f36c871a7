"""One scenario, one journal: byte for byte, whatever the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.simulated_day import day
from scheduler.sim_report import read_journal
from scheduler.simulator import simulate

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from benchmarks.simulated_day import day
from scheduler.sim_report import read_journal
from scheduler.simulator import simulate
print(read_journal(simulate(day(jobs=60, seed=3)))[0])
"""

pytestmark = pytest.mark.simulation


def journal_hash(hash_seed: str) -> str:
    """The journal's hash in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    return done.stdout.strip()


def test_the_journal_is_the_same_under_three_hash_seeds() -> None:
    """Nothing iterates a set, draws by lot or reads a clock on the way to a decision."""
    hashes = {journal_hash(seed) for seed in ("0", "1", "4242")}
    assert len(hashes) == 1
    assert len(hashes.pop()) == 64


def test_another_seed_is_another_day() -> None:
    """The hash is about what happened, so another world gives another one."""
    one, other = (read_journal(simulate(day(jobs=20, seed=seed)))[0] for seed in (1, 2))
    assert one != other
