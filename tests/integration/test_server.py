"""The HTTP API on a real server: jobs, agents, money, logs, code, and every refusal."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.notices import AttemptOver, NodeJoined, Outcome
from jobs.codec import from_data
from jobs.rows import AttemptRow, JobRow
from jobs.sql_store import SqlStore
from jobs.store import Batch
from tests.integration.scripted_agent import ScriptedAgent
from tests.integration.served import Served, wait_until

pytestmark = pytest.mark.integration

JOB = {"name": "retrain", "team": "ads"}
PROBLEM = {"type", "title", "status", "code", "cause", "remedy"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run one server for the tests that leave no capacity behind."""
    served = Served(tmp_path_factory.mktemp("home"))
    yield served.lead()
    served.stop()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Run a server of the test's own."""
    server = Served(tmp_path / "home")
    yield server.lead()
    server.stop()


def submitted(http: httpx.Client, **fields: object) -> JobRow:
    """Submit a job and give its row."""
    response = http.post("/v1/jobs", json={**JOB, **fields})
    assert response.status_code == 201, response.text
    row: JobRow = from_data(response.json()["job"], into=JobRow)
    return row


def refusal(response: httpx.Response, *, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem with all its parts."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert set(body) == PROBLEM
    assert (body["status"], body["code"]) == (status, code)
    assert body["cause"]
    assert body["remedy"]
    return body


def state_of(http: httpx.Client, job_id: str) -> str:
    """Ask for a job's state."""
    return str(http.get(f"/v1/jobs/{job_id}").json()["job"]["state"])


def test_every_path_but_health_needs_the_token(shared: Served) -> None:
    """Without the token, or with a wrong one, no path says anything, not even that it exists."""
    schema = shared.http.get("/v1/openapi.json").json()
    calls = [(verb, path) for path, verbs in schema["paths"].items() for verb in verbs]
    assert len(calls) > 15
    wrong = ("", "Bearer wrong", "Basic abc", "Bearer", shared.http.headers["Authorization"] + "x")
    with httpx.Client(base_url=shared.server.url, trust_env=False) as stranger:
        for verb, path in [*calls, ("get", "/v1/nothing"), ("get", "/")]:
            if path == "/v1/health":
                continue
            for header in wrong:
                answer = stranger.request(
                    verb,
                    re.sub(r"\{\w+\}", "x", path),
                    headers={"Authorization": header} if header else {},
                )
                assert answer.status_code == 401, (verb, path, header)
                assert answer.headers["www-authenticate"] == "Bearer"
        refusal(stranger.get("/v1/jobs"), status=401, code="auth")
        assert stranger.get("/v1/health").json()["status"] == "ok"


def test_a_job_is_listed_shown_and_explained(shared: Served) -> None:
    """What was submitted comes back in every view, as rows that the SDK reads."""
    job = submitted(shared.http, team="views")
    shown = shared.http.get(f"/v1/jobs/{job.id}").json()
    assert from_data(shown["job"], into=JobRow).spec == job.spec
    assert all(row["job_id"] == job.id for row in shown["attempts"])
    assert set(shown["explain"]) == {"reason", "sentence"}
    listed = shared.http.get("/v1/jobs", params={"team": "views"}).json()
    assert [row["id"] for row in listed["jobs"]] == [job.id]
    kinds = [record["event"]["kind"] for record in _events(shared.http, job.id)]
    assert kinds[0] == "job-submitted"


def _events(http: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get(f"/v1/jobs/{job_id}/events").json()["events"]
    return found


def test_pages_follow_a_cursor_without_gap_or_repetition(shared: Served) -> None:
    """Pages of two give every job once, newest first, and the last one says that it is the last."""
    made = [submitted(shared.http, team="pages").id for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query: dict[str, str | int] = {"team": "pages", "limit": 2, "cursor": cursor}
        page = shared.http.get("/v1/jobs", params=query).json()
        seen += [row["id"] for row in page["jobs"]]
        cursor = page["next"]
    assert seen == made[::-1]


def test_the_same_key_gives_the_same_job(shared: Served) -> None:
    """A submit that is sent again, also at the same moment, makes one job."""
    answers: list[httpx.Response] = []

    def send() -> None:
        headers = {"Idempotency-Key": "k-1"}
        answers.append(shared.http.post("/v1/jobs", json=JOB, headers=headers))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    send()
    assert len({answer.json()["job"]["id"] for answer in answers}) == 1
    assert answers[-1].status_code == 200


def test_a_dry_run_only_checks(shared: Served) -> None:
    """The answer is the row it would get; nothing is stored."""
    before = shared.http.get("/v1/jobs", params={"limit": 1000}).json()["jobs"]
    answer = shared.http.post("/v1/jobs", params={"dry_run": True}, json=JOB)
    assert answer.status_code == 200
    assert answer.json()["job"]["spec"]["name"] == "retrain"
    assert shared.http.get("/v1/jobs", params={"limit": 1000}).json()["jobs"] == before


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"gpu": 1}, "spec-invalid", "Unknown field 'gpu'"),
        ({"nodes": 0}, "spec-invalid", "nodes"),
        ({"deadline": "soon"}, "spec-invalid", "deadline"),
        ({"gpus": 64}, "infeasible", ""),
        ({"nodes": 500}, "infeasible", ""),
        ({"work": "10h", "deadline": "1h"}, "infeasible", ""),
        ({"code": "0" * 64}, "spec-invalid", "no archive"),
    ],
)
def test_a_wrong_spec_is_refused_with_the_field(
    shared: Served, body: dict[str, Any], code: str, words: str
) -> None:
    """A spec that cannot be or could never start is refused at submit, with cause and remedy."""
    problem = refusal(shared.http.post("/v1/jobs", json=body), status=422, code=code)
    assert words in problem["cause"]


@pytest.mark.parametrize(
    ("verb", "path", "status", "code"),
    [
        ("GET", "/v1/jobs/none", 404, "not-found"),
        ("GET", "/v1/jobs/none/cost", 404, "not-found"),
        ("GET", "/v1/jobs/none/events", 404, "not-found"),
        ("GET", "/v1/jobs/none/logs", 404, "not-found"),
        ("GET", "/v1/jobs/none/logs?follow=true", 404, "not-found"),
        ("POST", "/v1/jobs/none/cancel", 404, "not-found"),
        ("POST", "/v1/nodes/none/evict", 404, "not-found"),
        ("POST", "/v1/nodes/none/cordon", 404, "not-found"),
        ("GET", "/v1/nothing", 404, "not-found"),
        ("DELETE", "/v1/jobs", 405, "method-not-allowed"),
        ("GET", "/v1/jobs?state=sleeping", 422, "request-invalid"),
        ("GET", "/v1/jobs?cursor=x", 422, "request-invalid"),
        ("GET", "/v1/jobs?limit=0", 422, "request-invalid"),
        ("HEAD", "/v1/code/xyz", 422, None),
    ],
)
def test_a_wrong_request_is_a_problem(
    shared: Served, verb: str, path: str, status: int, code: str | None
) -> None:
    """Unknown names, paths, verbs and parameters are answered alike."""
    response = shared.http.request(verb, path)
    if code is None:
        assert response.status_code == status
    else:
        refusal(response, status=status, code=code)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"name": "\\ud800"}',  # half a character: it could never be written to the journal
        b'{"tags": {"\\ud800": "x"}}',
        b'{"priority": NaN}',
        b'{"gpus": 1e400}',
    ],
)
def test_a_body_that_is_no_good_json_is_refused(shared: Served, body: bytes) -> None:
    """It is the sender's problem, and never stops the loop."""
    header = {"Content-Type": "application/json"}
    response = shared.http.post("/v1/jobs", content=body, headers=header)
    refusal(response, status=422, code="request-invalid")
    assert shared.http.post("/v1/jobs", params={"dry_run": True}, json=JOB).status_code == 200


def test_a_body_without_end_is_cut_off(shared: Served) -> None:
    """More than 16 MiB of JSON is refused before it is parsed."""
    response = shared.http.post("/v1/jobs", content=b" " * (17 << 20))
    assert refusal(response, status=413, code="too-large")


def test_an_archive_is_stored_once_and_verified(shared: Served) -> None:
    """It is kept under its digest; a wrong digest or too many bytes are refused."""
    data = b"an archive"
    path = f"/v1/code/{hashlib.sha256(data).hexdigest()}"
    assert shared.http.head(path).status_code == 404
    assert [shared.http.put(path, content=data).status_code for _ in range(2)] == [201, 200]
    assert shared.http.head(path).status_code == 200
    stored = shared.home.folder / "storage" / "code" / f"{path.rpartition('/')[2]}.tar.gz"
    assert stored.read_bytes() == data
    refusal(shared.http.put(path, content=b"another"), status=422, code="request-invalid")
    big = b"x" * ((1 << 20) + 1)
    other = f"/v1/code/{hashlib.sha256(big).hexdigest()}"
    assert (
        "1 MiB"
        in refusal(shared.http.put(other, content=big), status=413, code="too-large")["cause"]
    )
    chunked = shared.http.put(other, content=iter([big[:1000], big[1000:]]))
    refusal(chunked, status=413, code="too-large")


def test_a_job_lives_from_submit_to_a_bill_that_ties(served: Served) -> None:
    """Over HTTP alone: launch, train, log, evict, resume, succeed; the money adds up."""
    agent = ScriptedAgent(served.http)
    job = submitted(served.http)
    agent.until(lambda: agent.training)
    first = f"{job.id}/1"
    assert agent.log(first, offset=0, data=b"hello ") == 6
    agent.until(lambda: state_of(served.http, job.id) == "running")
    node_id = agent.training[first].node_ids[0]
    evicted = served.http.post(f"/v1/nodes/{node_id}/evict", json={"notice": "5s"})
    assert evicted.json()["node"]["evict_notice_ms"] == 5_000
    agent.until(lambda: f"{job.id}/2" in agent.training)
    assert agent.training[f"{job.id}/2"].step == 40
    agent.log(f"{job.id}/2", offset=0, data="wörld".encode())
    agent.finish(f"{job.id}/2")
    agent.until(lambda: state_of(served.http, job.id) == "succeeded")
    shown = served.http.get(f"/v1/jobs/{job.id}").json()
    states = [str(from_data(row, into=AttemptRow).state) for row in shown["attempts"]]
    assert states == ["evicted", "succeeded"]
    cost = served.http.get(f"/v1/jobs/{job.id}/cost").json()
    total = served.http.get("/v1/cost").json()
    assert cost["total"]["usd_nanos"] > 0
    assert total["jobs"][job.id] == cost
    assert total["difference_usd_nanos"] == 0
    spent = cost["total"]["usd_nanos"] + total["idle"]["usd_nanos"] + total["overhead"]["usd_nanos"]
    assert spent == total["bill"]["usd_nanos"]
    kinds = {record["event"]["kind"] for record in _events(served.http, job.id)}
    assert {"job-submitted", "attempt-leased", "checkpoint-committed", "job-ended"} <= kinds
    refusal(served.http.post(f"/v1/jobs/{job.id}/cancel"), status=409, code="conflict")
    assert served.http.get("/v1/audit").json() == {"clean": True, "findings": []}
    _check_logs(served.http, job.id)


def _check_logs(http: httpx.Client, job_id: str) -> None:
    path = f"/v1/jobs/{job_id}/logs"
    page = http.get(path).json()
    assert (page["attempt"], page["data"], page["next"], page["done"]) == (2, "wörld", 6, True)
    page = http.get(path, params={"attempt": 1, "offset": 2}).json()
    assert (page["data"], page["next"]) == ("llo ", 6)
    refusal(http.get(path, params={"attempt": 3}), status=404, code="not-found")
    with http.stream("GET", path, params={"follow": True}) as stream:
        text = "".join(stream.iter_text())
    events = [block.split("\n")[0] for block in text.strip().split("\n\n")]
    assert events == ["event: log", "event: log", "event: end"]


def test_pause_resume_and_cancel_reach_the_training(served: Served) -> None:
    """A pause drains, a resume starts again, a cancel stops, and each says what is now."""
    agent = ScriptedAgent(served.http)
    job = submitted(served.http)
    agent.until(lambda: agent.training)
    agent.until(lambda: state_of(served.http, job.id) == "running")
    assert served.http.post(f"/v1/jobs/{job.id}/pause").json()["job"]["held"] is True
    agent.until(lambda: state_of(served.http, job.id) == "queued")
    assert served.http.post(f"/v1/jobs/{job.id}/resume").json()["job"]["held"] is False
    agent.until(lambda: f"{job.id}/2" in agent.training)
    served.http.post(f"/v1/jobs/{job.id}/cancel")
    agent.until(lambda: state_of(served.http, job.id) == "cancelled")


def test_nodes_and_flavors_are_listed(served: Served) -> None:
    """Capacity shows what is configured, what it costs now and what is up; cordons are kept."""
    agent = ScriptedAgent(served.http)
    submitted(served.http)
    agent.until(lambda: agent.training)
    (node,) = served.http.get("/v1/nodes").json()["nodes"]
    cordoned = served.http.post(f"/v1/nodes/{node['id']}/cordon", json={"cordoned": True})
    assert cordoned.json()["node"]["cordoned"] is True
    flavors = {row["name"]: row for row in served.http.get("/v1/flavors").json()["flavors"]}
    assert flavors["spot"]["now"]["usd_nanos_per_hour"] == 300_000_000
    assert {name: row["up"] for name, row in flavors.items()} == {"spot": 1, "od": 0}
    bad = served.http.post(f"/v1/nodes/{node['id']}/evict", json={"notice": "soon"})
    refusal(bad, status=422, code="request-invalid")


def test_an_agent_learns_its_configuration(served: Served) -> None:
    """The answer carries flavors, storage and provider, so an agent needs no file of its own."""
    config = ScriptedAgent(served.http).sync()["config"]
    assert [flavor["name"] for flavor in config["flavors"]] == ["spot", "od"]
    assert config["storage"] == str(served.home.folder / "storage")
    assert (config["provider"], config["provider_options"]) == ("local", {"key": "value"})
    unknown = served.http.post("/v1/agents/other/sync", json={"agent": "x"})
    assert "lab" in refusal(unknown, status=404, code="not-found")["remedy"]


def test_a_long_poll_ends_when_there_is_something_to_do(served: Served) -> None:
    """A submit wakes the waiting agent at once; without news it is answered at the limit."""
    agent = ScriptedAgent(served.http)
    agent.sync()
    began = time.monotonic()
    assert agent.sync(wait_ms=300)["intents"] == []
    assert time.monotonic() - began >= 0.29
    timer = threading.Timer(0.3, submitted, args=(served.http,))
    timer.start()
    began = time.monotonic()
    (intent,) = agent.sync(wait_ms=5_000)["intents"]
    assert intent["kind"] == "launch-node"
    assert time.monotonic() - began < 4
    timer.join()


def test_notices_may_come_twice(served: Served) -> None:
    """An agent that lost the answer sends again; nothing happens twice."""
    agent = ScriptedAgent(served.http)
    job = submitted(served.http)
    agent.until(lambda: agent.training)
    sent = list(agent.waiting)
    assert sorted(agent.sync(notices=sent)["accepted"]) == sorted(one.id for one in sent)
    kinds = [record["event"]["kind"] for record in _events(served.http, job.id)]
    agent.sync(notices=sent)
    assert [record["event"]["kind"] for record in _events(served.http, job.id)] == kinds
    assert state_of(served.http, job.id) == "running"


def test_what_is_accepted_is_committed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync is answered after the commit of its notices, never before; readers then see it."""
    agent = ScriptedAgent(served.http)
    job = submitted(served.http)
    agent.until(lambda: agent.training)
    agent.until(lambda: not agent.waiting)
    let_go = threading.Event()
    commit = SqlStore.commit

    def held_up(store: SqlStore, batch: Batch, *, epoch: int) -> None:
        assert let_go.wait(10)
        commit(store, batch, epoch=epoch)

    monkeypatch.setattr(SqlStore, "commit", held_up)
    agent.finish(f"{job.id}/1")
    sync = threading.Thread(target=agent.sync)
    sync.start()
    sync.join(0.5)
    assert sync.is_alive()
    assert state_of(served.http, job.id) == "running"
    let_go.set()
    sync.join(10)
    assert not agent.waiting
    assert state_of(served.http, job.id) == "succeeded"


def test_what_is_over_for_us_is_stopped_at_the_agent(served: Served) -> None:
    """A reported attempt that is over, unknown or of another lease is stopped, a node released."""
    agent = ScriptedAgent(served.http)
    job = submitted(served.http)
    agent.until(lambda: agent.training)
    start = agent.training[f"{job.id}/1"]
    body = {
        "agent": "a",
        "nodes": ["node-unknown", *agent.nodes],
        "attempts": [
            {"attempt_id": start.attempt_id, "token": start.token},
            {"attempt_id": "ghost/1", "token": "t"},
        ],
    }
    intents = served.http.post("/v1/agents/lab/sync", json=body).json()["intents"]
    strays = {one["id"] for one in intents} - {start.id}
    assert strays == {"stop|ghost/1", "release|node-unknown"}
    body["attempts"] = [{"attempt_id": start.attempt_id, "token": "another lease's"}]
    intents = served.http.post("/v1/agents/lab/sync", json=body).json()["intents"]
    assert f"stop|{start.attempt_id}" in {one["id"] for one in intents}


def test_an_unknown_kind_of_notice_is_refused(served: Served) -> None:
    """A newer agent's notice is not taken for something else."""
    body = {"agent": "a", "notices": [{"kind": "moon-rose", "id": "1", "at_us": 1}]}
    refusal(served.http.post("/v1/agents/lab/sync", json=body), status=422, code="request-invalid")


def test_a_node_that_joined_by_itself_is_taken_in(served: Served) -> None:
    """On a static cluster nodes come unasked, and stay in the agent's hands."""
    agent = ScriptedAgent(served.http)
    agent.nodes.add("theirs")
    shape = {"gpu_milli": 1_000, "cpus": 8}
    agent.tell(NodeJoined, node_id="theirs", address="x", flavor="spot", cluster="lab", **shape)
    assert agent.sync()["intents"] == []
    assert [row["id"] for row in served.http.get("/v1/nodes").json()["nodes"]] == ["theirs"]


def test_a_follower_of_logs_sees_them_live(served: Served) -> None:
    """Server-sent events bring output while the training runs, and end with the job."""
    agent = ScriptedAgent(served.http)
    job = submitted(served.http)
    agent.until(lambda: agent.training)
    agent.until(lambda: not agent.waiting)
    seen: list[str] = []

    def follow() -> None:
        path = f"/v1/jobs/{job.id}/logs"
        with served.http.stream("GET", path, params={"follow": True}) as stream:
            seen.extend(line for line in stream.iter_lines() if line)

    thread = threading.Thread(target=follow)
    thread.start()
    agent.log(f"{job.id}/1", offset=0, data=b"epoch 1\n")
    wait_until(lambda: any("epoch 1" in line for line in seen))
    agent.log(f"{job.id}/1", offset=8, data=b"epoch 2\n")
    wait_until(lambda: any("epoch 2" in line for line in seen))
    agent.tell(AttemptOver, attempt_id=f"{job.id}/1", outcome=Outcome.SUCCEEDED, exit_code=0)
    agent.sync()
    thread.join(10)
    assert "event: end" in seen
