"""``cancel``, ``pause``, ``resume``: an owner's wishes about a job."""

from __future__ import annotations

from typing import Any

from scheduler.cli.output import JobId, Json, client, print_json


def cancel(job: JobId, as_json: Json = False) -> None:
    """End a job. A live attempt is told to stop; what it cost stays in the ledger."""
    _act(job, verb="cancel", as_json=as_json)


def pause(job: JobId, as_json: Json = False) -> None:
    """Hold a job. A live attempt saves first, then its nodes are free for others."""
    _act(job, verb="pause", as_json=as_json)


def resume(job: JobId, as_json: Json = False) -> None:
    """Let a paused job go on from its restore point."""
    _act(job, verb="resume", as_json=as_json)


def _act(job_id: str, *, verb: str, as_json: bool) -> None:
    with client() as server:
        data = server.act(job_id, verb).data
    if as_json:
        print_json(data)
    else:
        print(f"job {job_id}: {_outcome(data, verb=verb)}")


def _outcome(data: dict[str, Any], *, verb: str) -> str:
    if verb == "resume":
        return f"{data['state']}, {data['sentence'] or data['reason']}"
    if data["attempt_id"]:
        saves = ", it saves first" if verb == "pause" else ""
        return f"{verb} is under way{saves}; attempt {data['attempt_id']} is stopping"
    return "cancelled" if verb == "cancel" else f"held until `lowtide resume {data['id']}`"
