"""The agents' endpoints: notices in, intents out, logs in. Everything may be sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Base64Bytes, BaseModel, Field

from cluster.intents import Intent, ReleaseNode, StopAttempt
from cluster.notices import Notice
from jobs.errors import UnknownSubjectError
from jobs.store import JobStore
from scheduler.commands import Barrier
from scheduler.server.context import Context, InContext, answer, settled
from scheduler.server.logs import MAX_OFFSET, MAX_RANK
from scheduler.server.strict import StrictRoute
from scheduler.settings import ClusterSettings

LONGEST_WAIT_MS = 5_000

router = APIRouter(route_class=StrictRoute, prefix="/v1/agents", tags=["agents"])


class AttemptReport(BaseModel):
    """An attempt whose processes live, as the agent sees it."""

    attempt_id: str
    token: str = ""


class SyncBody(BaseModel):
    """All that an agent knows: news since the last accepted sync, and what lives."""

    agent: str = Field(description="one agent process; a restarted one is another")
    notices: tuple[Annotated[Notice, Field(discriminator="kind")], ...] = ()
    attempts: tuple[AttemptReport, ...] = ()
    nodes: tuple[str, ...] = ()
    wait_ms: int = Field(default=0, ge=0, description="how long to wait for new intents, <= 5000")


class LogBody(BaseModel):
    """Output of one rank from a byte offset on, in base64."""

    attempt_id: str
    rank: int = Field(ge=0, le=MAX_RANK)
    offset: int = Field(ge=0, le=MAX_OFFSET)
    data: Base64Bytes


@router.post("/{cluster}/sync")
async def sync(cluster: str, body: SyncBody, context: InContext) -> Response:
    """Take notices, then give every open intent of the cluster.

    Notices are accepted after the tick that committed them; until then the agent sends them
    again. Without notices the answer waits until there is an intent that it has not been shown.
    """
    configured = _cluster(context, cluster)
    term = context.leadership.term()
    for notice in body.notices:
        term.inbox.post(notice)
    if body.notices:
        await settled(term, Barrier())
    stray = await run_in_threadpool(_strays, context.store, cluster, body)
    intents = _intents(context, cluster, stray)
    if not body.notices:
        await _wait(context, cluster, body, stray)
        intents = _intents(context, cluster, stray)
    context.link.show(cluster, body.agent, intents=intents)
    config = _config(context, configured)
    accepted = [notice.id for notice in body.notices]
    return answer({"config": config, "intents": intents, "accepted": accepted})


@router.post("/{cluster}/logs")
def logs(cluster: str, body: LogBody, context: InContext) -> Response:
    """Keep output. ``length`` is the stream's length after it: send the rest from there."""
    _cluster(context, cluster)
    length = context.store.append_log(
        body.attempt_id, rank=body.rank, offset=body.offset, data=body.data
    )
    return answer({"length": length})


def _cluster(context: Context, name: str) -> ClusterSettings:
    found = context.settings.cluster(name)
    if found is None:
        known = ", ".join(cluster.name for cluster in context.settings.clusters)
        raise UnknownSubjectError(
            f"There is no cluster '{name}'.", remedy=f"lowtide.yaml has: {known}."
        )
    return found


def _config(context: Context, cluster: ClusterSettings) -> dict[str, object]:
    mine = [
        flavor for flavor in context.settings.flavors.values() if flavor.cluster == cluster.name
    ]
    return {
        "flavors": mine,
        "storage": context.storage_uri,
        "provider": cluster.provider,
        "provider_options": cluster.provider_options,
        "risks": context.leadership.term().controller.risks.get(cluster.name, {}),
    }


def _intents(context: Context, cluster: str, stray: tuple[Intent, ...]) -> list[Intent]:
    opened = context.leadership.term().controller.open_intents.get(cluster, ())
    return list({intent.id: intent for intent in (*opened, *stray)}.values())


async def _wait(context: Context, cluster: str, body: SyncBody, stray: tuple[Intent, ...]) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + min(body.wait_ms, LONGEST_WAIT_MS) / 1_000
    while not context.stopping.is_set():
        ticket = asyncio.wrap_future(context.link.ticket(cluster))
        # Looked at after the ticket was taken: what comes in between wakes it.
        intents = _intents(context, cluster, stray)
        left_s = until - loop.time()
        if left_s <= 0 or context.link.has_news(cluster, body.agent, intents=intents):
            ticket.cancel()
            return
        await asyncio.wait([ticket], timeout=left_s)
        ticket.cancel()


def _strays(store: JobStore, cluster: str, body: SyncBody) -> tuple[Intent, ...]:
    """What lives at the agent and is over for us: attempts to stop, nodes to release."""
    live = {node.id for node in store.nodes() if node.cluster == cluster} if body.nodes else set()
    released = (
        ReleaseNode(id=f"release|{node_id}", cluster=cluster, node_id=node_id)
        for node_id in body.nodes
        if node_id not in live
    )
    return (*_over(store, cluster, body.attempts), *released)


def _over(
    store: JobStore, cluster: str, reports: tuple[AttemptReport, ...]
) -> Iterator[StopAttempt]:
    for report in reports:
        if not _holds(store, report):
            yield StopAttempt(
                id=f"stop|{report.attempt_id}", cluster=cluster, attempt_id=report.attempt_id
            )


def _holds(store: JobStore, report: AttemptReport) -> bool:
    """Whether the attempt still has the lease whose token it shows."""
    row = store.attempt(report.attempt_id)
    if row is None or row.ended:
        return False
    lease = store.lease(row.lease_id)
    return lease is not None and report.token in {"", lease.token}
