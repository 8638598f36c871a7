"""Schedules: jobs that are submitted again and again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool

from jobs.errors import UnknownSubjectError
from jobs.recurrence import ScheduleSpec
from scheduler.commands import HoldSchedule, MakeSchedule, RemoveSchedule
from scheduler.schedule_desk import SHOWN, schedule_view
from scheduler.server.context import Context, InContext, answer
from scheduler.server.jobs import check_code
from scheduler.server.strict import StrictRoute

router = APIRouter(route_class=StrictRoute, prefix="/v1/schedules", tags=["schedules"])


@router.post("", status_code=201)
async def make(
    spec: ScheduleSpec,
    context: InContext,
    *,
    dry_run: bool = False,
    lowtide_owner: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """Submit a job again and again; names are unique, so a repeated request is refused.

    With ``dry_run`` it is only checked; either way the next occurrences are shown.
    """
    if spec.job.code and not dry_run:
        await run_in_threadpool(check_code, context, spec.job.code)
    view = await context.call(MakeSchedule(spec=spec, owner=lowtide_owner, dry_run=dry_run))
    return answer(view, status=200 if dry_run else 201)


@router.get("")
def schedules(context: InContext) -> Response:
    """List the schedules with their next occurrences."""
    return answer({"schedules": [_view(one.id, context) for one in context.store.schedules()]})


@router.get("/{schedule_id}")
def schedule(
    schedule_id: str, context: InContext, *, ahead: Annotated[int, Query(ge=0, le=100)] = SHOWN
) -> Response:
    """Give one schedule with its next occurrences."""
    return answer(_view(schedule_id, context, ahead=ahead))


@router.post("/{schedule_id}/pause")
async def pause(schedule_id: str, context: InContext) -> Response:
    """Let it occur no more until it is resumed; its jobs go on."""
    return answer(await context.call(HoldSchedule(schedule_id=schedule_id, held=True)))


@router.post("/{schedule_id}/resume")
async def resume(schedule_id: str, context: InContext) -> Response:
    """Let it occur again, from the next instant on."""
    return answer(await context.call(HoldSchedule(schedule_id=schedule_id, held=False)))


@router.delete("/{schedule_id}")
async def remove(schedule_id: str, context: InContext) -> Response:
    """End it; jobs of earlier occurrences go on."""
    return answer(await context.call(RemoveSchedule(schedule_id=schedule_id)))


def _view(schedule_id: str, context: Context, *, ahead: int = SHOWN) -> dict[str, Any]:
    for row in context.store.schedules():
        if row.id == schedule_id:
            return schedule_view(row, now_us=row.changed_us, ahead=ahead)
    raise UnknownSubjectError(
        f"There is no schedule '{schedule_id}'.", remedy="See `lowtide schedules ls`."
    )
