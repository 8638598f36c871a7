"""``lowtide simulate``: play a scenario through the real controller and report on it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.errors import ConflictError, FileFormatError, UnknownSubjectError
from jobs.store import JobStore
from scheduler.scenario import Scenario, load_scenario
from scheduler.sim_report import job_rows, report
from scheduler.simulation import Result, Simulation
from scheduler.snapshot import PolicySettings
from scheduler.spot_policy import POLICIES


def simulate(
    scenario: Scenario, *, policy: str | None = None, store: JobStore | None = None
) -> Result:
    """Play a scenario under a policy (default: ours) and give what it leaves behind.

    Raises:
        UnknownSubjectError: there is no such policy.
    """
    if policy is not None and policy not in POLICIES:
        raise UnknownSubjectError(
            f"There is no policy '{policy}'.", remedy=f"Name one of: {', '.join(POLICIES)}."
        )
    # A scenario's ``work_s`` is exact, so no margin for an error in it is held back.
    settings = replace(PolicySettings(margin_percent=0), name=policy or PolicySettings().name)
    return Simulation(scenario, settings=settings, store=store).run()


def simulate_file(
    path: Path | str,
    *,
    policy: str | None = None,
    seed: int | None = None,
    jobs_out: Path | str | None = None,
    ledger: str | None = None,
) -> dict[str, Any]:
    """Play a scenario file; give what ``lowtide simulate --json`` prints.

    Args:
        path: the scenario, YAML or JSON.
        policy: a name in ``POLICIES``.
        seed: instead of the file's.
        jobs_out: a CSV file to write, one row per job.
        ledger: URL of a new database that keeps journal, rows and ledger.

    Raises:
        FileFormatError: the scenario is wrong, or ``jobs_out`` cannot be written.
        UnknownSubjectError: there is no such policy.
        ConflictError: the database is not empty.
        UnreachableError: the database cannot be opened.
    """
    scenario = load_scenario(Path(path))
    if seed is not None:
        scenario = replace(scenario, seed=seed)
    store = _store(ledger) if ledger else None
    try:
        result = simulate(scenario, policy=policy, store=store)
        if jobs_out is not None:
            write_rows(Path(jobs_out), job_rows(result))
        return report(result)
    finally:
        if store is not None:
            store.close()


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of plain data as CSV; the columns are those of all rows, in order of coming.

    Raises:
        FileFormatError: the file cannot be written.
    """
    listed = list(rows)
    columns = list(dict.fromkeys(name for row in listed for name in row))
    try:
        with path.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(listed)
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be written: {error}.", remedy="Name a file in a folder that exists."
        ) from error


def _store(url: str) -> JobStore:
    """Open a database that must be empty: a simulation's ids begin at one."""
    from jobs.store_open import open_store  # noqa: PLC0415 - SQL is loaded on demand

    store = open_store(url)
    if store.last_seq():
        store.close()
        raise ConflictError(
            f"The database {url} holds a journal already.",
            remedy="Name a new one, for example --ledger sqlite:///simulated.db.",
        )
    return store
