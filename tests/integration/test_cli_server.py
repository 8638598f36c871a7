"""The command line and the SDK against `lowtide serve`, a real process on a real database."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs import Client, JobSpec
from jobs.states import JobState
from scheduler.cli.app import run
from scheduler.home import Home
from tests.integration.scripted_agent import ScriptedAgent
from tests.integration.served import CONFIG, client_of, wait_until

pytestmark = pytest.mark.integration

LIMIT_S = 30


class Installation:
    """A home folder, a server process that may be killed, and a command line in this process."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """Write the configuration and a training script."""
        self.folder = folder
        self._capfd = capfd
        self.home = Home(folder / "home")
        self.home.folder.mkdir()
        (self.home.folder / "lowtide.yaml").write_text(CONFIG)
        (folder / "code").mkdir()
        (folder / "code" / "train.py").write_text("print('training')\n")
        self.server: subprocess.Popen[str] | None = None
        self.https: list[httpx.Client] = []

    def start(self) -> ScriptedAgent:
        """Start the server, wait until it leads, and give an agent of it."""
        self.server = self.popen("serve", "--port", "0", "--json")
        assert self.server.stdout is not None
        ready = json.loads("".join(iter(self.server.stdout.readline, "}\n")) + "}")
        http = client_of(self.home, ready["url"])
        self.https.append(http)
        wait_until(lambda: http.get("/v1/health").json()["role"] == "leader")
        return ScriptedAgent(http)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the server."""
        if self.server is not None:
            self.server.send_signal(number)
            self.server.communicate(timeout=LIMIT_S)
            self.server = None

    def clear(self) -> None:
        """Leave nothing behind."""
        self.stop(signal.SIGKILL)
        for http in self.https:
            http.close()

    def popen(self, *args: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "scheduler.cli", *args],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *args: str, code: int = 0) -> str:
        """Run a command to its end and give its output; of a failure the errors."""
        self._capfd.readouterr()
        if args[0] == "serve":  # it sets up the logs of its whole process
            process = self.popen(*args)
            out, err = process.communicate(timeout=LIMIT_S)
            found = process.returncode
        else:
            found = run(args)
            out, err = self._capfd.readouterr()
        assert found == code, (args, out, err)
        return out if code == 0 else err + out

    def json(self, *args: str) -> Any:
        """Run a command and read the one value that it prints."""
        return json.loads(self(*args, "--json"))


@pytest.fixture
def lowtide(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """An installation whose server is stopped in any case."""
    for name in ("LOWTIDE_SERVER", "LOWTIDE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOWTIDE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    made = Installation(tmp_path, capfd)
    yield made
    made.clear()


def test_a_job_from_submit_to_its_statement(lowtide: Installation) -> None:
    """Submitted, trained, evicted, resumed and paid for, all by commands."""
    agent = lowtide.start()
    sent = lowtide("submit", "code/train.py", "--team", "ads", "--work", "1h", "--deadline", "5h")
    assert sent.startswith("quote: $")
    assert ", uploaded\n" in sent
    asked = ("code/train.py", "--work", "1h", "--deadline", "5h")
    assert "risk of missing" in lowtide("quote", *asked)
    [row] = lowtide.json("ls")
    job_id = row["id"]
    agent.until(lambda: f"{job_id}/1" in agent.training)
    agent.log(f"{job_id}/1", offset=0, data=b"one\n")
    agent.until(lambda: not agent.waiting)
    assert "it trains on" in lowtide("show", job_id)
    [node] = lowtide.json("nodes")
    assert "5s" in lowtide("evict", node["id"], "--notice", "5s")
    agent.until(lambda: f"{job_id}/2" in agent.training)
    agent.log(f"{job_id}/2", offset=0, data="zwei ü\n".encode())
    agent.finish(f"{job_id}/2")
    agent.until(lambda: not agent.waiting)
    assert lowtide("logs", job_id) == "one\nzwei ü\n"
    shown = lowtide.json("show", job_id)
    assert (shown["job"]["state"], shown["job"]["evictions"]) == ("succeeded", 1)
    assert [attempt["state"] for attempt in shown["attempts"]] == ["evicted", "succeeded"]
    assert "succeeded" in lowtide("ls", "--team", "ads", "--state", "succeeded")
    assert "finished" in lowtide("explain", job_id)
    assert ", quoted $" in lowtide("show", job_id)
    statement = lowtide.json("cost", job_id)
    classes = statement["classes"].values()
    assert sum(one["usd_nanos"] for one in classes) == statement["total"]["usd_nanos"] > 0
    assert "exactly $0." in lowtide("cost", job_id)
    assert lowtide.json("cost")["difference_usd_nanos"] == 0
    assert "to the nano-dollar" in lowtide("cost")
    assert lowtide.json("audit")["clean"]
    database = lowtide.home.database_url
    lowtide.stop()
    assert "clean" in lowtide("audit", "--database", database)


def test_following_survives_a_killed_server(lowtide: Installation) -> None:
    """Killed while somebody follows: the new server, on another port, gives the rest."""
    agent = lowtide.start()
    job_id = lowtide.json("submit", "code/train.py")["job"]["id"]
    attempt = f"{job_id}/1"
    agent.until(lambda: attempt in agent.training and not agent.waiting)
    agent.log(attempt, offset=0, data=b"before\n")
    follower = lowtide.popen("logs", "-f", job_id)
    try:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "before\n"
        lowtide.stop(signal.SIGKILL)
        agent.http = lowtide.start().http
        agent.log(attempt, offset=7, data=b"after\n")
        agent.finish(attempt)
        agent.until(lambda: not agent.waiting)
        out, err = follower.communicate(timeout=LIMIT_S)
    finally:
        follower.kill()
        follower.communicate()
    assert (follower.returncode, out) == (0, "after\n"), err
    assert f"job {job_id} succeeded" in err


def test_wishes_and_game_days(lowtide: Installation) -> None:
    """Pause, resume, cordon and cancel do what they say; a second cancel is refused."""
    agent = lowtide.start()
    job_id = lowtide.json("submit", "code/train.py")["job"]["id"]
    agent.until(lambda: f"{job_id}/1" in agent.training and not agent.waiting)
    assert "it saves first" in lowtide("pause", job_id)
    agent.until(lambda: lowtide.json("show", job_id)["job"]["held"] and not agent.training)
    agent.until(lambda: not agent.waiting)
    assert "paused" in lowtide("explain", job_id)
    [node] = lowtide.json("nodes")
    assert lowtide.json("cordon", node["id"])["cordoned"]
    assert not lowtide.json("cordon", node["id"], "--undo")["cordoned"]
    lowtide("resume", job_id)
    agent.until(lambda: f"{job_id}/2" in agent.training and not agent.waiting)
    lowtide("cancel", job_id)
    agent.until(lambda: not agent.training and not agent.waiting)
    assert lowtide.json("show", job_id)["job"]["state"] == "cancelled"
    assert "is over" in lowtide("cancel", job_id, code=2)


def test_the_sdk_in_four_lines(lowtide: Installation) -> None:
    """Submit, wait, read the output and the cost from Python."""
    agent = lowtide.start()
    with Client() as client:
        spec = JobSpec(script="code/train.py", tags={"model": "digits"})
        job = client.submit(spec)
        agent.until(lambda: f"{job.id}/1" in agent.training)
        agent.log(f"{job.id}/1", offset=0, data=b"done\n")
        agent.finish(f"{job.id}/1")
        agent.until(lambda: not agent.waiting)
        assert job.wait(timeout=LIMIT_S) is JobState.SUCCEEDED
        assert job.logs() == "done\n"
        assert job.cost["total"]["usd_nanos"] > 0
        assert job.result().spec.tags == {"model": "digits"}
        assert [attempt.number for attempt in job.attempts] == [1]


def test_what_can_never_be_is_refused(lowtide: Installation) -> None:
    """A gang that nothing holds and a deadline that is out of reach, before any upload."""
    lowtide.start()
    submit = ("submit", "code/train.py")
    assert "No flavor" in lowtide(*submit, "--gpus", "64", code=2)
    assert "No flavor" in lowtide(*submit, "--nodes", "9", code=2)
    late = lowtide(*submit, "--work", "5h", "--deadline", "10m", code=2)
    assert "earliest finish" in late
    assert not list((lowtide.home.folder / "storage").rglob("*.tar.gz"))
    assert lowtide.json("ls") == []


def test_a_port_in_use_is_named(lowtide: Installation) -> None:
    """Cause, remedy and 2 instead of a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"Port {port} of 127.0.0.1 is in use" in lowtide("serve", "--port", port, code=2)


def test_a_newer_database_is_left_alone(lowtide: Installation) -> None:
    """Neither the server nor the audit touches what a newer version wrote."""
    lowtide.start()
    lowtide.stop()
    path = lowtide.home.folder / "lowtide.db"
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = 'from-the-future'")
    database.close()
    assert "newer version" in lowtide("serve", "--port", "0", code=2)
    assert "newer version" in lowtide("audit", "--database", f"sqlite:///{path}", code=2)


def test_wrong_credentials_are_named(
    lowtide: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is not the server's ends with 2."""
    lowtide.start()
    monkeypatch.setenv("LOWTIDE_TOKEN", "wrong")
    assert "LOWTIDE_TOKEN" in lowtide("ls", code=2)


def test_an_unreachable_storage_is_named(
    lowtide: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server says at once that its object storage does not answer."""
    with (lowtide.home.folder / "lowtide.yaml").open("a") as config:
        config.write("storage: s3://bucket/prefix\n")
    environment = {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert "  fix: " in lowtide("serve", "--port", "0", code=2)
