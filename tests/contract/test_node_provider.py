"""What every NodeProvider promises, on the one in memory and on real raylets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from cluster.agent_clock import monotonic_us, now_us
from cluster.notices import (
    EvictionNoticed,
    LaunchFailed,
    NodeBooted,
    NodeJoined,
    NodeLost,
    NodeReleased,
    Notice,
)
from cluster.provider import NodeProvider
from cluster.providers.local import LocalProvider, destroy_cluster
from cluster.providers.memory import FakeProvider
from tests.builders import a_kind

pytestmark = pytest.mark.timeout(240)

LIMIT_US = 100_000_000
BOOT_MS = 300
FLAVOR = a_kind("spot-t4", region="local", zone="local-a", cpus=1, boot_ms=BOOT_MS)
Told = TypeVar("Told", bound=Notice)


class World:
    """A provider and all that it said so far."""

    def __init__(self, provider: NodeProvider) -> None:
        """Nothing was said yet."""
        self.provider = provider
        self.said: list[Notice] = []

    def poll(self) -> None:
        """Listen once."""
        self.said += self.provider.poll()

    def about(self, node_id: str) -> list[Notice]:
        """Give what was said about a node."""
        return [n for n in self.said if getattr(n, "node_id", "") == node_id]

    def until(self, kind: type[Told], node_id: str) -> Told:
        """Listen until this was said about the node."""
        until_us = monotonic_us() + LIMIT_US
        while monotonic_us() < until_us:
            self.poll()
            for notice in self.about(node_id):
                if isinstance(notice, kind):
                    return notice
            threading.Event().wait(0.05)
        raise AssertionError(self.about(node_id))


@pytest.fixture(
    scope="module", params=["memory", pytest.param("local", marks=pytest.mark.integration)]
)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """One provider for the module: a Ray head takes seconds to start."""
    if request.param == "memory":
        yield World(FakeProvider(now_us))
        return
    provider = LocalProvider(tmp_path_factory.mktemp("local"))
    try:
        yield World(provider)
    finally:
        provider.destroy()


def test_a_launch_boots_once_and_joins_after_its_boot_time(world: World) -> None:
    """Launching is idempotent, billing starts at once, and Ray's id is the address."""
    world.provider.launch("once", flavor=FLAVOR)
    world.provider.launch("once", flavor=FLAVOR)
    joined = world.until(NodeJoined, "once")
    booted = world.until(NodeBooted, "once")
    assert joined.address
    assert joined.at_us - booted.at_us >= BOOT_MS * 1_000
    world.poll()
    assert [n.kind for n in world.about("once")] == ["node-booted", "node-joined"]
    world.provider.release("once")
    world.until(NodeReleased, "once")


def test_a_launch_beyond_the_limit_fails(world: World) -> None:
    """The limit is the flavor's, and a node that is gone does not count."""
    world.provider.launch("first", flavor=FLAVOR)
    world.provider.launch("second", flavor=FLAVOR)
    failed = world.until(LaunchFailed, "second")
    assert "all 1 nodes of spot-t4 are in use" in failed.detail
    world.provider.release("first")
    world.provider.launch("third", flavor=FLAVOR)
    world.until(NodeBooted, "third")
    world.provider.release("third")
    world.until(NodeReleased, "third")
    assert not [n for n in world.about("third") if isinstance(n, LaunchFailed)]


def test_an_eviction_gives_notice_once_and_then_takes_the_node(world: World) -> None:
    """The deadline is kept, and a second eviction changes nothing."""
    world.provider.launch("warned", flavor=FLAVOR)
    world.provider.evict("warned", notice_ms=800)
    world.provider.evict("warned", notice_ms=5)
    noticed = world.until(EvictionNoticed, "warned")
    lost = world.until(NodeLost, "warned")
    assert noticed.deadline_us - noticed.at_us == 800_000
    assert lost.noticed
    assert lost.at_us >= noticed.deadline_us
    world.poll()
    kinds = [n.kind for n in world.about("warned") if n.kind != "node-joined"]
    assert kinds == ["node-booted", "eviction-noticed", "node-lost"]


def test_an_eviction_without_notice_takes_the_node_at_once(world: World) -> None:
    """Notice 0: the node is lost, unnoticed."""
    world.provider.launch("sudden", flavor=FLAVOR)
    world.provider.evict("sudden", notice_ms=0)
    assert not world.until(NodeLost, "sudden").noticed


def test_a_release_is_answered_always_with_the_same_notice(world: World) -> None:
    """Releasing is idempotent, also for a node that nobody knows."""
    world.provider.launch("left", flavor=FLAVOR)
    world.provider.release("left")
    world.provider.release("left")
    world.provider.release("unknown")
    world.until(NodeReleased, "left")
    world.until(NodeReleased, "unknown")
    world.poll()
    assert len({n.id for n in world.about("left") if isinstance(n, NodeReleased)}) == 1
    assert not [n for n in world.about("left") if isinstance(n, NodeLost)]


def test_nothing_happens_to_nodes_that_are_gone_or_unknown(world: World) -> None:
    """Evicting them is silent."""
    world.provider.launch("gone", flavor=FLAVOR)
    world.provider.release("gone")
    world.until(NodeReleased, "gone")
    world.provider.evict("gone", notice_ms=0)
    world.provider.evict("never", notice_ms=0)
    world.poll()
    assert not [n for n in (*world.about("gone"), *world.about("never")) if n.kind == "node-lost"]


@pytest.mark.integration
def test_a_new_provider_finds_its_nodes_and_tells_their_story_again(tmp_path: Path) -> None:
    """After a kill -9 nothing is lost: same nodes, same notices with the same ids."""
    first = World(LocalProvider(tmp_path))
    try:
        first.provider.launch("kept", flavor=FLAVOR)
        joined = first.until(NodeJoined, "kept")
        first.provider.launch("refused", flavor=FLAVOR)
        first.until(LaunchFailed, "refused")
        second = World(LocalProvider(tmp_path))  # the first is simply forgotten
        second.poll()
        assert {n.id: n for n in second.said} == {n.id: n for n in first.said}
        assert joined in second.said
        second.provider.evict("kept", notice_ms=0)
        second.until(NodeLost, "kept")
    finally:
        destroy_cluster(tmp_path)
