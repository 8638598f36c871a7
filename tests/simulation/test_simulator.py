"""What `lowtide simulate` gives: the contract's names, rows per job, a ledger to keep."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ConflictError, FileFormatError, UnknownSubjectError
from jobs.store_open import open_store
from scheduler.audit_store import audit_store
from scheduler.scenario import load_scenario
from scheduler.sim_report import read_journal
from scheduler.simulator import compare_file, simulate, simulate_file
from scheduler.spot_policy import POLICIES

pytestmark = pytest.mark.simulation

KEYS = {
    "cost_usd",
    "bound_usd",
    "bound_kind",
    "regret",
    "deadline_misses",
    "unfinished",
    "evictions",
    "useful_gpu_h",
    "restart_gpu_h",
    "lost_gpu_h",
    "checkpoint_gpu_h",
    "idle_gpu_h",
    "wait_s",
    "utilization",
    "wall_s",
    "decisions",
    "per_team",
    "policy",
    "journal_hash",
}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write a scenario: spot that goes away after an hour, and sure capacity."""

    def scenario(**changes: Any) -> Path:
        flavor: dict[str, Any] = {"accelerator": "V100", "boot_s": 60, "idle_release_s": 0}
        spot: dict[str, Any] = {"name": "spot", "market": "spot", "region": "east", "notice_s": 30}
        spot |= {"price_usd_per_hour": 1, "nodes": {"file": "trace.json", "step_s": 3_600}}
        sure: dict[str, Any] = {"name": "sure", "market": "on-demand", "region": "west"}
        sure |= {"price_usd_per_hour": 4, "nodes": 4}
        data = {
            "start": "2023-02-15T00:00:00Z",
            "flavors": [spot | flavor, sure | flavor],
            "jobs": [
                {
                    "name": "a",
                    "work_s": 5_400,
                    "deadline_s": 7_200,
                    "restore_s": 300,
                    "checkpoint_interval_s": 0,
                    "checkpoint_gb": 50,
                    "team": "ads",
                }
            ],
        }
        (tmp_path / "trace.json").write_text("[1, 0]")
        (tmp_path / "scenario.json").write_text(json.dumps(data | changes))
        return tmp_path / "scenario.json"

    return scenario


def test_the_figures_tell_the_story_of_an_eviction(write: Any) -> None:
    """An hour on spot, then sure capacity: money, time, and the optimum by hand."""
    figures = simulate_file(write())
    assert set(figures) >= KEYS
    assert (figures["evictions"], figures["deadline_misses"], figures["unfinished"]) == (1, 0, 0)
    assert figures["useful_gpu_h"] == 1.5
    assert figures["restart_gpu_h"] == pytest.approx(360 / 3_600, abs=1e-6)
    spot_s, sure_s = 3_630, 60 + 300 + 5_400 - 3_570
    assert figures["cost_usd"] == pytest.approx((spot_s * 1 + sure_s * 4) / 3_600, abs=1e-6)
    assert figures["regret"] == pytest.approx(1, abs=0.03)
    assert figures["regret"] >= 1
    assert figures["per_team"]["ads"]["jobs"] == 1


def test_every_policy_goes_through_the_same_controller(write: Any) -> None:
    """Each baseline ends the job, pays no less than the bound and keeps clean books."""
    scenario = load_scenario(write())
    costs = {}
    for name in POLICIES:
        result = simulate(scenario, policy=name)
        assert audit_store(result.store) == []
        assert all(job.ended for job in result.jobs.values()), name
        costs[name] = simulate_file(write(), policy=name)["cost_usd"]
    assert costs["on-demand"] == pytest.approx(4 * 5_460 / 3_600, abs=1e-6)
    assert min(costs.values()) < costs["on-demand"]


def test_moving_a_checkpoint_between_regions_is_paid(write: Any) -> None:
    """50 GB from east to west at 2 cents."""
    priced = simulate_file(write(egress_usd_per_gb={"east": {"west": 0.02}}))
    assert priced["egress_usd"] == 1
    assert priced["cost_usd"] == pytest.approx(simulate_file(write())["cost_usd"] + 1)


def test_the_horizon_closes_the_books(write: Any) -> None:
    """What is up then is billed to that second, and the job is reported as unfinished."""
    figures = simulate_file(write(horizon_s=1_800))
    assert (figures["unfinished"], figures["deadline_misses"]) == (1, 0)
    assert figures["cost_usd"] == pytest.approx(0.5, abs=1e-6)


def test_a_hopeless_deadline_is_refused_not_missed(write: Any) -> None:
    """It is said at submit, and the run goes on without it."""
    jobs = [{"name": "late", "work_s": 600, "deadline_s": 300}, {"name": "fine", "work_s": 600}]
    figures = simulate_file(write(jobs=jobs))
    assert (figures["refused"], figures["deadline_misses"], figures["unfinished"]) == (1, 0, 0)


def test_a_window_makes_capacity_cheaper(write: Any) -> None:
    """The ledger is charged by the window's price."""
    window = {"name": "night", "start": "00:00", "end": "24:00", "price_percent": 50}
    jobs = [{"name": "a", "work_s": 600}]
    full = simulate_file(write(jobs=jobs))["cost_usd"]
    half = simulate_file(write(jobs=jobs, price_windows=[window]))["cost_usd"]
    assert half == pytest.approx(full / 2, abs=1e-6)


def test_a_window_may_name_a_tariff(write: Any) -> None:
    """A price in dollars replaces the base price while it is open."""
    window = {"name": "night", "start": "00:00", "end": "24:00", "price_usd_per_hour": 0.25}
    jobs = [{"name": "a", "work_s": 600, "markets": ["spot"]}]
    full = simulate_file(write(jobs=jobs))["cost_usd"]
    tariff = simulate_file(write(jobs=jobs, price_windows=[window]))["cost_usd"]
    assert tariff == pytest.approx(full / 4, abs=1e-6)
    with pytest.raises(FileFormatError, match="one of them"):
        simulate_file(write(price_windows=[window | {"price_percent": 10}]))


def test_a_probe_world_works_too(write: Any) -> None:
    """Only launching tells, and refusals cost their boot."""
    figures = simulate_file(write(observation="probe"))
    assert (figures["unfinished"], figures["deadline_misses"]) == (0, 0)


def test_policies_are_compared_on_one_scenario(write: Any) -> None:
    """Each as it would be alone; `all` names every one; a name given twice counts once."""
    path = write()
    found = compare_file(path, policies=["greedy", "all", "greedy"])
    assert [result["policy"] for result in found["results"]] == [
        "greedy",
        *(name for name in POLICIES if name != "greedy"),
    ]
    alone = simulate_file(path, policy="greedy")
    assert found["results"][0]["journal_hash"] == alone["journal_hash"]
    assert len({result["bound_usd"] for result in found["results"]}) == 1
    with pytest.raises(UnknownSubjectError, match="Did you mean 'greedy'"):
        compare_file(path, policies=["gredy"])


def test_each_job_is_measured_against_its_own_optimum(write: Any, tmp_path: Path) -> None:
    """The columns `bound_usd` and `regret`; a job that was not done has none."""
    jobs = [
        {"name": "fine", "work_s": 5_400, "deadline_s": 20_000},
        {"name": "late", "work_s": 600, "deadline_s": 300},
        {"name": "long", "work_s": 90_000, "markets": ["on-demand"]},
    ]
    out = tmp_path / "jobs.csv"
    simulate_file(write(jobs=jobs, horizon_s=50_000), jobs_out=out)
    with out.open(newline="") as rows:
        by_name = {row["name"]: row for row in csv.DictReader(rows)}
    assert 1 <= float(by_name["fine"]["regret"]) < 4
    assert float(by_name["fine"]["cost_usd"]) >= float(by_name["fine"]["bound_usd"]) > 0
    assert by_name["late"]["bound_usd"] == by_name["long"]["bound_usd"] == ""


def test_a_world_that_costs_nothing_has_no_regret(write: Any) -> None:
    """Nothing over nothing is as good as it can be."""
    window = {"name": "free", "start": "00:00", "end": "24:00", "price_percent": 0}
    figures = simulate_file(write(price_windows=[window]))
    assert (figures["cost_usd"], figures["bound_usd"], figures["regret"]) == (0, 0, 1)


def test_there_is_a_row_for_each_job(write: Any, tmp_path: Path) -> None:
    """Also for one that was refused."""
    jobs = [{"name": "late", "work_s": 600, "deadline_s": 300}, {"name": "fine", "work_s": 600}]
    out = tmp_path / "jobs.csv"
    figures = simulate_file(write(jobs=jobs), jobs_out=out)
    with out.open(newline="") as rows:
        by_name = {row["name"]: row for row in csv.DictReader(rows)}
    assert by_name["fine"]["state"] == "succeeded"
    assert float(by_name["fine"]["cost_usd"]) == pytest.approx(figures["cost_usd"])
    assert by_name["late"]["state"] == "refused"
    with pytest.raises(FileFormatError, match="cannot be written"):
        simulate_file(write(), jobs_out=tmp_path / "none" / "jobs.csv")


def test_the_ledger_can_be_kept(write: Any, tmp_path: Path) -> None:
    """A database holds the very same journal, passes the audit, and is not used twice."""
    url = f"sqlite:///{tmp_path / 'simulated.db'}"
    figures = simulate_file(write(), ledger=url)
    store = open_store(url)
    assert audit_store(store) == []
    store.close()
    assert figures["journal_hash"] == simulate_file(write())["journal_hash"]
    with pytest.raises(ConflictError, match="holds a journal"):
        simulate_file(write(), ledger=url)


def test_the_same_file_gives_the_same_journal(write: Any) -> None:
    """And an unknown policy is a mistake with a remedy."""
    scenario = load_scenario(write())
    assert read_journal(simulate(scenario)) == read_journal(simulate(scenario))
    with pytest.raises(UnknownSubjectError, match="greedy"):
        simulate(scenario, policy="gredy")
