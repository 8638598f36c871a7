"""Quotes before a submit, what a job was quoted at its own, and why it is as it is."""

from __future__ import annotations

import threading
from contextlib import suppress

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from starlette.background import BackgroundTask

from jobs.errors import LowtideError, UnreachableError
from jobs.events import JobQuoted
from jobs.ledger.statement import statement
from jobs.quotes import Quoted
from jobs.rows import JobRow
from jobs.spec import JobSpec
from jobs.store import JobStore
from scheduler.commands import KeepQuote
from scheduler.explain import explain
from scheduler.quote import quote
from scheduler.server.context import Context, InContext, answer
from scheduler.server.strict import StrictRoute
from scheduler.snapshot import Snapshot

router = APIRouter(route_class=StrictRoute, prefix="/v1", tags=["quotes"])

_KEEPERS = threading.BoundedSemaphore(2)
"""Quotes that are worked out after a submit, at once: a flood of jobs must not starve the loop."""


@router.post("/quotes")
def ask(spec: JobSpec, context: InContext, *, curve: bool = True) -> Response:
    """Quote a specification; nothing is stored.

    ``curve`` asks for the cost of other deadlines and of a start at once as well.
    """
    return answer(quote(seen(context), spec, others=curve))


@router.get("/jobs/{job_id}/quote")
def kept(job_id: str, context: InContext) -> Response:
    """Give what a job was quoted at its submission (null: nothing), and what has come so far."""
    row = context.job(job_id)
    attempts = context.store.attempts(job_id)
    entries = context.store.entries(attempt_ids=[one.id for one in attempts]) if attempts else ()
    actual = {
        "cost_usd_nanos": statement(job_id, entries).total.usd_nanos,
        "start_us": attempts[0].created_us if attempts else None,
        "finish_us": row.ended_us,
    }
    return answer({"quoted": quoted_at_submit(context.store, job_id), "actual": actual})


@router.get("/jobs/{job_id}/explain")
def why(job_id: str, context: InContext) -> Response:
    """Say why a job waits and what would release it, or where it is and what comes next."""
    row = context.job(job_id)
    return answer(explain(seen(context), row, attempts=context.store.attempts(job_id)))


def keeping(context: Context, row: JobRow) -> BackgroundTask:
    """Give the task that quotes a job after its submission and keeps that in the journal."""
    return BackgroundTask(_keep, context, row)


async def _keep(context: Context, row: JobRow) -> None:
    if not _KEEPERS.acquire(blocking=False):
        return
    try:
        with suppress(LowtideError):  # the job is in the queue; it only has no quote
            found = await run_in_threadpool(quote, seen(context), row.spec, others=False)
            await context.call(KeepQuote(job_id=row.id, quoted=found.quoted))
    finally:
        _KEEPERS.release()


def quoted_at_submit(store: JobStore, job_id: str) -> Quoted | None:
    """Give the first quote in a job's part of the journal."""
    for record in store.records(subject=job_id):
        if isinstance(record.event, JobQuoted):
            return record.event.quoted
    return None


def seen(context: Context) -> Snapshot:
    """Give what the loop saw last.

    Raises:
        NotLeaderError: another server leads.
        UnreachableError: the loop has not looked yet.
    """
    snapshot = context.leadership.term().controller.seen
    if snapshot is None:
        raise UnreachableError(
            "The scheduler has not looked at the world yet.", remedy="Try again in a second."
        )
    return snapshot
