"""The server's side of the agents: a ClusterDriver that wakes their long polls.

An agent fetches every open intent of its cluster with each sync, so ``submit`` has nothing to
deliver: it only ends the waiting. Intents are derived from rows, so nothing here needs to last.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future

from cluster.intents import Intent


class AgentLinkDriver:
    """Wakes waiting agents when their cluster has new intents. Safe from any thread."""

    def __init__(self) -> None:
        """Nobody waits, nothing was shown."""
        self._lock = threading.Lock()
        self._waiting: dict[str, dict[int, Future[None]]] = {}
        self._shown: dict[tuple[str, str], frozenset[str]] = {}

    def submit(self, intent: Intent) -> None:
        """Wake the agents of the intent's cluster."""
        self._wake(intent.cluster)

    def close(self) -> None:
        """Wake everybody, so that a stopping server need not wait for its agents."""
        for cluster in list(self._waiting):
            self._wake(cluster)

    def ticket(self, cluster: str) -> Future[None]:
        """Give a future that is resolved by the next ``submit`` for the cluster (or ``close``)."""
        ticket: Future[None] = Future()
        with self._lock:
            self._waiting.setdefault(cluster, {})[id(ticket)] = ticket
        ticket.add_done_callback(lambda done: self._forget(cluster, done))
        return ticket

    def has_news(self, cluster: str, agent: str, *, intents: Iterable[Intent]) -> bool:
        """Whether an intent is open that this agent has not been shown."""
        return not {intent.id for intent in intents} <= self._shown.get(
            (cluster, agent), frozenset()
        )

    def show(self, cluster: str, agent: str, *, intents: Iterable[Intent]) -> None:
        """Remember what the agent is being shown. A lost answer costs one long poll's time."""
        self._shown[cluster, agent] = frozenset(intent.id for intent in intents)

    def waiting(self, cluster: str) -> int:
        """Give how many tickets of a cluster are open."""
        with self._lock:
            return len(self._waiting.get(cluster, {}))

    def _forget(self, cluster: str, ticket: Future[None]) -> None:
        with self._lock:
            self._waiting.get(cluster, {}).pop(id(ticket), None)

    def _wake(self, cluster: str) -> None:
        with self._lock:
            tickets = self._waiting.pop(cluster, {})
        for ticket in tickets.values():
            # A ticket whose request was broken off is cancelled; it needs no answer.
            if ticket.set_running_or_notify_cancel():
                ticket.set_result(None)
