"""The SDK against a real HTTP server: what is sent, what is tried again, what is said."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.client import Client
from jobs.errors import (
    AuthError,
    ConflictError,
    InfeasibleError,
    SpecError,
    UnknownSubjectError,
    UnreachableError,
)
from jobs.spec import JobSpec
from jobs.transport import NoServerError, RefusedError, find_server
from tests.unit.jobs_client.tiny_api import TOKEN, TinyApi, job_row, problem


def accept(api: TinyApi) -> None:
    """Take any code and any job."""
    api.on("POST", "/v1/jobs", {"job": job_row()}, status=201)


def allow_upload(api: TinyApi, folder: Path) -> str:
    """Let the archive of a folder be uploaded once, and give its path."""
    from jobs.archive import pack

    path = f"/v1/code/{pack(folder).sha256}"
    api.on_each("HEAD", path, (404, b""), (200, b""))
    api.on("PUT", path, {"new": True}, status=201)
    return path


def test_submit_packs_uploads_and_queues(api: TinyApi, client: Client, script: Path) -> None:
    """The archive goes up under its own digest, and the spec names it and the path inside."""
    accept(api)
    path = allow_upload(api, script.parent)
    job = client.submit(JobSpec(script=str(script), gpus=2, deadline="6h", work="90m"))
    [put], [post] = api.asked("PUT", path), api.submits()
    assert hashlib.sha256(put.body).hexdigest() == path.rpartition("/")[2]
    assert post.data == {
        "version": 1,
        "script": "train.py",
        "code": path.rpartition("/")[2],
        "gpus": "2",
        "deadline": "6h",
        "work": "1h30m",
    }
    assert post.headers["idempotency-key"]
    assert job.id == "job-1"


def test_known_code_is_not_uploaded_again(api: TinyApi, client: Client, script: Path) -> None:
    """The second submit of the same folder asks and sends nothing."""
    accept(api)
    path = allow_upload(api, script.parent)
    client.submit({"script": str(script)})
    client.submit({"script": str(script)})
    assert len(api.asked("PUT", path)) == 1
    assert len(api.submits()) == 2


def test_what_is_refused_is_not_uploaded(api: TinyApi, client: Client, script: Path) -> None:
    """The server is asked first whether it would take the job at all."""
    path = allow_upload(api, script.parent)
    api.on("POST", "/v1/jobs", problem("infeasible", "No flavor.", "Ask for less."), status=422)
    with pytest.raises(InfeasibleError):
        client.submit({"script": str(script), "gpus": 64})
    assert not api.asked("PUT", path)
    assert not api.submits()


def test_a_missing_script_is_refused_before_anything_is_sent(api: TinyApi, client: Client) -> None:
    """Nobody waits for a cluster to learn of a typing error."""
    with pytest.raises(SpecError) as caught:
        client.submit(JobSpec(script="nowhere.py"))
    assert "nowhere.py" in caught.value.cause
    assert not api.requests


def test_a_script_outside_the_code_folder_is_refused(
    api: TinyApi, client: Client, script: Path, tmp_path: Path
) -> None:
    """The remedy names the option, and nothing is sent."""
    (tmp_path / "other").mkdir()
    with pytest.raises(SpecError) as caught:
        client.submit(JobSpec(script=str(script)), code_dir=tmp_path / "other")
    assert "--code-dir" in caught.value.remedy
    assert not api.requests


def test_a_wider_code_folder_keeps_the_path(api: TinyApi, client: Client, script: Path) -> None:
    """The script's place inside the archive is what the server is told."""
    accept(api)
    allow_upload(api, script.parent.parent)
    client.submit(JobSpec(script=str(script)), code_dir=script.parent.parent)
    assert api.submits()[0].data["script"] == "project/train.py"


def test_an_unknown_field_is_refused_at_home(api: TinyApi, client: Client) -> None:
    """The nearest field is proposed and nothing is sent."""
    with pytest.raises(SpecError, match="Did you mean 'deadline'"):
        client.submit({"script": "x.py", "dead_line": "6h"})
    assert not api.requests


def test_a_busy_server_is_asked_again_with_the_same_key(api: TinyApi, client: Client) -> None:
    """A retried submit cannot make a second job."""
    busy = (503, problem("not-leader", "Another server leads.", "Wait."))
    api.on_each("POST", "/v1/jobs", busy, busy, (201, {"job": job_row()}))
    client.enqueue(JobSpec(script="train.py", code="0" * 64))
    keys = {request.headers["idempotency-key"] for request in api.submits()}
    assert len(api.submits()) == 3
    assert len(keys) == 1


def test_two_submits_have_two_keys(api: TinyApi, client: Client) -> None:
    """Asking twice on purpose makes two jobs."""
    accept(api)
    for _ in range(2):
        client.enqueue(JobSpec(script="train.py", code="0" * 64))
    first, second = api.submits()
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_an_eviction_is_not_sent_twice(api: TinyApi) -> None:
    """What must not happen twice is not tried again once it may have arrived."""
    api.on("POST", "/v1/nodes/n1/evict", problem("x", "Away.", "Wait."), status=503)
    with (
        api.serving() as url,
        Client(url, token=TOKEN, patience_s=3) as client,
        pytest.raises(UnreachableError),
    ):
        client.evict("n1", notice="5s")
    [request] = api.asked("POST", "/v1/nodes/n1/evict")
    assert request.data == {"notice": "5s"}


def test_a_lost_answer_is_asked_for_again_only_if_that_is_harmless(api: TinyApi) -> None:
    """The eviction may have begun; reading twice does no harm."""
    api.hang_up("POST", "/v1/nodes/n1/evict")
    api.hang_up("GET", "/v1/nodes")
    with api.serving() as url, Client(url, token=TOKEN, patience_s=0.5) as client:
        with pytest.raises(UnreachableError):
            client.evict("n1")
        with pytest.raises(UnreachableError):
            client.nodes()
    assert len(api.asked("POST", "/v1/nodes/n1/evict")) == 1
    assert len(api.asked("GET", "/v1/nodes")) > 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (422, "infeasible", InfeasibleError),
        (409, "conflict", ConflictError),
        (404, "not-found", UnknownSubjectError),
        (401, "auth", AuthError),
        (418, "teapot", RefusedError),
        (500, "internal", UnreachableError),
    ],
)
def test_the_servers_words_come_through(
    api: TinyApi, client: Client, status: int, code: str, kind: type[Exception]
) -> None:
    """A problem becomes the error that the server raised, cause and remedy unchanged."""
    api.on("POST", "/v1/jobs", problem(code, "What is wrong.", "What to do."), status=status)
    with pytest.raises(kind) as caught:
        client.check(JobSpec(script="train.py", code="0" * 64))
    assert (caught.value.cause, caught.value.remedy) == ("What is wrong.", "What to do.")  # type: ignore[attr-defined]


def test_an_answer_that_is_not_ours_is_reported(api: TinyApi, client: Client) -> None:
    """A proxy's page is neither a crash nor a success."""
    api.on("GET", "/v1/nodes", b"<html>welcome</html>")
    with pytest.raises(UnreachableError, match="did not answer with JSON"):
        client.nodes()


def test_nobody_listening_says_so() -> None:
    """The remedy names the command that starts a server."""
    with pytest.raises(UnreachableError) as caught:
        Client("http://127.0.0.1:9", token=TOKEN, patience_s=0).nodes()
    assert "http://127.0.0.1:9" in caught.value.cause
    assert "lowtide up" in caught.value.remedy


def test_lists_go_on_to_the_last_page(api: TinyApi, client: Client) -> None:
    """The cursor is handed back unchanged, and a limit stops early."""
    pages = (
        {"jobs": [job_row(id="job-1"), job_row(id="job-2")], "next": "1.job-2"},
        {"jobs": [job_row(id="job-3")], "next": None},
    )
    api.on_each("GET", "/v1/jobs", *pages)
    assert [job.id for job in client.jobs(team="ads")] == ["job-1", "job-2", "job-3"]
    first, second = api.asked("GET", "/v1/jobs")
    assert first.query == {"team": "ads", "limit": "200"}
    assert second.query["cursor"] == "1.job-2"
    api.on_each("GET", "/v1/jobs", *pages)
    assert len(client.jobs(limit=2)) == 2
    assert api.requests[-1].query["limit"] == "2"


@pytest.mark.parametrize("name", ["", "a/b", "../health", "a?b", "a b"])
def test_ids_cannot_change_the_address(api: TinyApi, client: Client, name: str) -> None:
    """A wrong id is refused before it becomes a part of an address."""
    with pytest.raises(UnknownSubjectError):
        client.detail(name)
    assert not api.requests


def write_home(home: Path, *, url: str, token: str = TOKEN) -> None:
    """Write what a running server writes."""
    home.mkdir(exist_ok=True)
    (home / "server.json").write_text(json.dumps({"url": url, "pid": 1}))
    (home / "token").write_text(token + "\n")


def test_the_local_server_is_found(api: TinyApi, tmp_path: Path) -> None:
    """After `lowtide up` no variable needs to be set."""
    api.on("GET", "/v1/nodes", {"nodes": []})
    with api.serving() as url:
        write_home(tmp_path / "home", url=url)
        assert Client().nodes() == []


def test_no_server_known_says_what_to_do() -> None:
    """The first thing that a new user sees is a remedy."""
    with pytest.raises(NoServerError, match="lowtide up"):
        Client(patience_s=60).nodes()


def test_the_local_token_goes_to_no_other_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server somewhere else must not learn this machine's secret."""
    write_home(tmp_path / "home", url="http://127.0.0.1:1")
    monkeypatch.setenv("LOWTIDE_SERVER", "http://elsewhere.example")
    with pytest.raises(AuthError, match="LOWTIDE_TOKEN"):
        find_server()
    monkeypatch.setenv("LOWTIDE_SERVER", "http://127.0.0.1:1/")
    assert find_server().token == TOKEN


@pytest.mark.parametrize(
    "url", ["foo", "ftp://x", "http://", "http://[", "http://h:x", "127.0.0.1:80"]
)
def test_a_bad_address_is_refused(url: str) -> None:
    """A wrong LOWTIDE_SERVER is bad input, not an outage."""
    with pytest.raises(SpecError, match="is not a URL"):
        find_server(server=url, token=TOKEN)


def test_importing_the_packages_is_light() -> None:
    """`import jobs` loads nothing, and the SDK nothing of the server, the cluster or torch."""
    script = (
        "import sys, jobs; assert not {'pydantic', 'httpx'} & set(sys.modules); "
        "from jobs import Client, JobSpec; "
        "heavy = {'torch', 'ray', 'fastapi', 'sqlalchemy', 'boto3', 'numpy', 'typer'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_several_jobs_go_in_one_request(api: TinyApi, client: Client, script: Path) -> None:
    """One archive, one key, one request; an array is one specification in it."""
    place = {"id": "sweep", "index": 0, "size": 2, "max_parallel": None}
    rows = [
        job_row(id="sweep.0", array=place),
        job_row(id="sweep.1", array={**place, "index": 1}),
        job_row(id="best"),
    ]
    api.on("POST", "/v1/jobs/group", {"jobs": rows}, status=201)
    path = allow_upload(api, script.parent)
    jobs = client.submit_all(
        [
            JobSpec(script=str(script), name="sweep", array=2, max_parallel=1),
            {"script": str(script), "name": "best", "after": ["sweep"]},
        ]
    )
    assert [job.id for job in jobs] == ["sweep.0", "sweep.1", "best"]
    assert len(api.asked("PUT", path)) == 1
    sent = api.asked("POST", "/v1/jobs/group")[-1]
    assert [one.get("array") for one in sent.data["jobs"]] == [{"count": 2}, None]
    assert sent.data["jobs"][1]["after"] == [{"job": "sweep"}]
    assert sent.headers["idempotency-key"]


def test_an_array_is_one_thing_with_its_jobs(api: TinyApi, client: Client, script: Path) -> None:
    """It is counted, cancelled and waited for as one."""
    place = {"id": "sweep", "index": 0, "size": 2, "max_parallel": None}
    rows = [
        job_row(id=f"sweep.{n}", array={**place, "index": n}, state=state, ended_us=1)
        for n, state in enumerate(("succeeded", "failed"))
    ]
    for method, route in (("POST", "/v1/jobs/group"), ("GET", "/v1/jobs")):
        api.on(method, route, {"jobs": rows})
    api.on("POST", "/v1/jobs/sweep/cancel", {"job": rows[0], "jobs": rows})
    allow_upload(api, script.parent)
    array = client.submit_array(JobSpec(script=str(script)), array={"matrix": {"LR": [1, 2]}})
    assert (array.id, len(array), array.counts) == ("sweep", 2, {"succeeded": 1, "failed": 1})
    array.cancel()
    assert not array.succeeded
    assert array.wait() == {"succeeded": 1, "failed": 1}
    assert api.asked("GET", "/v1/jobs")[0].query == {"array": "sweep"}
