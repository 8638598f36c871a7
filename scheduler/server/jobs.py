"""Jobs: submit, list, look at, cancel, pause, resume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool

from jobs.errors import SpecError
from jobs.phases import phases_by_attempt
from jobs.rows import JobRow
from jobs.spec import JobSpec
from jobs.states import JobState
from scheduler.commands import Cancel, Pause, Resume, Submit
from scheduler.server.code import key_of
from scheduler.server.context import Context, InContext, answer
from scheduler.server.errors import RequestError
from scheduler.server.strict import StrictRoute

router = APIRouter(route_class=StrictRoute, prefix="/v1/jobs", tags=["jobs"])

_CURSOR_DIGITS = 18  # what fits into the database's integers


@router.post("", status_code=201)
async def submit(
    spec: JobSpec,
    context: InContext,
    *,
    dry_run: bool = False,
    idempotency_key: Annotated[str, Header(max_length=200)] = "",
    lowtide_owner: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """Queue a job. The same ``Idempotency-Key`` gives the same job, however often it is sent.

    With ``dry_run`` the job is only checked, and answered with 200 as it would be.
    """
    if spec.code and not dry_run:
        await run_in_threadpool(_check_code, context, spec)
    known = None
    if idempotency_key:
        known = await run_in_threadpool(context.store.job_by_key, idempotency_key)
    command = Submit(
        spec=spec, owner=lowtide_owner, idempotency_key=idempotency_key, dry_run=dry_run
    )
    row = await context.call(command)
    return answer({"job": row}, status=200 if dry_run or known else 201)


@router.get("")
def jobs(
    context: InContext,
    *,
    state: Annotated[Sequence[JobState], Query()] = (),
    team: str | None = None,
    cursor: str = "",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> Response:
    """List jobs, newest first. ``next`` is the cursor of the following page, null at the end."""
    after = _parse_cursor(cursor) if cursor else None
    rows = context.store.jobs(states=tuple(state), team=team, after=after, limit=limit)
    last = rows[-1] if len(rows) == limit else None
    return answer({"jobs": rows, "next": _cursor(last) if last else None})


@router.get("/{job_id}")
def job(job_id: str, context: InContext) -> Response:
    """Give a job, its attempts, what each start took (microseconds), and why it is as it is."""
    row = context.job(job_id)
    explain = {"reason": row.reason, "sentence": row.sentence}
    attempts = context.store.attempts(job_id)
    phases = phases_by_attempt(attempts)
    return answer({"job": row, "attempts": attempts, "phases": phases, "explain": explain})


@router.post("/{job_id}/cancel")
async def cancel(job_id: str, context: InContext) -> Response:
    """End a job; a live attempt is stopped without a save."""
    return answer({"job": await context.call(Cancel(job_id=job_id))})


@router.post("/{job_id}/pause")
async def pause(job_id: str, context: InContext) -> Response:
    """Hold a job; a live attempt saves and leaves."""
    return answer({"job": await context.call(Pause(job_id=job_id))})


@router.post("/{job_id}/resume")
async def resume(job_id: str, context: InContext) -> Response:
    """Let a held job go on."""
    return answer({"job": await context.call(Resume(job_id=job_id))})


@router.get("/{job_id}/events")
def events(job_id: str, context: InContext) -> Response:
    """Give the part of the journal that is about a job and its attempts, oldest first."""
    context.job(job_id)
    subjects = [job_id, *(attempt.id for attempt in context.store.attempts(job_id))]
    found = [record for one in subjects for record in context.store.records(subject=one)]
    return answer({"events": sorted(found, key=lambda record: record.seq)})


def _check_code(context: Context, spec: JobSpec) -> None:
    if not context.storage.exists(key_of(spec.code)):
        raise SpecError(
            f"Field 'code': no archive {spec.code} was uploaded.",
            remedy="Upload it first: PUT /v1/code/{sha256}; the SDK and the CLI do.",
        )


def _cursor(row: JobRow) -> str:
    return f"{row.submitted_us}.{row.id}"


def _parse_cursor(text: str) -> tuple[int, str]:
    at_us, _, job_id = text.partition(".")
    if not at_us.isdecimal() or len(at_us) > _CURSOR_DIGITS or not job_id:
        raise RequestError(
            f"'{text}' is not a cursor.", remedy="Use 'next' of the page before, unchanged."
        )
    return int(at_us), job_id
