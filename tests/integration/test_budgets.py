"""Budgets on a real server: the API and the command line, refusals, dry runs, restarts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.client import Client
from scheduler.cli.app import run
from tests.integration.served import Served, wait_until

pytestmark = pytest.mark.integration

Lowtide = Callable[..., tuple[int, Any]]
FILE = """\
budgets:
  - name: ads-monthly
    team: ads
    limit_usd: 0.5
    period: month
    time_zone: Europe/Berlin
    burn: even
    thresholds: [{at_percent: 80, action: warn}]
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Run a server of the test's own."""
    server = Served(tmp_path / "home")
    yield server.lead()
    server.stop()


@pytest.fixture
def lowtide(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Lowtide:
    """Run a command against the server, and give its exit code and JSON answer."""
    monkeypatch.setenv("LOWTIDE_HOME", str(served.home.folder))

    def call(*args: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = run([*args, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def submit(served: Served, **fields: object) -> str:
    """Submit a job of an hour and give its id."""
    body = {"name": "retrain", "team": "ads", "work": "2h", **fields}
    answer = served.http.post("/v1/jobs", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["job"]["id"])


def job_of(served: Served, job_id: str) -> dict[str, Any]:
    """Ask for a job's row."""
    row: dict[str, Any] = served.http.get(f"/v1/jobs/{job_id}").json()["job"]
    return row


def names(answer: Any) -> list[str]:
    """Give the names of the budgets in an answer."""
    return [row["name"] for row in answer["budgets"]]


def test_a_file_is_tried_and_applied_and_survives_a_restart(
    served: Served, lowtide: Lowtide, tmp_path: Path
) -> None:
    """A dry run tells what applying then does; applied twice it changes nothing."""
    file = tmp_path / "budgets.yaml"
    file.write_text(FILE)
    spent = submit(served, markets=["spot"])
    wait_until(lambda: job_of(served, spent)["state"] != "queued")
    code, tried = lowtide("budgets", "apply", "-f", str(file), "--dry-run")
    assert (code, names(lowtide("budgets")[1])) == (0, [])
    assert [(one["budget"], one["change"]) for one in tried["changes"]] == [("ads-monthly", "made")]
    code, made = lowtide("budgets", "apply", "-f", str(file), "--why", "the quarter's plan")
    assert code == 0
    assert made["changes"][0]["after"]["limit_usd_nanos"] == 500_000_000
    assert lowtide("budgets", "apply", "-f", str(file))[1]["changes"] == []
    (row,) = lowtide("budgets")[1]["budgets"]
    assert (row["owner"], row["terms"]["burn"], row["source"]) == ("team=ads", "even", "apply")
    served.stop()
    again = Served(served.home.folder).lead()
    try:
        assert names(again.http.get("/v1/budgets").json()) == ["ads-monthly"]
        assert again.http.get("/v1/audit").json() == {"clean": True, "findings": []}
    finally:
        again.stop()


def test_a_job_that_no_money_covers_says_so_and_is_released(
    served: Served, lowtide: Lowtide
) -> None:
    """The waiting sentence names the budget, what is left and when there is more; rm lets it go."""
    assert lowtide("budgets", "set", "tight", "--team", "ads", "--limit", "1")[0] == 0
    submit(served)
    job_id = submit(served)
    wait_until(lambda: job_of(served, job_id)["reason"] == "waits-for-budget")
    row = job_of(served, job_id)
    assert "budget tight ($1.00 a month)" in row["sentence"]
    assert "there is more from 1 " in row["sentence"]
    code, tried = lowtide("budgets", "rm", "tight", "--dry-run")
    assert (code, [one["job"] for one in tried["released"]]) == (0, [job_id])
    assert lowtide("budgets", "rm", "tight", "--why", "over")[0] == 0
    wait_until(lambda: job_of(served, job_id)["reason"] != "waits-for-budget")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budgets: [{team: ads, limit_usd: 0}]", "limit_usd"),
        ("budgets: [{team: ads, limit_usd: -3}]", "limit_usd"),
        ("budgets: [{team: ads, limit_usd: 3, time_zone: Europe/Berlim}]", "'Europe/Berlin'"),
        ("budgets: [{team: ads, limit_usd: 3, priod: day}]", "Did you mean 'period'?"),
        (
            "budgets: [{team: a, limit_usd: 3, from: 2026-01-02T00:00Z, until: 2026-01-01T00:00Z}]",
            "an empty window",
        ),
        ("budgets: [{team: a, limit_usd: 3, hours: [{start: 8:00, end: 8:00}]}]", "empty hours"),
        ("budgets: [{team: a, limit_usd: 3}, {team: a, limit_usd: 4}]", "two budgets called"),
        ("budgets: [{team: a, limit_usd: 3, period: total, burn: even}]", "no end"),
    ],
)
def test_a_bad_file_is_refused_by_line_and_field(
    lowtide: Lowtide, tmp_path: Path, text: str, said: str
) -> None:
    """One cause and one remedy; nothing of the file is applied."""
    file = tmp_path / "budgets.yaml"
    file.write_text(text)
    code, answer = lowtide("budgets", "apply", "-f", str(file))
    assert code == 2
    assert said in answer["error"]["cause"] + answer["error"]["remedy"]
    assert names(lowtide("budgets")[1]) == []


def test_doubtful_budgets_are_accepted_with_a_warning(served: Served, lowtide: Lowtide) -> None:
    """A team that nobody has yet, with the nearest name, and two budgets of one owner."""
    submit(served)
    code, answer = lowtide("budgets", "set", "one", "--team", "adz", "--limit", "5")
    assert code == 0
    assert answer["warnings"] == ["one: no job has team=adz yet; did you mean 'ads'?"]
    _, answer = lowtide("budgets", "set", "two", "--team", "adz", "--limit", "6")
    assert "one has the same owner (team=adz)" in answer["warnings"][1]


def test_a_name_that_does_not_exist_is_answered_with_the_nearest(lowtide: Lowtide) -> None:
    """A typo removes nothing."""
    lowtide("budgets", "set", "ads", "--team", "ads", "--limit", "5")
    code, answer = lowtide("budgets", "rm", "adz")
    assert (code, answer["error"]["remedy"]) == (2, "Did you mean 'ads'?")


def test_the_sdk_sets_and_lists(served: Served) -> None:
    """The same as the command line, from Python; amounts are nano-dollars."""
    token = served.http.headers["Authorization"].removeprefix("Bearer ")
    with Client(served.server.url, token=token) as client:
        asked = {"name": "total", "limit_usd": 7, "period": "total", "hard": False}
        client.apply_budgets({"budgets": [asked], "why": "a cap for all"})
        (row,) = client.budgets()["budgets"]
    assert (row["owner"], row["limit_usd_nanos"]) == ("everybody", 7_000_000_000)
