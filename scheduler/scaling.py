"""Which idle nodes are given back, and when to look again.

A node is released once it was idle for its flavor's ``idle_release_ms``, has lived a minimum and
nobody needs it: not this plan, and not a job that may start within the next minute. One that still
boots when its attempt is over (another node of the gang was lost) is given back likewise: what it
would be for is gone, and it costs money from its launch on. Nodes that joined by themselves belong
to somebody else and are never released. Launches follow from placement: a node is started for a
job, never on suspicion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from jobs.durations import US_PER_MS
from jobs.reasons import Reason
from jobs.states import NodeState
from scheduler.market import Market
from scheduler.plan import Place, Release
from scheduler.snapshot import NodeView
from scheduler.wishes import Wait

SOON_US = 60_000_000
"""A node that a waiting job may need within this time is kept."""
MIN_LIFE_US = 30_000_000
"""No node is released sooner after it came up."""


@dataclass(slots=True)
class Scaled:
    """What goes, and when the next idle node is due."""

    releases: list[Release] = field(default_factory=list)
    wakes_us: list[int] = field(default_factory=list)


def release_idle(
    nodes: Iterable[NodeView],
    *,
    places: Iterable[Place],
    waits: Iterable[Wait],
    market: Market,
    kept: Iterable[str] = (),
) -> Scaled:
    """Decide for every idle node but those ``kept`` for attempts that are about to move there."""
    scaled = Scaled()
    used = {*kept, *(node for place in places for node in place.nodes)}
    wanted = _wanted_soon(waits, market=market)
    for view in nodes:
        due_us = _due_us(view, market=market)
        if due_us is None or view.row.id in used or view.row.flavor in wanted:
            continue
        if due_us <= market.now_us:
            scaled.releases.append(Release(node_id=view.row.id, reason=Reason.IDLE))
        else:
            scaled.wakes_us.append(due_us)
    return scaled


def _due_us(view: NodeView, *, market: Market) -> int | None:
    """Give when the node may be released, None while it is in use or not ours to release."""
    row = view.row
    offer = market.offers.get(row.flavor)
    if _boots_for_nobody(view):
        return row.requested_us + (offer.flavor.idle_release_ms * US_PER_MS if offer else 0)
    if row.state is not NodeState.READY or row.idle_since_us is None or row.noticed:
        return None
    if row.reason is Reason.JOINED:
        return None
    if offer is None:  # its flavor left the configuration: nothing will be placed on it
        return row.idle_since_us
    idle_us = row.idle_since_us + offer.flavor.idle_release_ms * US_PER_MS
    return max(idle_us, (row.ready_us or row.requested_us) + MIN_LIFE_US)


def _boots_for_nobody(view: NodeView) -> bool:
    row = view.row
    free = (view.free_milli, view.free_cpus) == (row.gpu_milli, row.cpus)
    return free and row.state is NodeState.BOOTING and not row.noticed


def _wanted_soon(waits: Iterable[Wait], *, market: Market) -> dict[str, None]:
    """Give the flavors that a job may start on within the next minute."""
    soon_us = market.now_us + SOON_US
    wanted: dict[str, None] = {}
    for wait in waits:
        if any(market.now_us < at_us <= soon_us for at_us in wait.wakes_us):
            wanted.update((offer.flavor.name, None) for offer in market.allowed(wait.job.spec))
    return wanted
