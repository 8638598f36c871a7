"""``logs``: a job's output over all of its attempts, also live."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scheduler.cli.output import FAILED, OK, JobId, Json, client, print_json

if TYPE_CHECKING:
    from jobs.handle import Job, LogChunk


def logs(
    job: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends, then say how.")
    ] = False,
    rank: Annotated[int, typer.Option(help="Which process of the gang.", min=0)] = 0,
    attempt: Annotated[int | None, typer.Option(help="Only this one (1, 2, ...).", min=1)] = None,
    as_json: Json = False,
) -> int:
    """Print a job's output. Following survives restarts of the server and evictions.

    Headings and the last line go to standard error, so that a pipe gets the output alone.
    """
    with client() as server:
        found = server.job(job)
        chunks = found.log_chunks(follow=follow, rank=rank, attempt=attempt)
        if as_json:
            print_json(_collected(found, rank=rank, chunks=list(chunks)))
        else:
            printed = _print_live(chunks, headings=attempt is None)
            _print_end(found, printed=printed)
    return FAILED if follow and found.ended and found.data["state"] != "succeeded" else OK


def _collected(job: Job, *, rank: int, chunks: list[LogChunk]) -> dict[str, Any]:
    texts: dict[int, list[str]] = {}
    for chunk in chunks:
        texts.setdefault(chunk.attempt, []).append(chunk.data)
    return {
        "job": job.id,
        "state": job.refresh().data["state"],
        "rank": rank,
        "attempts": [{"attempt": n, "data": "".join(parts)} for n, parts in texts.items()],
    }


def _print_live(chunks: Any, *, headings: bool) -> bool:  # noqa: ANN401 - an iterator of LogChunk
    shown, last = 0, "\n"
    for chunk in chunks:
        if headings and chunk.attempt != shown:
            sys.stdout.flush()
            broken = "" if last.endswith("\n") else "\n"
            sys.stderr.write(f"{broken}--- attempt {chunk.attempt} ---\n")
            sys.stderr.flush()
        shown, last = chunk.attempt, chunk.data
        sys.stdout.write(chunk.data)
        sys.stdout.flush()
    if not last.endswith("\n"):
        sys.stdout.write("\n")
    return shown > 0


def _print_end(job: Job, *, printed: bool) -> None:
    data = job.refresh().data
    sys.stdout.flush()
    if job.ended or not printed:
        why = data["sentence"] or data["reason"]
        nothing = "" if printed else "no output yet; " if not job.ended else "no output; "
        sys.stderr.write(f"--- {nothing}job {job.id} {data['state']}: {why} ---\n")
