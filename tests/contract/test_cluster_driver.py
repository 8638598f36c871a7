"""What every ClusterDriver promises: nothing raises, nothing doubles, results come as notices."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Protocol, TypeVar

import pytest

from cluster.agent_clock import monotonic_us, now_us
from cluster.agent_logs import LogBook
from cluster.agent_state import AgentStore
from cluster.driver import ClusterDriver
from cluster.inbox import Inbox
from cluster.intents import EvictNode, LaunchNode, ReleaseNode
from cluster.launchers import ProcessLauncher
from cluster.notices import (
    EvictionNoticed,
    LaunchFailed,
    NodeJoined,
    NodeLost,
    NodeReleased,
    Notice,
)
from cluster.providers.memory import FakeProvider
from cluster.ray_driver import DriverEvent, RayDriver
from cluster.ray_driver_gangs import Gangs
from cluster.sim_driver import SimDriver
from cluster.worker_link import WorkerServer
from tests.builders import a_kind

pytestmark = pytest.mark.timeout(60)

LIMIT_US = 10_000_000
FLAVOR = a_kind(boot_ms=20, notice_ms=60)
Told = TypeVar("Told", bound=Notice)


class World(Protocol):
    """A driver, and a way to let time pass."""

    driver: ClusterDriver

    def notices(self) -> list[Notice]:
        """Give all notices so far."""

    def pass_time(self) -> bool:
        """Let a little time pass; False when nothing more will happen."""


class SimWorld:
    """The simulator's driver in virtual time."""

    def __init__(self) -> None:
        """Begin at a round instant."""
        self.inbox = Inbox()
        self.said: list[Notice] = []
        self.driver: ClusterDriver = self._sim()

    def _sim(self) -> SimDriver:
        self.sim = SimDriver([FLAVOR], limits={}, inbox=self.inbox, start_us=1_000_000)
        return self.sim

    def notices(self) -> list[Notice]:
        """Give all notices so far."""
        self.said += self.inbox.drain()
        return self.said

    def pass_time(self) -> bool:
        """Go to the next event."""
        next_us = self.sim.next_event_us
        if next_us is None:
            return False
        self.sim.run_until(next_us)
        return True

    def close(self) -> None:
        """Let go."""
        self.driver.close()


class RealWorld:
    """The driver of an agent, in real time, over nodes in memory."""

    def __init__(self, home: Path) -> None:
        """Start its thread."""
        self.store = AgentStore(home / "agent.sqlite")
        events: queue.Queue[DriverEvent] = queue.Queue()
        self.workers = WorkerServer(
            host="127.0.0.1",
            port=0,
            token_of=self.store.token_of,
            heard=events.put,
            logs=LogBook(home / "logs"),
        )
        gangs = Gangs(
            store=self.store,
            talker=self.workers,
            launcher=ProcessLauncher({}),
            storage=str(home / "storage"),
            agent_host="127.0.0.1",
        )
        driver = RayDriver(
            provider=FakeProvider(now_us),
            gangs=gangs,
            store=self.store,
            flavors={FLAVOR.name: FLAVOR},
            events=events,
        )
        driver.start()
        self.driver: ClusterDriver = driver
        self.until_us = monotonic_us() + LIMIT_US

    def notices(self) -> list[Notice]:
        """Give all notices so far."""
        return self.store.pending()

    def pass_time(self) -> bool:
        """Wait a moment."""
        Event().wait(0.02)
        return monotonic_us() < self.until_us

    def close(self) -> None:
        """End it."""
        self.driver.close()
        self.workers.close()
        self.store.close()


@pytest.fixture(params=["sim", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Each driver in turn."""
    made = SimWorld() if request.param == "sim" else RealWorld(tmp_path)
    yield made
    made.close()


def until(world: World, kind: type[Told], *, node_id: str) -> Told:
    """Let time pass until this was said about the node."""
    wanted: Callable[[], list[Told]] = lambda: [  # noqa: E731
        n for n in world.notices() if isinstance(n, kind) and getattr(n, "node_id", "") == node_id
    ]
    while not (found := wanted()):
        assert world.pass_time(), world.notices()
    return found[0]


def launch(node_id: str, *, flavor: str = "spot") -> LaunchNode:
    """An intent to launch."""
    return LaunchNode(id=f"launch|{node_id}", cluster="here", node_id=node_id, flavor=flavor)


def test_a_launch_is_told_in_order_and_only_once(world: World) -> None:
    """The same intent again changes nothing."""
    world.driver.submit(launch("n1"))
    world.driver.submit(launch("n1"))
    until(world, NodeJoined, node_id="n1")
    world.driver.submit(launch("n1"))
    world.driver.submit(launch("n2"))
    until(world, LaunchFailed, node_id="n2")  # whatever came of the repetition came before
    about = [n.kind for n in world.notices() if getattr(n, "node_id", "") == "n1"]
    assert about == ["node-booted", "node-joined"]


def test_what_cannot_be_launched_is_told_not_raised(world: World) -> None:
    """Beyond the limit there is a notice with a reason."""
    world.driver.submit(launch("n1"))
    world.driver.submit(launch("n2"))
    assert until(world, LaunchFailed, node_id="n2").detail


def test_an_eviction_is_a_notice_first_and_a_death_after_it(world: World) -> None:
    """The deadline is the node's end."""
    world.driver.submit(launch("n1"))
    until(world, NodeJoined, node_id="n1")
    world.driver.submit(EvictNode(id="evict|n1", cluster="here", node_id="n1", notice_ms=60))
    noticed = until(world, EvictionNoticed, node_id="n1")
    lost = until(world, NodeLost, node_id="n1")
    assert lost.noticed
    assert lost.at_us >= noticed.deadline_us == noticed.at_us + 60_000


def test_a_release_is_answered_and_makes_room(world: World) -> None:
    """After it another node of the flavor can be launched."""
    world.driver.submit(launch("n1"))
    until(world, NodeJoined, node_id="n1")
    world.driver.submit(ReleaseNode(id="release|n1", cluster="here", node_id="n1"))
    until(world, NodeReleased, node_id="n1")
    world.driver.submit(launch("n2"))
    until(world, NodeJoined, node_id="n2")
