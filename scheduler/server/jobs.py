"""Jobs, arrays and groups of jobs: submit, list, look at, cancel, pause, resume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from jobs.arrays import element_id
from jobs.errors import SpecError, UnknownSubjectError
from jobs.phases import phases_by_attempt
from jobs.rows import JobRow
from jobs.spec import JobSpec
from jobs.states import JobState
from jobs.store import JobStore
from jobs.wants import MAX_ELEMENTS
from scheduler.commands import Cancel, Pause, Resume, SubmitAll
from scheduler.server.code import key_of
from scheduler.server.context import Context, InContext, answer
from scheduler.server.errors import RequestError
from scheduler.server.quotes import keeping
from scheduler.server.strict import StrictRoute

router = APIRouter(route_class=StrictRoute, prefix="/v1/jobs", tags=["jobs"])

_CURSOR_DIGITS = 18  # what fits into the database's integers
_PAGE = 500


@router.post("", status_code=201)
async def submit(
    spec: JobSpec,
    context: InContext,
    *,
    dry_run: bool = False,
    idempotency_key: Annotated[str, Header(max_length=200)] = "",
    lowtide_owner: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """Queue a job or an array. The same ``Idempotency-Key`` gives the same, however often sent.

    ``job`` is the job, or the first element; ``jobs`` are all of them. With ``dry_run`` they are
    only checked, and answered with 200 as they would be.
    """
    command = SubmitAll(
        specs=(spec,), owner=lowtide_owner, idempotency_key=idempotency_key, dry_run=dry_run
    )
    rows, status = await _submitted(context, command)
    reply = answer({"job": rows[0], "jobs": rows}, status=status)
    if status == HTTPStatus.CREATED:
        reply.background = keeping(context, rows[0])
    return reply


class Group(BaseModel):
    """Jobs of one submit: all are queued or none. They may name each other in ``after``."""

    model_config = ConfigDict(extra="forbid")

    jobs: Annotated[tuple[JobSpec, ...], Field(min_length=1, max_length=MAX_ELEMENTS)]


@router.post("/group", status_code=201)
async def submit_group(
    group: Group,
    context: InContext,
    *,
    dry_run: bool = False,
    idempotency_key: Annotated[str, Header(max_length=200)] = "",
    lowtide_owner: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """Queue several jobs and arrays, all or none; else as for one."""
    command = SubmitAll(
        specs=group.jobs, owner=lowtide_owner, idempotency_key=idempotency_key, dry_run=dry_run
    )
    rows, status = await _submitted(context, command)
    return answer({"jobs": rows}, status=status)


async def _submitted(context: Context, command: SubmitAll) -> tuple[list[JobRow], int]:
    codes = dict.fromkeys(spec.code for spec in command.specs if spec.code)
    for code in codes if not command.dry_run else ():
        await run_in_threadpool(check_code, context, code)
    known = None
    if command.idempotency_key:
        known = await run_in_threadpool(context.store.job_by_key, command.idempotency_key)
    rows = await context.call(command)
    return rows, 200 if command.dry_run or known else 201


@router.get("")
def jobs(
    context: InContext,
    *,
    state: Annotated[Sequence[JobState], Query()] = (),
    team: str | None = None,
    array: str | None = None,
    folded: bool = False,
    cursor: str = "",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> Response:
    """List jobs, newest first. ``next`` is the cursor of the following page, null at the end.

    With ``array`` only the elements of that array are listed. With ``folded`` an array is one
    line, its first element, and ``arrays`` says how many elements of it are in which state.
    """
    if array is not None:
        return answer({"jobs": elements_of(context.store, array), "next": None})
    after = _parse_cursor(cursor) if cursor else None
    if not folded:
        rows = context.store.jobs(states=tuple(state), team=team, after=after, limit=limit)
        last = rows[-1] if len(rows) == limit else None
        return answer({"jobs": rows, "next": _cursor(last) if last else None})
    rows, last = _folded(context.store, states=tuple(state), team=team, after=after, limit=limit)
    arrays = [row.array.id for row in rows if row.array is not None]
    counts = {name: _counts(elements_of(context.store, name)) for name in arrays}
    return answer({"jobs": rows, "arrays": counts, "next": _cursor(last) if last else None})


def _folded(
    store: JobStore,
    *,
    states: tuple[JobState, ...],
    team: str | None,
    after: tuple[int, str] | None,
    limit: int,
) -> tuple[list[JobRow], JobRow | None]:
    """Give jobs and first elements, and the row after which to go on, None at the end."""
    kept: list[JobRow] = []
    while True:
        page = store.jobs(states=states, team=team, after=after, limit=_PAGE)
        for row in page:
            if row.array is None or row.array.index == 0:
                kept.append(row)
            if len(kept) == limit:
                return kept, row
        if len(page) < _PAGE:
            return kept, None
        after = (page[-1].submitted_us, page[-1].id)


def elements_of(store: JobStore, array_id: str) -> list[JobRow]:
    """Give an array's jobs in order of the index.

    Raises:
        UnknownSubjectError: there is no such array.
    """
    first = store.job(element_id(array_id, 0))
    if first is None or first.array is None:
        raise UnknownSubjectError(
            f"There is no array '{array_id}'.", remedy="`lowtide ls` lists the jobs and arrays."
        )
    found: list[JobRow] = []
    # Elements were submitted in one instant, so they are near each other in any order of ids.
    after = (first.submitted_us + 1, "")
    while len(found) < first.array.size:
        page = store.jobs(after=after, limit=_PAGE)
        found += [row for row in page if row.array is not None and row.array.id == array_id]
        if len(page) < _PAGE:
            break
        after = (page[-1].submitted_us, page[-1].id)
    return sorted(found, key=lambda row: row.array.index if row.array else 0)


def _counts(rows: Sequence[JobRow]) -> dict[str, int]:
    return dict(Counter(str(row.state) for row in rows))


@router.get("/{job_id}")
def job(job_id: str, context: InContext) -> Response:
    """Give a job, its attempts, what each start took (microseconds), and why it is as it is."""
    first = context.store.job(element_id(job_id, 0))
    if first is not None:
        raise UnknownSubjectError(
            f"'{job_id}' is an array of {first.array.size if first.array else 1} jobs.",
            remedy=f"List them: `lowtide ls --array {job_id}`, and name one.",
        )
    row = context.job(job_id)
    explain = {"reason": row.reason, "sentence": row.sentence}
    attempts = context.store.attempts(job_id)
    phases = phases_by_attempt(attempts)
    return answer({"job": row, "attempts": attempts, "phases": phases, "explain": explain})


@router.post("/{job_id}/cancel")
async def cancel(job_id: str, context: InContext) -> Response:
    """End a job or a whole array; a live attempt is stopped without a save."""
    return _acted(await context.call(Cancel(job_id=job_id)))


@router.post("/{job_id}/pause")
async def pause(job_id: str, context: InContext) -> Response:
    """Hold a job or a whole array; a live attempt saves and leaves."""
    return _acted(await context.call(Pause(job_id=job_id)))


@router.post("/{job_id}/resume")
async def resume(job_id: str, context: InContext) -> Response:
    """Let a held job or array go on."""
    return _acted(await context.call(Resume(job_id=job_id)))


def _acted(rows: JobRow | list[JobRow]) -> Response:
    """Answer with the job, and for an array with its first element and all of them."""
    many = rows if isinstance(rows, list) else [rows]
    return answer({"job": many[0], "jobs": many})


@router.get("/{job_id}/events")
def events(job_id: str, context: InContext) -> Response:
    """Give the part of the journal that is about a job and its attempts, oldest first."""
    context.job(job_id)
    subjects = [job_id, *(attempt.id for attempt in context.store.attempts(job_id))]
    found = [record for one in subjects for record in context.store.records(subject=one)]
    return answer({"events": sorted(found, key=lambda record: record.seq)})


def check_code(context: Context, code: str) -> None:
    """Check that an archive was uploaded.

    Raises:
        SpecError: it was not.
    """
    if not context.storage.exists(key_of(code)):
        raise SpecError(
            f"Field 'code': no archive {code} was uploaded.",
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
