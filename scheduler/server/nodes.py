"""Capacity: nodes, kinds of nodes with their prices, game days."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from jobs.codec import to_data
from jobs.durations import DurationMs
from scheduler.commands import Cordon, Evict
from scheduler.server.context import InContext, answer
from scheduler.server.strict import StrictRoute

router = APIRouter(route_class=StrictRoute, prefix="/v1", tags=["nodes"])


class EvictBody(BaseModel):
    """How much notice the node gets: ``"30s"``, or 0 for none."""

    model_config = ConfigDict(extra="forbid")
    notice: DurationMs = 30_000


class CordonBody(BaseModel):
    """Whether new attempts are kept away."""

    model_config = ConfigDict(extra="forbid")
    cordoned: bool = True


@router.get("/nodes")
def nodes(context: InContext, *, gone: bool = False) -> Response:
    """List the nodes that are up or coming, oldest first; with ``gone`` also the former ones."""
    return answer({"nodes": context.store.nodes(live_only=not gone)})


@router.post("/nodes/{node_id}/evict")
async def evict(node_id: str, context: InContext, body: EvictBody | None = None) -> Response:
    """Start a game day: the provider really evicts the node, with this notice."""
    notice_ms = (body or EvictBody()).notice
    return answer({"node": await context.call(Evict(node_id=node_id, notice_ms=notice_ms))})


@router.post("/nodes/{node_id}/cordon")
async def cordon(node_id: str, context: InContext, body: CordonBody | None = None) -> Response:
    """Keep new attempts away from a node, or let them back."""
    cordoned = (body or CordonBody()).cordoned
    return answer({"node": await context.call(Cordon(node_id=node_id, cordoned=cordoned))})


@router.get("/flavors")
def flavors(context: InContext) -> Response:
    """List the kinds of capacity: as configured, as last seen (price, limit, evictions), up."""
    up = Counter(node.flavor for node in context.store.nodes())
    seen = {row.name: row for row in context.store.flavors()}
    rows = [
        {**to_data(flavor), "now": to_data(seen.get(name)), "up": up[name]}
        for name, flavor in context.settings.flavors.items()
    ]
    return answer({"flavors": rows})
