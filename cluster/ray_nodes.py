"""What Ray's control store says about nodes, without joining the cluster as a driver.

The client is Ray's own (``ray.util`` offers none that works without ``ray.init``); everything
that is used of it stands in this file.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

NODE_LABEL = "lowtide.dev/node"
FLAVOR_LABEL = "lowtide.dev/flavor"
MARKET_LABEL = "ray.io/market-type"
ACCELERATOR_LABEL = "ray.io/accelerator-type"
ZONE_LABEL = "ray.io/availability-zone"

_ALIVE = 0
_PREEMPTION = 2
_TIMEOUT_S = 5.0
_LABEL_CHARS = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenNode:
    """A node as Ray sees it; ``ray_id`` is the hex id that label selectors take."""

    ray_id: str
    alive: bool
    address: str
    is_head: bool
    labels: Mapping[str, str]
    cpus: int
    gpus: int


class NodeView(Protocol):
    """What a provider needs to know and to tell of Ray nodes."""

    def nodes(self) -> list[SeenNode]:
        """Give all nodes that Ray remembers; empty while it cannot be reached."""

    def drain(self, ray_id: str, *, deadline_us: int) -> None:
        """Tell Ray that the node goes away, so that nothing new is placed on it."""


class GcsView:
    """Asks the control store at ``address`` (``host:port``)."""

    def __init__(self, address: str) -> None:
        """Connect on first use."""
        self.address = address
        self._client: Any = None

    def nodes(self) -> list[SeenNode]:
        """Give all nodes; empty while Ray cannot be reached."""
        from ray.exceptions import RayError  # noqa: PLC0415 - ray is heavy

        try:
            found = self._connected().get_all_node_info(timeout=_TIMEOUT_S)
        except RayError:
            return []
        return [_seen(info) for info in found.values()]

    def drain(self, ray_id: str, *, deadline_us: int) -> None:
        """Ask for a drain that cannot be refused; a dead control store has nothing to drain."""
        from ray.exceptions import RayError  # noqa: PLC0415 - ray is heavy

        try:
            self._connected().drain_node(
                ray_id, _PREEMPTION, "lowtide: eviction", deadline_us // 1_000, timeout=_TIMEOUT_S
            )
        except RayError:
            return

    def _connected(self) -> Any:  # noqa: ANN401 - Ray's client has no types
        if self._client is None:
            ray = importlib.import_module("ray._raylet")

            self._client = ray.GcsClient(address=self.address)
        return self._client


def label(text: str) -> str:
    """Give the nearest text that Ray takes as a label's value."""
    kept = "".join(char if char.isalnum() or char in "-_." else "-" for char in text)
    return kept[:_LABEL_CHARS].strip("-_.")


def _seen(info: Any) -> SeenNode:  # noqa: ANN401 - a protobuf message without types
    return SeenNode(
        ray_id=info.node_id.hex(),
        alive=info.state == _ALIVE,
        address=info.node_manager_address,
        is_head=bool(info.is_head_node),
        labels=dict(info.labels),
        cpus=int(info.resources_total.get("CPU", 0)),
        gpus=int(info.resources_total.get("GPU", 0)),
    )
