"""Nodes that exist only in memory, for tests and for trying out the loop without Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cluster import lifecycle
from cluster.flavors import Flavor
from cluster.notices import Notice


@dataclass(slots=True, kw_only=True)
class _Node:
    flavor: str
    ready_us: int
    up: bool = False
    gone: bool = False
    deadline_us: int | None = None


class FakeProvider:
    """Boots, evicts and releases by the clock that it is given (microseconds)."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        """Start without nodes."""
        self._now_us = now_us
        self._nodes: dict[str, _Node] = {}
        self._news: list[Notice] = []

    def launch(self, node_id: str, *, flavor: Flavor) -> None:
        """Begin to boot; up after ``flavor.boot_ms``."""
        if node_id in self._nodes:
            return
        at_us = self._now_us()
        up = sum(n.flavor == flavor.name and not n.gone for n in self._nodes.values())
        full = up >= flavor.max_nodes
        ready_us = at_us + flavor.boot_ms * 1_000
        self._nodes[node_id] = _Node(flavor=flavor.name, ready_us=ready_us, gone=full)
        if full:
            text = f"all {flavor.max_nodes} nodes of {flavor.name} are in use"
            self._news.append(lifecycle.launch_failed(node_id, at_us=at_us, detail=text))
        else:
            self._news.append(lifecycle.booted(node_id, at_us=at_us))

    def release(self, node_id: str) -> None:
        """End a node at once."""
        if node_id in self._nodes:
            self._nodes[node_id].gone = True
        self._news.append(lifecycle.released(node_id, at_us=self._now_us()))

    def evict(self, node_id: str, *, notice_ms: int) -> None:
        """Give notice and end the node when it is over."""
        node = self._nodes.get(node_id)
        if node is None or node.gone or node.deadline_us is not None:
            return
        if notice_ms <= 0:
            self._lose(node_id, node, detail="evicted without notice")
            return
        at_us = self._now_us()
        node.deadline_us = at_us + notice_ms * 1_000
        self._news.append(lifecycle.noticed(node_id, at_us=at_us, deadline_us=node.deadline_us))

    def crash(self, node_id: str) -> None:
        """Let a node die by itself."""
        self._lose(node_id, self._nodes[node_id], detail="it died")

    def poll(self) -> list[Notice]:
        """Let time do its work and give what happened."""
        for node_id, node in self._nodes.items():
            if not node.gone:
                self._pass_time(node_id, node)
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        """Nothing is held."""

    def _pass_time(self, node_id: str, node: _Node) -> None:
        at_us = self._now_us()
        if node.deadline_us is not None and at_us >= node.deadline_us:
            self._lose(node_id, node, detail="evicted after its notice")
        elif not node.up and at_us >= node.ready_us:
            node.up = True
            self._news.append(lifecycle.joined(node_id, at_us=at_us, address=node_id))

    def _lose(self, node_id: str, node: _Node, *, detail: str) -> None:
        node.gone = True
        self._news.append(
            lifecycle.lost(
                node_id,
                at_us=self._now_us(),
                was_noticed=node.deadline_us is not None,
                detail=detail,
            )
        )
