"""Nodes of a Ray cluster that somebody else runs (on-prem, KubeRay, an autoscaler): only observed.

The agent runs on a node of that cluster. Which flavor a node is says its label
``lowtide.dev/flavor``, else the first flavor whose market, accelerator and zone its ``ray.io/*``
labels name and whose size it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cluster import lifecycle
from cluster.agent_clock import now_us
from cluster.flavors import Flavor
from cluster.notices import Notice
from cluster.ray_nodes import (
    ACCELERATOR_LABEL,
    FLAVOR_LABEL,
    MARKET_LABEL,
    ZONE_LABEL,
    GcsView,
    NodeView,
    SeenNode,
    label,
)
from jobs.codec import from_data
from jobs.errors import FileFormatError

_ID_CHARS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticOptions:
    """Where the cluster is. ``flavors`` maps a node's address to a flavor, before any label."""

    address: str  # host:port of the control store
    driver_ip: str = "127.0.0.1"  # of the node on which the agent runs, as Ray knows it
    flavors: dict[str, str] | None = None


def parse_options(data: Mapping[str, Any]) -> StaticOptions:
    """Read the provider's options.

    Raises:
        FileFormatError: names the first wrong one.
    """
    try:
        options: StaticOptions = from_data(dict(data), into=StaticOptions)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FileFormatError(
            f"Option '{where}' of the static provider: {first['msg']}.",
            remedy="It needs address: HOST:PORT of the Ray cluster's control store.",
        ) from error
    return options


class StaticProvider:
    """Reports nodes that join and leave; launches none and ends none."""

    def __init__(
        self,
        cluster: str,
        *,
        flavors: Mapping[str, Flavor],
        options: StaticOptions,
        view: NodeView | None = None,
    ) -> None:
        """``flavors`` may be changed by its owner; ``view`` stands for Ray in tests."""
        self._cluster = cluster
        self._flavors = flavors
        self._options = options
        self._view = view or GcsView(options.address)
        self._up: dict[str, SeenNode] = {}
        self._dead: set[str] = set()  # reported by this agent
        self._news: list[Notice] = []

    @property
    def address(self) -> str:
        """``host:port`` of the control store."""
        return self._options.address

    @property
    def driver_ip(self) -> str:
        """Of the node on which the agent runs."""
        return self._options.driver_ip

    def launch(self, node_id: str, *, flavor: Flavor) -> None:
        """Refuse: somebody else decides which nodes there are."""
        text = f"cluster {self._cluster} is static: Lowtide launches no nodes of {flavor.name}"
        self._news.append(lifecycle.launch_failed(node_id, at_us=now_us(), detail=text))

    def release(self, node_id: str) -> None:
        """Answer, and leave the node to whoever runs it."""
        self._news.append(lifecycle.released(node_id, at_us=now_us()))

    def evict(self, node_id: str, *, notice_ms: int) -> None:
        """Nothing: a node of somebody else is never killed from here."""

    def poll(self) -> list[Notice]:
        """Compare what Ray sees now with what it saw before."""
        seen = {self._id(node): node for node in self._view.nodes()}
        for node_id, node in seen.items():
            flavor = self._flavor_of(node)
            if node.alive and node_id not in self._up and flavor is not None:
                self._up[node_id] = node
                self._news.append(self._joined(node_id, node, flavor))
        # Ray forgets nobody within minutes, so an empty answer is a deaf control store; one
        # without a node that was up is another cluster behind the same address. Who died while
        # no agent looked is reported too: the server may still count on it.
        absent = [node_id for node_id in self._up if seen and node_id not in seen]
        dead = [node_id for node_id, node in seen.items() if not node.alive]
        for node_id in [*absent, *dead]:
            self._up.pop(node_id, None)
            if node_id not in self._dead:
                self._dead.add(node_id)
                self._news.append(
                    lifecycle.lost(node_id, at_us=now_us(), was_noticed=False, detail="it left Ray")
                )
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        """Nothing is held."""

    def _id(self, node: SeenNode) -> str:
        return f"{self._cluster}-{node.ray_id[:_ID_CHARS]}"

    def _joined(self, node_id: str, node: SeenNode, flavor: Flavor) -> Notice:
        return lifecycle.joined(
            node_id,
            at_us=now_us(),
            address=node.ray_id,
            flavor=flavor.name,
            cluster=self._cluster,
            gpu_milli=node.gpus * 1_000,
            cpus=node.cpus,
        )

    def _flavor_of(self, node: SeenNode) -> Flavor | None:
        named = (self._options.flavors or {}).get(node.address) or node.labels.get(FLAVOR_LABEL)
        if named is not None:
            return self._flavors.get(named)
        return next((f for f in self._flavors.values() if _fits(node, f)), None)


def _fits(node: SeenNode, flavor: Flavor) -> bool:
    wanted = {
        MARKET_LABEL: flavor.market.value,
        ACCELERATOR_LABEL: flavor.accelerator,
        ZONE_LABEL: flavor.zone,
    }
    by_label = all(
        key not in node.labels or node.labels[key] == label(text) for key, text in wanted.items()
    )
    big_enough = node.cpus >= flavor.cpus and node.gpus * 1_000 >= flavor.gpu_milli
    return by_label and big_enough and node.cpus > 0
