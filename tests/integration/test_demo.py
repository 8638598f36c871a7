"""`lowtide demo` itself, with all its real parts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def test_the_demo_ends_well() -> None:
    """Every job succeeds, both evictions happen, every proof holds, and stdout is one object."""
    command = [sys.executable, "-m", "scheduler.cli", "demo", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=390, check=False)
    assert done.returncode == 0, done.stderr[-4_000:] + done.stdout[-2_000:]
    report = json.loads(done.stdout)
    assert report["good"]
    assert all(proof["holds"] for proof in report["proofs"])
    assert {row["state"] for row in report["rows"]} == {"succeeded"}
    assert sum(row["evictions"] for row in report["rows"]) >= 2
