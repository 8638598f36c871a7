"""Who owns node lifecycles: launch, release, evict, and what became of each.

A provider is driven by the agent from one thread. ``poll`` returns what happened since the last
call; nothing else carries news.
"""

from __future__ import annotations

from typing import Protocol

from cluster.flavors import Flavor
from cluster.notices import Notice


class NodeProvider(Protocol):
    """Starts and ends nodes of one cluster."""

    def launch(self, node_id: str, *, flavor: Flavor) -> None:
        """Begin to start a node; idempotent by ``node_id``; news come by ``poll``."""

    def release(self, node_id: str) -> None:
        """Terminate a node; idempotent; ``NodeReleased`` follows, also for an unknown id."""

    def evict(self, node_id: str, *, notice_ms: int) -> None:
        """Take a node as the cloud would: notice, grace, then the end (0 = at once)."""

    def poll(self) -> list[Notice]:
        """Give what happened since the last call, in order."""

    def close(self) -> None:
        """Let go of handles; nodes stay up."""
