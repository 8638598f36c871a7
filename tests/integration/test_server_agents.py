"""`up` keeps agent processes alive, takes living ones over, and ends them only when told to."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import orjson
import psutil
import pytest

from cluster.processes import created_at, is_running
from scheduler.agents import Agents
from scheduler.home import Home
from tests.integration.served import wait_until

pytestmark = pytest.mark.integration

_STAND_IN = "import sys, time; print(*sys.argv[1:], flush=True); time.sleep(600)"


def command(cluster: str, url: str) -> list[str]:
    """Give the command line of a process that only lives."""
    return [sys.executable, "-c", _STAND_IN, cluster, url]


def pid_of(folder: Path) -> int:
    """Give the agent's process id as it is remembered, 0 before the first."""
    path = folder / "agents" / "lab" / "agent.json"
    return int(orjson.loads(path.read_bytes())["pid"]) if path.exists() else 0


def test_an_agent_is_started_revived_taken_over_and_ended(tmp_path: Path) -> None:
    """Its death is noticed, a later `up` adopts it, and only `--down` ends it."""
    first = Agents(["lab"], home=Home(tmp_path), command=command)
    first.start("http://x")
    wait_until(lambda: pid_of(tmp_path))
    killed = pid_of(tmp_path)
    wait_until(
        lambda: "lab http://x" in (tmp_path / "agents" / "lab" / "agent.log").read_text("utf-8")
    )
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: pid_of(tmp_path) != killed)
    alive = pid_of(tmp_path)
    first.stop(down=False)
    assert psutil.pid_exists(alive)
    second = Agents(["lab"], home=Home(tmp_path), command=command)
    second.start("http://x")
    second.stop(down=False)
    assert pid_of(tmp_path) == alive
    second.stop(down=True)
    wait_until(lambda: not psutil.pid_exists(alive) or _is_zombie(alive))
    assert pid_of(tmp_path) == 0


def test_an_agent_follows_a_server_that_moved(tmp_path: Path) -> None:
    """One that was told of another address is replaced by one that knows the new one."""
    first = Agents(["lab"], home=Home(tmp_path), command=command)
    first.start("http://x")
    wait_until(lambda: pid_of(tmp_path))
    before = pid_of(tmp_path)
    first.stop(down=False)
    second = Agents(["lab"], home=Home(tmp_path), command=command)
    second.start("http://y")
    wait_until(lambda: pid_of(tmp_path) != before)
    assert not psutil.pid_exists(before) or _is_zombie(before)
    second.stop(down=True)


def _is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_is_the_same_after_the_clock_was_adjusted() -> None:
    """Its age may be told a second off; another process of the same id is older by far."""
    created = created_at(os.getpid())
    assert created is not None
    assert is_running(os.getpid(), created=created - 1)
    assert not is_running(os.getpid(), created=created - 60)
