"""``lowtide simulate``: play a scenario through the real controller and report on it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from jobs.errors import ConflictError, FileFormatError, UnknownSubjectError
from jobs.store import JobStore
from scheduler.scenario import Scenario, load_scenario
from scheduler.sim_bound import lower_bound
from scheduler.sim_report import job_rows, report
from scheduler.simulation import Result, Simulation
from scheduler.snapshot import PolicySettings
from scheduler.spot_policy import POLICIES

ALL = "all"
"""Stands for every policy that there is."""


def simulate(
    scenario: Scenario, *, policy: str | None = None, store: JobStore | None = None
) -> Result:
    """Play a scenario under a policy (default: ours) and give what it leaves behind.

    Raises:
        UnknownSubjectError: there is no such policy.
    """
    if policy is not None:
        _check_policy(policy)
    # A scenario's ``work_s`` is exact, so no margin for an error in it is held back.
    settings = replace(PolicySettings(margin_percent=0), name=policy or PolicySettings().name)
    return Simulation(scenario, settings=settings, store=store).run()


def _check_policy(name: str) -> None:
    if name not in POLICIES:
        near = get_close_matches(name, POLICIES, n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        raise UnknownSubjectError(
            f"There is no policy '{name}'.", remedy=f"{hint}Name one of: {', '.join(POLICIES)}."
        )


def compare_file(
    path: Path | str, *, policies: Iterable[str], seed: int | None = None
) -> dict[str, Any]:
    """Play a scenario file under several policies (``all`` = each that there is).

    Returns:
        ``{"scenario": path, "results": [...]}``, each result as ``simulate_file`` gives it.

    Raises:
        FileFormatError: the scenario is wrong.
        UnknownSubjectError: there is no such policy.
    """
    named = [one for name in policies for one in (POLICIES if name == ALL else [name])]
    for name in named:
        _check_policy(name)
    scenario = _scenario(path, seed=seed)
    results = [report(simulate(scenario, policy=name)) for name in dict.fromkeys(named)]
    return {"scenario": str(path), "results": results}


def _scenario(path: Path | str, *, seed: int | None) -> Scenario:
    scenario = load_scenario(Path(path))
    return scenario if seed is None else replace(scenario, seed=seed)


def simulate_file(
    path: Path | str,
    *,
    policy: str | None = None,
    seed: int | None = None,
    jobs_out: Path | str | None = None,
    ledger: str | None = None,
    job_bounds: bool = False,
) -> dict[str, Any]:
    """Play a scenario file; give what ``lowtide simulate --json`` prints.

    Args:
        path: the scenario, YAML or JSON.
        policy: a name in ``POLICIES``.
        seed: instead of the file's.
        jobs_out: a CSV file to write, one row per job.
        ledger: URL of a new database that keeps journal, rows and ledger.
        job_bounds: bound each job by itself also where there are many and it takes minutes.

    Raises:
        FileFormatError: the scenario is wrong, or ``jobs_out`` cannot be written.
        UnknownSubjectError: there is no such policy.
        ConflictError: the database is not empty.
        UnreachableError: the database cannot be opened.
    """
    scenario = _scenario(path, seed=seed)
    store = _store(ledger) if ledger else None
    try:
        result = simulate(scenario, policy=policy, store=store)
        floor = lower_bound(result, every=job_bounds)
        if jobs_out is not None:
            write_rows(Path(jobs_out), job_rows(result, floor=floor))
        return report(result, floor=floor)
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
