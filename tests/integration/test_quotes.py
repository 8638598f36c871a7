"""Quotes and explanations of a running server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.codec import from_data
from jobs.quotes import Quote, Quoted
from jobs.rows import JobRow
from tests.integration.served import Served, wait_until

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.integration

ASKED = {"script": "train.py", "work": "1h", "deadline": "6h"}


def submitted(served: Served, **fields: object) -> JobRow:
    """Submit a job and give its row."""
    answer = served.http.post("/v1/jobs", json={**ASKED, **fields})
    assert answer.status_code == 201, answer.text
    row: JobRow = from_data(answer.json()["job"], into=JobRow)
    return row


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that leads and has looked at its world."""
    folder: Path = tmp_path_factory.mktemp("served")
    made = Served(folder).lead()
    try:
        wait_until(lambda: made.http.post("/v1/quotes", json=ASKED).status_code == 200)
        yield made
    finally:
        made.stop()


def test_a_quote_has_both_percentiles_and_a_curve(served: Served) -> None:
    """The answer is a value that the SDK reads; without the curve it is the same quote."""
    found = from_data(served.http.post("/v1/quotes", json=ASKED).json(), into=Quote)
    assert found.quoted.cost_p50_usd_nanos is not None
    assert found.quoted.finish_p95_us is not None
    assert {"yours", "no deadline"} <= {way.name for way in found.curve}
    brief = served.http.post("/v1/quotes", params={"curve": "false"}, json=ASKED).json()
    assert from_data(brief, into=Quote).curve == ()


def test_what_cannot_be_is_refused_with_the_earliest_finish(served: Served) -> None:
    """The same refusal as at submit, and nothing is stored."""
    answer = served.http.post("/v1/quotes", json={**ASKED, "deadline": "1s"})
    assert (answer.status_code, answer.json()["code"]) == (422, "infeasible")
    assert "the earliest finish" in answer.json()["cause"]


def test_a_submitted_job_keeps_its_quote(served: Served) -> None:
    """It is in the journal soon after the submission, and its books stay clean."""
    job = submitted(served)
    path = f"/v1/jobs/{job.id}/quote"
    wait_until(lambda: served.http.get(path).json()["quoted"] is not None)
    told = from_data(served.http.get(path).json()["quoted"], into=Quoted)
    assert told.futures > 0
    assert served.http.get("/v1/audit").json()["clean"]


def test_an_explanation_has_the_row_s_reason(served: Served) -> None:
    """It never says anything else than the plan did."""
    job = submitted(served, team="why")
    wait_until(lambda: served.http.get(f"/v1/jobs/{job.id}").json()["job"]["reason"] != "new")
    row = served.http.get(f"/v1/jobs/{job.id}").json()["job"]
    told = served.http.get(f"/v1/jobs/{job.id}/explain").json()
    assert (told["reason"], told["sentence"]) == (row["reason"], row["sentence"])
    assert told["alternatives"]


def _guide() -> list[str]:
    """The code blocks of docs/quotes.md."""
    text = (ROOT / "docs" / "quotes.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(_guide())))
def test_the_guide_s_examples_run(served: Served, tmp_path: Path, number: int) -> None:
    """Each block of the guide is a program that works as it stands."""
    (tmp_path / "train.py").write_text("print('trained')\n", encoding="utf-8")
    (tmp_path / "example.py").write_text(_guide()[number], encoding="utf-8")
    token = (served.home.folder / "token").read_text(encoding="ascii").strip()
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LOWTIDE_SERVER": served.server.url,
            "LOWTIDE_TOKEN": token,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout
