"""Money: a job's statement, the overview that ties to the node bill, and the audit."""

from __future__ import annotations

from fastapi import APIRouter, Response

from jobs.errors import ConflictError
from jobs.ledger.statement import overview, statement
from scheduler.audit import summary
from scheduler.audit_store import audit_store
from scheduler.server.context import InContext, answer

_AUDIT_TRIES = 10

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


@router.get("/audit")
def audit(context: InContext) -> Response:
    """Check the books: journal against rows, entries against each other and the bill."""
    for _ in range(_AUDIT_TRIES):
        before = context.store.last_seq()
        findings = audit_store(context.store)
        # What was read while a tick was committed is of two instants, so it proves nothing.
        if not findings or context.store.last_seq() == before:
            return answer(summary(findings))
    raise ConflictError(
        "The books moved during each of the audits.",
        remedy="Try again when less is going on, or audit a copy: `lowtide audit --database URL`.",
    )
