"""``cancel``, ``pause``, ``resume``: an owner's wishes about a job."""

from __future__ import annotations

from scheduler.cli.output import JobId, Json, client, print_json


def cancel(job: JobId, as_json: Json = False) -> None:
    """End a job. A live attempt is told to stop; what it cost stays in the ledger."""
    _act(job, verb="cancel", done="is cancelled", as_json=as_json)


def pause(job: JobId, as_json: Json = False) -> None:
    """Hold a job. A live attempt saves first, then its nodes are free for others."""
    _act(job, verb="pause", done="is held until `lowtide resume`", as_json=as_json)


def resume(job: JobId, as_json: Json = False) -> None:
    """Let a paused job go on from its restore point."""
    _act(job, verb="resume", done="is back in the queue", as_json=as_json)


def _act(job_id: str, *, verb: str, done: str, as_json: bool) -> None:
    with client() as server:
        server.act(job_id, verb)
        data = server.job(job_id).data
    if as_json:
        print_json(data)
    elif data.get("attempt_id"):
        print(f"job {job_id}: {verb} is under way; attempt {data['attempt_id']} is stopping")
    else:
        print(f"job {job_id} {done}")
