"""Servers come and go: restarts, followers, crashes, and what keeps one from starting."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import LowtideError
from jobs.store_open import open_store
from scheduler.app import PortInUseError, Server, StorageUnusableError, check_storage
from scheduler.controller import Controller
from scheduler.home import Home
from tests.integration.scripted_agent import ScriptedAgent
from tests.integration.served import Process, Served, settings, wait_until

pytestmark = pytest.mark.integration

JOB = {"name": "retrain", "team": "ads"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_restarted_server_knows_everything(tmp_path: Path, number: int) -> None:
    """Killed or stopped while a training runs, it goes on: same job, same attempt, one bill."""
    before = Process(tmp_path)
    agent = ScriptedAgent(before.http)
    job_id = before.http.post("/v1/jobs", json=JOB).json()["job"]["id"]
    agent.until(lambda: agent.training)
    code = before.end(number)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    after = Process(tmp_path)
    try:
        agent.http = after.http  # with the notices that nobody accepted yet
        agent.until(lambda: not agent.waiting)
        assert list(agent.training) == [f"{job_id}/1"]
        agent.finish(f"{job_id}/1")
        agent.until(lambda: not agent.waiting)
        shown = after.http.get(f"/v1/jobs/{job_id}").json()
        assert (shown["job"]["state"], len(shown["attempts"])) == ("succeeded", 1)
        assert after.http.get("/v1/cost").json()["difference_usd_nanos"] == 0
    finally:
        assert after.end(signal.SIGTERM) == 0
    assert after.home.read_server() is None


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Served]:
    """Run a server whose database others share."""
    served = Served(tmp_path / "leader", database=f"sqlite:///{tmp_path / 'shared.db'}")
    yield served.lead()
    if served.error is None:
        served.stop()


def test_a_follower_reads_refuses_writes_and_takes_over(leader: Served, tmp_path: Path) -> None:
    """Two servers, one leader: the other shows the same and leads when the first has gone."""
    job_id = leader.http.post("/v1/jobs", json=JOB).json()["job"]["id"]
    follower = Served(tmp_path / "other", database=f"sqlite:///{tmp_path / 'shared.db'}")
    try:
        assert follower.http.get("/v1/health").json()["role"] == "follower"
        assert follower.http.get(f"/v1/jobs/{job_id}").json()["job"]["id"] == job_id
        refused = follower.http.post(f"/v1/jobs/{job_id}/cancel")
        assert (refused.status_code, refused.json()["code"]) == (503, "not-leader")
        assert "does not lead" in refused.json()["cause"]
        synced = follower.http.post("/v1/agents/lab/sync", json={"agent": "a"})
        assert synced.json()["code"] == "not-leader"
        leader.stop()
        leader.error = SystemExit()
        follower.lead()
        cancelled = follower.http.post(f"/v1/jobs/{job_id}/cancel")
        assert cancelled.status_code == 200
    finally:
        follower.stop()


def test_a_follower_of_the_same_home_names_the_leader(leader: Served) -> None:
    """A second server of the installation sends writers to the first."""
    follower = Served(leader.home.folder, database=leader.server._settings.database)
    try:
        refused = follower.http.post("/v1/jobs", json=JOB)
        assert f"{leader.server.url} does" in refused.json()["cause"]
    finally:
        follower.stop()
    assert (leader.home.read_server() or {})["url"] == leader.server.url


def test_a_crashed_loop_ends_the_server_with_its_cause(
    leader: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server stays up that answers but never decides again."""

    def broken(_: Controller) -> None:
        raise AssertionError("a bug of ours")

    monkeypatch.setattr(Controller, "tick", broken)
    leader.http.post("/v1/jobs", json=JOB, timeout=20)
    leader.join()
    assert isinstance(leader.error, AssertionError)


def test_the_lease_of_a_killed_server_is_not_waited_out(tmp_path: Path) -> None:
    """Its own successor, on the same machine, leads at once, however long the lease still is."""
    home = Home(tmp_path)
    gone = subprocess.Popen(["true"])
    gone.wait()
    home.write_server(url="http://127.0.0.1:1", pid=gone.pid, holder="killed")
    store = open_store(home.database_url)
    assert store.acquire_leadership("killed", now_us=time.time_ns() // 1_000, ttl_us=1 << 50)
    store.close()
    Served(tmp_path).lead().stop()


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    """Somebody else's port ends in a cause and a remedy, and no half-started server is left."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"Port {port}") as caught:
            Server(settings(port=port), home=Home(tmp_path))
    assert caught.value.code == "port-in-use"
    assert Home(tmp_path).read_server() is None


def test_an_unusable_storage_is_said_at_the_start(tmp_path: Path) -> None:
    """A storage that cannot be written is found before any job is taken."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for uri in (str(tmp_path / "file" / "x"), "ftp://host/x"):
        with pytest.raises(StorageUnusableError) as caught:
            Server(settings(storage=uri), home=Home(tmp_path / "home"))
        assert caught.value.remedy
    assert check_storage(str(tmp_path / "good"), probe="p").list("") == ()


@pytest.mark.parametrize("url", ["nonsense://x", "postgresql://nobody@127.0.0.1:1/none"])
def test_an_unusable_database_is_said_at_the_start(tmp_path: Path, url: str) -> None:
    """A database that is away or none ends in a cause and a remedy."""
    with pytest.raises(LowtideError):
        Server(settings(database=url), home=Home(tmp_path))


def test_an_embedded_server_is_found_by_its_home(leader: Served) -> None:
    """`server.json` names the server while it runs, and no longer."""
    found = leader.home.read_server()
    assert found is not None
    assert found["url"] == leader.server.url
    leader.stop()
    leader.error = SystemExit()
    wait_until(lambda: leader.home.read_server() is None)
