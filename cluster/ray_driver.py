"""The ClusterDriver on real nodes: a provider for nodes, a launcher and links for gangs.

One thread owns all state: intents, what workers say and what the provider tells meet in its queue.
Results leave as notices. The drain at an eviction notice is decided here, without the server.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, assert_never

from checkpointing.hazard_posterior import Risk
from cluster.agent_clock import monotonic_us, now_us
from cluster.flavors import Flavor
from cluster.gang import Facts
from cluster.intents import (
    DrainAttempt,
    EvictNode,
    Intent,
    LaunchNode,
    ReleaseNode,
    StartAttempt,
    StopAttempt,
)
from cluster.lifecycle import launch_failed
from cluster.notices import (
    AttemptOver,
    EvictionNoticed,
    LaunchFailed,
    NodeBooted,
    NodeJoined,
    NodeLost,
    NodeReleased,
    Notice,
    Outcome,
)
from cluster.provider import NodeProvider
from cluster.ray_driver_gangs import Gangs
from cluster.worker_link import Heard

_TICK_S = 0.05
_POLL_US = 100_000
_DRAIN_MS = 30_000  # when an intent names no deadline
_MARGIN_PERCENT = 10  # of a notice is left for the news of the drain to get out
_MARGIN_US = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchTrouble:
    """The workers of an attempt could not be started."""

    attempt_id: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What the server knows now of the evictions and prices of attempts, by their id."""

    risks: Mapping[str, Risk]


DriverEvent = Intent | Heard | LaunchTrouble | Advice


class DriverStore(Protocol):
    """What the driver must not forget."""

    def post(self, notice: Notice) -> None:
        """Keep a notice until it is accepted."""

    def keep(self, attempt: StartAttempt, *, facts: Facts) -> None:
        """Remember a live attempt."""

    def live(self) -> list[tuple[StartAttempt, Facts]]:
        """Give the attempts that are not over."""

    def is_over(self, attempt_id: str) -> bool:
        """Whether the attempt was known and is over."""

    def finish(self, attempt_id: str, notice: Notice) -> None:
        """Mark an attempt as over and post the notice of it."""

    def resend(self, notice_id: str) -> None:
        """Send a notice again."""


class RayDriver:
    """Carries out intents; see ``cluster.driver.ClusterDriver`` for the promises."""

    def __init__(
        self,
        *,
        provider: NodeProvider,
        gangs: Gangs,
        store: DriverStore,
        flavors: dict[str, Flavor],
        events: queue.Queue[DriverEvent],
    ) -> None:
        """Events may be put from any thread; ``flavors`` may be changed at any time."""
        self._provider = provider
        self._gangs = gangs
        self._store = store
        self._flavors = flavors
        self._events = events
        self._taken: set[str] = set()
        self._advised: Mapping[str, Risk] = {}
        self._flavor_of: dict[str, str] = {}  # of the nodes that were launched in this life
        self._polled_us = 0
        self._nodes: dict[str, None] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="driver", daemon=True)
        self.failure: BaseException | None = None
        """What ended the thread: a bug of ours. The agent then ends, too, and starts anew."""

    def start(self) -> None:
        """Take up the attempts of an earlier life and begin."""
        self._gangs.resume()
        self._thread.start()

    def node_ids(self) -> list[str]:
        """Give the nodes that were told of and are not gone, oldest first. Any thread."""
        return list(self._nodes)

    def submit(self, intent: Intent) -> None:
        """Take an intent once per life; what it calls for is only done where it is missing."""
        self._events.put(intent)

    def advise(self, risks: Mapping[str, Risk]) -> None:
        """Take what the server knows of attempts; saying the same again costs nothing."""
        if risks != self._advised:
            self._advised = risks
            self._events.put(Advice(risks=risks))

    def close(self) -> None:
        """End the thread; nodes and attempts are left alone."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._provider.close()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                with suppress(queue.Empty):
                    self._take(self._events.get(timeout=_TICK_S))
                    while True:
                        self._take(self._events.get_nowait())
                self._poll()
                self._gangs.tick()
        except BaseException as error:
            self.failure = error  # the agent sees it and ends: a successor starts from disk
            raise

    def _take(self, event: DriverEvent) -> None:
        if isinstance(event, Heard):
            self._gangs.heard(event)
            if event.message is None:
                self._polled_us = 0  # its node may be gone: look at once
        elif isinstance(event, LaunchTrouble):
            self._gangs.launch_failed(event.attempt_id, event.why)
        elif isinstance(event, Advice):
            self._gangs.advise(event.risks)
        else:
            self._carry_out(event)

    def _carry_out(self, intent: Intent) -> None:
        if intent.id in self._taken:
            return
        self._taken.add(intent.id)
        match intent:
            case LaunchNode():
                self._launch(intent)
            case ReleaseNode(node_id=node_id):
                self._provider.release(node_id)
            case EvictNode(node_id=node_id, notice_ms=notice_ms):
                self._provider.evict(node_id, notice_ms=notice_ms)
            case StartAttempt() | DrainAttempt() | StopAttempt():
                self._take_attempt(intent)
            case _:
                assert_never(intent)

    def _take_attempt(self, intent: StartAttempt | DrainAttempt | StopAttempt) -> None:
        attempt_id = intent.attempt_id
        if self._store.is_over(attempt_id):
            self._store.resend(over_id(attempt_id))
        elif isinstance(intent, StartAttempt):
            self._gangs.start(intent)
        elif not self._gangs.knows(attempt_id):
            self._gangs.end_unknown(attempt_id)
            self._store.post(
                AttemptOver(
                    id=over_id(attempt_id),
                    at_us=now_us(),
                    attempt_id=attempt_id,
                    outcome=Outcome.STOPPED,
                    detail="this agent does not know the attempt",
                )
            )
        elif isinstance(intent, DrainAttempt):
            self._gangs.drain(
                attempt_id, deadline_us=intent.deadline_us or now_us() + _DRAIN_MS * 1_000
            )
        else:
            self._gangs.stop(attempt_id)

    def _launch(self, intent: LaunchNode) -> None:
        flavor = self._flavors.get(intent.flavor)
        if flavor is None:
            text = f"this cluster has no flavor {intent.flavor}"
            self._store.post(launch_failed(intent.node_id, at_us=now_us(), detail=text))
        else:
            self._flavor_of[intent.node_id] = flavor.name
            self._provider.launch(intent.node_id, flavor=flavor)

    def _poll(self) -> None:
        if monotonic_us() - self._polled_us < _POLL_US:
            return
        self._polled_us = monotonic_us()
        looked_us = now_us()
        for notice in self._provider.poll():
            if isinstance(notice, NodeLost) and not notice.noticed:
                self._gangs.first_sign(notice.node_id, at_us=min(looked_us, notice.at_us))
            self._store.post(notice)
            self._count(notice)
            self._reflex(notice)

    def _count(self, notice: Notice) -> None:
        # After its notice is kept: a node that the server never heard of would be released.
        match notice:
            case NodeBooted(node_id=node_id) | NodeJoined(node_id=node_id):
                self._nodes[node_id] = None
            case NodeLost() | NodeReleased() | LaunchFailed():
                self._nodes.pop(notice.node_id, None)
                self._flavor_of.pop(notice.node_id, None)
            case _:
                pass

    def _reflex(self, notice: Notice) -> None:
        """Act on what concerns running gangs at once; the server hears of it as well."""
        if isinstance(notice, EvictionNoticed):
            grace_us = max(0, notice.deadline_us - notice.at_us)
            margin_us = min(_MARGIN_US, grace_us * _MARGIN_PERCENT // 100)
            self._gangs.drain_node(notice.node_id, deadline_us=notice.deadline_us - margin_us)
            flavor = self._flavor_of.get(notice.node_id, "")
            self._gangs.hurry_beside(notice.node_id, flavor=flavor)
        elif isinstance(notice, NodeLost | NodeReleased):
            self._gangs.node_lost(notice.node_id)
        elif isinstance(notice, NodeJoined):
            self._gangs.node_joined(notice.address)


def over_id(attempt_id: str) -> str:
    """Give the id of the one notice that an attempt is over."""
    return f"over|{attempt_id}"
