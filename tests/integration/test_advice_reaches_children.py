"""Driver, worker and child as real processes: what is known of evictions arrives in time."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from checkpointing.hazard_posterior import Risk
from cluster.agent_clock import monotonic_us, now_us
from cluster.agent_logs import LogBook
from cluster.agent_state import AgentStore
from cluster.intents import EvictNode, LaunchNode, StartAttempt, StopAttempt
from cluster.launchers import ProcessLauncher
from cluster.notices import AttemptOver, NodeJoined
from cluster.providers.memory import FakeProvider
from cluster.ray_driver import DriverEvent, RayDriver
from cluster.ray_driver_gangs import Gangs
from cluster.worker_link import WorkerServer
from jobs.spec import JobSpec
from tests.builders import a_kind

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

LIMIT_US = 30_000_000
RISK = Risk(evictions_ppm=123_000, exposure_ms=7_200_000)
FLAVOR = a_kind(max_nodes=2, boot_ms=20, notice_ms=60_000)
CHILD = """
import threading
from checkpointing.control import Hello
from checkpointing.control_client import ControlClient
from checkpointing.environment import read_environment

client = ControlClient(read_environment().control_path, hello=Hello(rank=0, pid=1))
said = set()
while True:
    threading.Event().wait(0.01)
    news = {f"risk {client.risk.evictions_ppm}" if client.risk else "", f"hurries {client.hurries}"}
    for line in sorted(news - said):
        print(line, flush=True)
    said |= news
"""


class Agent:
    """A driver with all that belongs to it, over nodes in memory."""

    def __init__(self, home: Path) -> None:
        """Start its thread."""
        self.logs = home / "logs"
        self.store = AgentStore(home / "agent.sqlite")
        events: queue.Queue[DriverEvent] = queue.Queue()
        self._workers = WorkerServer(
            host="127.0.0.1",
            port=0,
            token_of=self.store.token_of,
            heard=events.put,
            logs=LogBook(self.logs),
        )
        root = str(Path(__file__).resolve().parents[2])
        self._launcher = ProcessLauncher({**os.environ, "PYTHONPATH": root})
        gangs = Gangs(
            store=self.store,
            talker=self._workers,
            launcher=self._launcher,
            storage=str(home / "storage"),
            agent_host="127.0.0.1",
        )
        self.driver = RayDriver(
            provider=FakeProvider(now_us),
            gangs=gangs,
            store=self.store,
            flavors={FLAVOR.name: FLAVOR},
            events=events,
        )
        self.driver.start()

    def wait_for(self, wanted: Callable[[], bool], what: str) -> None:
        """Wait until it is so, or fail."""
        until_us = monotonic_us() + LIMIT_US
        while not wanted():
            assert monotonic_us() < until_us, f"{what} never came: {self.output()}"
            Event().wait(0.02)

    def output(self) -> str:
        """Give what all children wrote."""
        return "".join(path.read_text() for path in sorted(self.logs.glob("*.log")))

    def node(self, node_id: str) -> None:
        """Launch a node and wait for it."""
        self.driver.submit(
            LaunchNode(id=f"launch|{node_id}", cluster="here", node_id=node_id, flavor="spot")
        )
        self.wait_for(
            lambda: any(
                isinstance(n, NodeJoined) and n.node_id == node_id for n in self.store.pending()
            ),
            node_id,
        )

    def start(self, script: Path, *, node: str) -> None:
        """Start an attempt that was leased with `RISK`."""
        self.driver.submit(
            StartAttempt(
                id="start|j/1",
                cluster="here",
                attempt_id="j/1",
                job_id="j",
                epoch=1,
                spec=JobSpec(script=str(script), cpus=1),
                node_ids=(node,),
                addresses=(node,),
                token="t",
                step=0,
                total_steps=0,
                flavor="spot",
                risk=RISK,
            )
        )

    def close(self) -> None:
        """End the attempt, then everything."""
        self.driver.submit(StopAttempt(id="stop|j/1", cluster="here", attempt_id="j/1"))
        self.wait_for(
            lambda: any(isinstance(n, AttemptOver) for n in self.store.pending()), "the end"
        )
        self.driver.close()
        self._launcher.sweep([])
        self._workers.close()
        self.store.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """One agent."""
    made = Agent(tmp_path)
    yield made
    made.close()


def test_a_child_is_told_at_its_start_and_when_there_is_news(agent: Agent, tmp_path: Path) -> None:
    """What was known at the lease, then only what changed; a neighbour's notice says hurry."""
    script = tmp_path / "train.py"
    script.write_text(CHILD)
    agent.node("n")
    agent.node("m")
    agent.start(script, node="n")
    agent.wait_for(lambda: "risk 123000" in agent.output(), "the first risk")
    agent.driver.advise({"j/1": replace(RISK, evictions_ppm=124_000)})
    agent.driver.advise({"j/1": replace(RISK, evictions_ppm=900_000)})
    agent.wait_for(lambda: "risk 900000" in agent.output(), "news")
    assert "risk 124000" not in agent.output()
    assert "hurries 1" not in agent.output()
    agent.driver.submit(EvictNode(id="evict|m", cluster="here", node_id="m", notice_ms=60_000))
    agent.wait_for(lambda: "hurries 1" in agent.output(), "hurry")
