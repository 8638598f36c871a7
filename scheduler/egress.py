"""What it costs to read a restore point from another region."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jobs.rows import JobRow
from jobs.spec import JobSpec
from jobs.state import State
from scheduler.catalog import Catalog

EgressPrices = Mapping[tuple[str, str], int]
"""Nano-dollars per GB by (from region, to region); a pair that is not listed is free."""


def egress_nanos(prices: EgressPrices, spec: JobSpec, *, source: str, target: str) -> int:
    """Give the price of moving one checkpoint of the job."""
    if source == target or not source:
        return 0
    return int(prices.get((source, target), 0) * spec.checkpoint_gb)


def homes(state: State, catalog: Catalog, jobs: Iterable[JobRow]) -> dict[str, str]:
    """Give the region of each job's restore point, of those that have one."""
    found: dict[str, str] = {}
    for job in jobs if catalog.egress_nanos_per_gb else ():
        point = job.restore_point
        attempt = state.attempts.get(f"{job.id}/{point.epoch}") if point is not None else None
        flavor = catalog.flavors.get(attempt.flavor) if attempt is not None else None
        if flavor is not None:
            found[job.id] = flavor.region
    return found
