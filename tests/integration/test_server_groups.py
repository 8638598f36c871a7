"""Arrays, groups and schedules over HTTP, on a real server and database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.served import Served

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Run one server for all of them."""
    served = Served(tmp_path_factory.mktemp("home"))
    yield served.lead().http
    served.stop()


def test_an_array_is_one_line_that_can_be_opened_and_cancelled(http: httpx.Client) -> None:
    """With one key it exists once; folded, it is one line with counts."""
    body = {"name": "sweep", "team": "arrays", "array": {"matrix": {"LR": [1, 2], "N": [3, 4]}}}
    key = {"Idempotency-Key": "sweep-key"}
    made = http.post("/v1/jobs", json=body, headers=key)
    assert made.status_code == 201, made.text
    rows = made.json()["jobs"]
    assert [row["spec"]["env"]["LR"] for row in rows] == ["1", "1", "2", "2"]
    again = http.post("/v1/jobs", json=body, headers=key)
    assert (again.status_code, len(again.json()["jobs"])) == (200, 4)
    array_id = rows[0]["array"]["id"]
    folded = http.get("/v1/jobs", params={"team": "arrays", "folded": True}).json()
    assert [row["id"] for row in folded["jobs"]] == [f"{array_id}.0"]
    assert sum(folded["arrays"][array_id].values()) == 4
    opened = http.get("/v1/jobs", params={"array": array_id}).json()["jobs"]
    assert [row["array"]["index"] for row in opened] == [0, 1, 2, 3]
    assert "is an array of 4" in http.get(f"/v1/jobs/{array_id}").json()["cause"]
    ended = http.post(f"/v1/jobs/{array_id}/cancel").json()["jobs"]
    assert {row["cancel_requested"] for row in ended} == {True}
    assert http.get("/v1/jobs", params={"array": "nothing"}).status_code == 404


@pytest.mark.parametrize(
    ("jobs", "code"),
    [
        ([{"name": "a", "after": ["b"]}, {"name": "b", "after": ["a"]}], "dependency-cycle"),
        ([{"name": "a"}, {"name": "b", "after": ["nobody"]}], "not-found"),
        ([{"name": "a"}, {"name": "b", "gpus": 900}], "infeasible"),
        ([{"array": 700}, {"array": 700}], "spec-invalid"),
    ],
)
def test_a_group_is_refused_whole(
    http: httpx.Client, jobs: list[dict[str, Any]], code: str
) -> None:
    """The problem names the cause, and none of its jobs exists."""
    team = f"refused-{code}"
    body = {"jobs": [{**job, "team": team} for job in jobs]}
    answer = http.post("/v1/jobs/group", json=body)
    assert answer.json()["code"] == code
    assert http.get("/v1/jobs", params={"team": team}).json()["jobs"] == []


def test_a_group_waits_in_its_order(http: httpx.Client) -> None:
    """The dependent names its predecessor by id, and says so."""
    jobs = [{"name": "data", "team": "chain"}, {"name": "fit", "team": "chain", "after": ["data"]}]
    first, second = http.post("/v1/jobs/group", json={"jobs": jobs}).json()["jobs"]
    assert second["spec"]["after"] == [{"job": first["id"], "when": "succeeded"}]
    explain = http.get(f"/v1/jobs/{second['id']}").json()["explain"]
    assert explain["reason"] == "waits-for-job"
    assert first["id"] in explain["sentence"]
    http.post(f"/v1/jobs/{first['id']}/cancel")


def test_a_schedule_is_made_shown_paused_and_removed(http: httpx.Client) -> None:
    """With its next occurrences; a wrong expression is refused with its cause."""
    body = {"name": "nightly", "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "job": {}}
    wrong = http.post("/v1/schedules", json={**body, "cron": "99 2 * * *"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "spec-invalid")
    trial = http.post("/v1/schedules", json=body, params={"dry_run": True})
    assert (trial.status_code, len(trial.json()["next"])) == (200, 5)
    made = http.post("/v1/schedules", json=body)
    assert made.status_code == 201, made.text
    schedule_id = made.json()["schedule"]["id"]
    assert http.post("/v1/schedules", json=body).status_code == 409
    path = f"/v1/schedules/{schedule_id}"
    assert len(http.get(path, params={"ahead": 9}).json()["next"]) == 9
    assert http.post(f"{path}/pause").json()["next"] == []
    assert len(http.post(f"{path}/resume").json()["next"]) == 5
    assert [one["schedule"]["id"] for one in http.get("/v1/schedules").json()["schedules"]] == [
        schedule_id
    ]
    assert http.delete(path).status_code == 200
    assert http.get(path).status_code == 404
    assert http.get("/v1/audit").json()["findings"] == []
