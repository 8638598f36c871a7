"""What every tier shares: quiet third parties, replayable examples, the folder of real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports Ray: no usage reports from a test, and no change of device variables
# behind a test's back.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

settings.register_profile(
    "lowtide",
    deadline=None,  # a shared machine is slow now and then; pytest-timeout ends what hangs
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lowtide")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The real traces: `LOWTIDE_DATA`, or `../shared/data` beside a checkout; else skip."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LOWTIDE_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real traces at {folder}: set LOWTIDE_DATA (its README names the origins)")
    return folder
