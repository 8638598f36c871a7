"""``ls``, ``show``, ``explain``: how jobs are doing, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from scheduler.cli.output import JobId, Json, client, console, print_json

DEFAULT_LIMIT = 50


def ls(
    state: Annotated[
        str | None,
        typer.Option(help="Only jobs in this state: queued, admitted, running, succeeded ..."),
    ] = None,
    team: Annotated[str | None, typer.Option(help="Only this team's jobs.")] = None,
    limit: Annotated[
        int, typer.Option(help="At most so many, newest first.", min=1)
    ] = DEFAULT_LIMIT,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    array: Annotated[
        str | None, typer.Option(metavar="ID", help="The elements of this array.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first, with reason, progress and slack.

    Slack is the time to the deadline that the remaining work leaves; for a job that has ended,
    by how much the deadline was met. An array is one line, unless a state was asked for.
    """
    _check_state(state)
    counts: dict[str, dict[str, int]] = {}
    with client() as server:
        if array is not None:
            found = [job for job in server.array(array) if state in {None, job.data["state"]}]
        else:
            found, counts = server.listed(
                state=state,
                team=team,
                limit=None if every else limit,
                folded=state is None and not as_json,
            )
    if as_json:
        print_json([job.data for job in found])
        return
    if not found:
        which = " like that" if state or team else ""
        print(f"no jobs{which}; submit one: lowtide submit train.py")
        return
    from scheduler.cli.tables import jobs_table

    rows = [job.row for job in found]
    console().print(jobs_table(rows, now_us=_now_us(), arrays=counts))
    if counts:
        print("open an array: lowtide ls --array ID")
    if not every and len(found) == limit:
        print(f"({limit} shown; --all or --limit for more)")


def show(job: JobId, as_json: Json = False) -> None:
    """Show one job: attempts, restore point, what comes next."""
    with client() as server:
        detail = server.detail(job)
    if as_json:
        print_json(detail)
        return
    from jobs.handle import decoded
    from jobs.rows import AttemptRow, JobRow
    from scheduler.cli.tables import attempts_table, job_lines, start_lines

    row = decoded(detail["job"], into=JobRow)
    attempts = [decoded(attempt, into=AttemptRow) for attempt in detail["attempts"]]
    out = console()
    for label, text in job_lines(row, attempts=attempts, now_us=_now_us()):
        out.print(f"[bold]{label:<14}[/bold] ", end="")
        out.print(text, markup=False)
    if attempts:
        out.print()
        out.print(attempts_table(attempts, now_us=_now_us()))
        for line in start_lines(attempts):
            out.print(line, markup=False)


def explain(job: JobId, as_json: Json = False) -> None:
    """Say why a job waits, or why it is where it is."""
    with client() as server:
        data = server.job(job).data
    if as_json:
        print_json(_explanation(data))
        return
    from jobs.reasons import HELP, Reason

    print(f"{data['id']} {data['state']}: {data['reason']}")
    if data["sentence"]:
        print(f"  {data['sentence']}")
    print(f"  ({data['reason']}: {HELP[Reason(data['reason'])]})")


def _explanation(data: dict[str, Any]) -> dict[str, Any]:
    fields = ("id", "state", "reason", "sentence", "deadline_us", "restore_point")
    return {name: data.get(name) for name in fields}


def _check_state(state: str | None) -> None:
    from jobs.errors import SpecError
    from jobs.states import JobState

    if state is not None and state not in list(JobState):
        raise SpecError(
            f"'{state}' is not a state of a job.", remedy=f"Choose one of: {', '.join(JobState)}."
        )


def _now_us() -> int:
    from scheduler.clock import SystemClock

    return SystemClock().now_us()
