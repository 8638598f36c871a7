"""Notices about nodes, with ids that make re-telling harmless.

A node lives once, so each id is made of the node's own: told twice (after a provider's restart),
heard once.
"""

from __future__ import annotations

from cluster.notices import (
    EvictionNoticed,
    LaunchFailed,
    NodeBooted,
    NodeJoined,
    NodeLost,
    NodeReleased,
)


def booted(node_id: str, *, at_us: int) -> NodeBooted:
    """Say that a launch was accepted."""
    return NodeBooted(id=f"booted|{node_id}", at_us=at_us, node_id=node_id)


def joined(
    node_id: str,
    *,
    at_us: int,
    address: str,
    flavor: str = "",
    cluster: str = "",
    gpu_milli: int = 0,
    cpus: int = 0,
) -> NodeJoined:
    """Say that a node is up; with all that follows ``address`` when nobody asked for it."""
    return NodeJoined(
        id=f"joined|{node_id}",
        at_us=at_us,
        node_id=node_id,
        address=address,
        flavor=flavor,
        cluster=cluster,
        gpu_milli=gpu_milli,
        cpus=cpus,
    )


def launch_failed(node_id: str, *, at_us: int, detail: str) -> LaunchFailed:
    """Say that a node could not be started."""
    return LaunchFailed(id=f"failed|{node_id}", at_us=at_us, node_id=node_id, detail=detail)


def noticed(node_id: str, *, at_us: int, deadline_us: int) -> EvictionNoticed:
    """Say that the cloud will take a node."""
    return EvictionNoticed(
        id=f"noticed|{node_id}", at_us=at_us, node_id=node_id, deadline_us=deadline_us
    )


def lost(node_id: str, *, at_us: int, was_noticed: bool, detail: str) -> NodeLost:
    """Say that a node is gone without our doing."""
    return NodeLost(
        id=f"lost|{node_id}", at_us=at_us, node_id=node_id, noticed=was_noticed, detail=detail
    )


def released(node_id: str, *, at_us: int) -> NodeReleased:
    """Say that a node that we released is gone."""
    return NodeReleased(id=f"released|{node_id}", at_us=at_us, node_id=node_id)
