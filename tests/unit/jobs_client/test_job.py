"""A job in its owner's hands: waiting, output, and outages in between."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from jobs import handle
from jobs.client import Client
from jobs.codec import to_data
from jobs.errors import UnknownSubjectError
from jobs.handle import JobFailedError, VersionSkewError
from jobs.quotes import Quoted
from jobs.states import JobState
from tests.unit.jobs_client.tiny_api import TOKEN, Request, TinyApi, job_row


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask often, so that tests are quick."""
    monkeypatch.setattr(handle, "POLL_S", 0.01)


def states(api: TinyApi, *rows: dict[str, Any]) -> None:
    """Let the job be each of these in turn."""
    api.on_each("GET", "/v1/jobs/job-1", *({"job": row, "attempts": []} for row in rows))


def outputs(api: TinyApi, texts: dict[int, str], *, page: int = 4, done: bool = True) -> None:
    """Serve each attempt's output in pages of a few bytes."""

    def route(request: Request) -> tuple[int, Any]:
        whole = texts[int(request.query["attempt"])]
        offset = int(request.query["offset"])
        data = whole[offset : offset + page]
        end = offset + len(data)
        over = done and end == len(whole)
        return 200, {"data": data, "offset": offset, "next": end, "done": over}

    api.routes["GET", "/v1/jobs/job-1/logs"] = route


def test_waiting_ends_with_the_job(api: TinyApi, client: Client) -> None:
    """`wait` gives the final state, `result` the final row, and nothing is asked after the end."""
    states(api, job_row(), job_row(state="running"), job_row(state="succeeded", step=7))
    job = client.job("job-1")
    assert job.wait(timeout=5) is JobState.SUCCEEDED
    asked = len(api.requests)
    assert job.result().step == 7
    assert job.state is JobState.SUCCEEDED
    assert len(api.requests) == asked


def test_waiting_has_a_limit(api: TinyApi, client: Client) -> None:
    """A timeout raises and leaves the job alone."""
    states(api, job_row())
    with pytest.raises(TimeoutError, match="job-1"):
        client.job("job-1").wait(timeout=0.05)


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_failed_job_has_no_result(api: TinyApi, client: Client, state: str) -> None:
    """The error says how it ended and where to read why."""
    states(api, job_row(state=state, sentence="exit code 3 on rank 0"))
    with pytest.raises(JobFailedError) as caught:
        client.job("job-1").result(timeout=5)
    assert f"{state}: exit code 3" in caught.value.cause
    assert "lowtide logs job-1" in caught.value.remedy


def test_output_is_read_over_all_pages_and_attempts(api: TinyApi, client: Client) -> None:
    """The text of every attempt comes out whole and in order."""
    states(api, job_row(state="succeeded", attempts=2))
    outputs(api, {1: "first attempt\n", 2: "second\n"})
    assert client.job("job-1").logs() == "first attempt\nsecond\n"


def test_one_attempt_alone(api: TinyApi, client: Client) -> None:
    """A named attempt gives its own output; one that never was is an error."""
    states(api, job_row(state="succeeded", attempts=2))
    outputs(api, {1: "first attempt\n", 2: "second\n"})
    job = client.job("job-1")
    assert "".join(chunk.data for chunk in job.log_chunks(attempt=2)) == "second\n"
    with pytest.raises(UnknownSubjectError, match="no attempt 3; it has made 2"):
        list(job.log_chunks(attempt=3))


def test_a_look_at_a_live_job_does_not_wait(api: TinyApi, client: Client) -> None:
    """Without follow, what is there now is all."""
    states(api, job_row(state="running", attempts=1))
    outputs(api, {1: "so far"}, done=False)
    assert client.job("job-1").logs() == "so far"


def test_following_goes_on_through_an_eviction(api: TinyApi, client: Client) -> None:
    """The next attempt is waited for, and the stream ends when the job does."""
    states(
        api,
        job_row(state="running", attempts=1),
        job_row(state="running", attempts=1),
        job_row(state="queued", attempts=1),
        job_row(state="running", attempts=2),
        job_row(state="succeeded", attempts=2),
    )
    outputs(api, {1: "one", 2: "two"})
    assert "".join(client.job("job-1").logs(follow=True)) == "onetwo"


def test_following_survives_a_restart_on_another_port(tmp_path: Path, api: TinyApi) -> None:
    """A server that goes away and comes back elsewhere loses and doubles nothing."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text(TOKEN)
    states(api, job_row(state="running", attempts=1))
    outputs(api, {1: "before"}, done=False)
    pieces: list[str] = []

    def follow() -> None:
        with Client() as client:
            pieces.extend(client.job("job-1").logs(follow=True))

    thread = threading.Thread(target=follow, daemon=True)
    with api.serving() as url:
        (home / "server.json").write_text(json.dumps({"url": url, "pid": 1}))
        thread.start()
        assert seen(api, offset="6"), "the first half was read"
        (home / "server.json").unlink()
    states(api, job_row(state="succeeded", attempts=1))
    outputs(api, {1: "before and after"})
    with api.serving() as url:
        (home / "server.json").write_text(json.dumps({"url": url, "pid": 1}))
        thread.join(timeout=20)
    assert not thread.is_alive()
    assert "".join(pieces) == "before and after"


def seen(api: TinyApi, *, offset: str, limit_s: float = 10) -> bool:
    """Wait until somebody asked for output from an offset on."""
    pause = threading.Event()
    for _ in range(int(limit_s / 0.02)):
        asked = api.asked("GET", "/v1/jobs/job-1/logs")
        if any(request.query["offset"] == offset for request in asked):
            return True
        pause.wait(0.02)
    return False


def test_wishes_are_sent(api: TinyApi, client: Client) -> None:
    """Cancel, pause and resume go to their own addresses."""
    states(api, job_row())
    job = client.job("job-1")
    for verb in ("cancel", "pause", "resume"):
        api.on("POST", f"/v1/jobs/job-1/{verb}", {"job": job_row()})
        getattr(job, verb)()
        assert len(api.asked("POST", f"/v1/jobs/job-1/{verb}")) == 1


def test_explain_and_cost_are_of_now(api: TinyApi, client: Client) -> None:
    """The explanation is asked for anew, and money comes as integers."""
    states(api, job_row())
    api.on("GET", "/v1/jobs/job-1/explain", {"sentence": "waits for 22:00", "releases": []})
    api.on("GET", "/v1/jobs/job-1/cost", {"total": {"usd_nanos": 123}})
    job = client.job("job-1")
    assert job.explain()["sentence"] == "waits for 22:00"
    assert job.cost["total"]["usd_nanos"] == 123


def test_a_job_knows_its_quote(api: TinyApi, client: Client) -> None:
    """What was kept at the submission, as a value; a job without a quote has none."""
    states(api, job_row())
    told = Quoted(
        at_us=1,
        policy="lowtide",
        futures=64,
        cost_p50_usd_nanos=5,
        cost_p95_usd_nanos=9,
        start_p50_us=1,
        start_p95_us=2,
        finish_p50_us=10,
        finish_p95_us=None,
    )
    api.on_each(
        "GET",
        "/v1/jobs/job-1/quote",
        {"quoted": to_data(told), "actual": {}},
        {"quoted": None, "actual": {}},
    )
    job = client.job("job-1")
    assert job.quote == told
    assert job.quote is None


def test_another_version_is_named_as_such(api: TinyApi, client: Client) -> None:
    """A row that this version does not know is no crash."""
    states(api, job_row(state="hibernating"))
    with pytest.raises(VersionSkewError, match="version"):
        _ = client.job("job-1").row
