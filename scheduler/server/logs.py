"""A job's output, by rank and attempt: a page at a time, or followed by server-sent events."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from jobs.codec import encode
from jobs.errors import UnknownSubjectError
from jobs.rows import AttemptRow
from scheduler.server.context import Context, InContext, answer

MAX_OFFSET = 1 << 53
MAX_RANK = 1 << 20
PAGE_BYTES = 1 << 20
POLL_S = 0.3  # logs may come in through another server, so the store is asked

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Some output. Offsets count bytes; ``done`` = the attempt is over and all of it is read."""

    attempt: int
    rank: int
    offset: int
    next: int
    data: str
    done: bool


@router.get("/{job_id}/logs", response_model=LogPage)
async def logs(
    job_id: str,
    context: InContext,
    *,
    rank: Annotated[int, Query(ge=0, le=MAX_RANK)] = 0,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    attempt: Annotated[int | None, Query(ge=1, le=MAX_RANK)] = None,
    follow: bool = False,
) -> Response:
    """Give output of one rank from a byte offset on; without ``attempt`` that of the newest.

    With ``follow`` the answer is a stream of ``log`` events, each a page, over all attempts from
    the given one (or the first) on, and an ``end`` event when the job is over.
    """
    if not follow:
        return answer(await run_in_threadpool(_page, context, job_id, attempt, rank, offset))
    await run_in_threadpool(context.job, job_id)
    stream = _followed(context, job_id, number=attempt or 1, rank=rank, offset=offset)
    return StreamingResponse(
        stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


def _page(context: Context, job_id: str, number: int | None, rank: int, offset: int) -> LogPage:
    context.job(job_id)
    found = context.store.attempts(job_id)
    if number is None and not found:
        return LogPage(attempt=0, rank=rank, offset=offset, next=offset, data="", done=False)
    wanted = number or found[-1].number
    row = next((row for row in found if row.number == wanted), None)
    if row is None:
        raise UnknownSubjectError(
            f"Job {job_id} has no attempt {wanted}; it has made {len(found)}.",
            remedy=f"List them with `lowtide show {job_id}`.",
        )
    return read_page(context, row, rank=rank, offset=offset)


def read_page(context: Context, attempt: AttemptRow, *, rank: int, offset: int) -> LogPage:
    """Give output as text; a character cut at the page's end is left for the next page."""
    data = context.store.read_log(attempt.id, rank=rank, offset=offset, limit=PAGE_BYTES)
    at_end = attempt.ended and len(data) < PAGE_BYTES
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text = decoder.decode(data, final=at_end)
    kept = 0 if at_end else len(decoder.getstate()[0])
    return LogPage(
        attempt=attempt.number,
        rank=rank,
        offset=offset,
        next=offset + len(data) - kept,
        data=text,
        done=at_end,
    )


async def _followed(
    context: Context, job_id: str, *, number: int, rank: int, offset: int
) -> AsyncIterator[bytes]:
    while not context.stopping.is_set():
        found = await run_in_threadpool(context.store.attempts, job_id)
        row = next((row for row in found if row.number == number), None)
        if row is None and (await run_in_threadpool(context.job, job_id)).ended:
            yield _event("end", {"job": job_id})
            return
        page = None
        if row is not None:
            page = await run_in_threadpool(read_page, context, row, rank=rank, offset=offset)
            if page.data:
                yield _event("log", page)
            offset = page.next
        if page is not None and page.done:
            number, offset = number + 1, 0
        elif page is None or not page.data:
            await asyncio.sleep(POLL_S)


def _event(name: str, data: object) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + encode(data) + b"\n\n"
