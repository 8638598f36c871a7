"""``ls``, ``show``, ``explain``: how jobs are doing, and why."""

from __future__ import annotations

from collections.abc import Iterator
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
        quoted = _quoted(server, job)
    if as_json:
        print_json(detail if quoted is None else {**detail, "quote": quoted})
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
    for line in _against(quoted) if quoted else ():
        out.print(line, markup=False)


def explain(job: JobId, as_json: Json = False) -> None:
    """Say why a job waits and what would release it.

    Reason and sentence are those of the last plan; what would release a job was asked of the
    same decision with one wish changed, and stands there with the money it costs or saves.
    """
    with client() as server:
        data = server.about(job, "explain")
    if as_json:
        print_json(data)
        return
    from scheduler.cli.explaining import alternatives, lines

    for line in lines(data):
        print(line)
    if data["alternatives"]:
        print()
        console().print(alternatives(data))


def _quoted(server: Any, job: str) -> dict[str, Any] | None:  # noqa: ANN401 - imported late
    """Give quote and outcome so far, None where the server keeps no quotes."""
    from jobs.errors import UnknownSubjectError

    try:
        found: dict[str, Any] = server.about(job, "quote")
    except UnknownSubjectError:
        return None
    return found if found["quoted"] is not None else None


def _against(found: dict[str, Any]) -> Iterator[str]:
    """Compare the quote of a job that has ended with what came."""
    from jobs.handle import decoded
    from jobs.quotes import Quoted
    from scheduler.quote_words import against

    actual = found["actual"]
    if actual["finish_us"] is not None:
        yield from against(
            decoded(found["quoted"], into=Quoted),
            cost_nanos=actual["cost_usd_nanos"],
            start_us=actual["start_us"],
            end_us=actual["finish_us"],
        )


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
