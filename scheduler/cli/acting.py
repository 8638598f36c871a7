"""``cancel``, ``pause``, ``resume``: an owner's wishes about a job."""

from __future__ import annotations

from typing import Any

from scheduler.cli.output import JobId, Json, client, print_json


def cancel(job: JobId, as_json: Json = False) -> None:
    """End a job or an array. A live attempt is told to stop; what it cost stays in the ledger."""
    _act(job, verb="cancel", as_json=as_json)


def pause(job: JobId, as_json: Json = False) -> None:
    """Hold a job or an array. A live attempt saves first, then its nodes are free for others."""
    _act(job, verb="pause", as_json=as_json)


def resume(job: JobId, as_json: Json = False) -> None:
    """Let a paused job (or array) go on from its restore point."""
    _act(job, verb="resume", as_json=as_json)


def _act(job_id: str, *, verb: str, as_json: bool) -> None:
    with client() as server:
        rows = [job.data for job in server.act_all(job_id, verb)]
    if rows[0]["id"] == job_id:
        _say(rows[0], verb=verb, as_json=as_json)
    elif as_json:
        print_json(rows)
    else:
        for row in rows:
            _say(row, verb=verb, as_json=False)


def _say(data: dict[str, Any], *, verb: str, as_json: bool) -> None:
    if as_json:
        print_json(data)
    else:
        print(f"job {data['id']}: {_outcome(data, verb=verb)}")


def _outcome(data: dict[str, Any], *, verb: str) -> str:
    if data.get("ended_us") is not None and data["state"] != "cancelled":
        return f"over already ({data['state']})"
    if verb == "resume":
        return f"{data['state']}, {data['sentence'] or data['reason']}"
    if data["attempt_id"]:
        saves = ", it saves first" if verb == "pause" else ""
        return f"{verb} is under way{saves}; attempt {data['attempt_id']} is stopping"
    return "cancelled" if verb == "cancel" else f"held until `lowtide resume {data['id']}`"
