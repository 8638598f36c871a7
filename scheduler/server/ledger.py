"""Money: a job's statement, the overview that ties to the node bill, and the audit."""

from __future__ import annotations

from fastapi import APIRouter, Response

from jobs.ledger.statement import overview, statement
from scheduler.server.context import InContext, answer

router = APIRouter(prefix="/v1", tags=["ledger"])


@router.get("/jobs/{job_id}/cost")
def cost(job_id: str, context: InContext) -> Response:
    """Give one job's statement: money and GPU time by class, so far."""
    context.job(job_id)
    attempts = [attempt.id for attempt in context.store.attempts(job_id)]
    entries = context.store.entries(attempt_ids=attempts) if attempts else ()
    return answer(statement(job_id, entries))


@router.get("/cost")
def total(context: InContext) -> Response:
    """Give all jobs + idle + overhead = the node bill, to the nano-dollar."""
    return answer(overview(context.store.entries()))
