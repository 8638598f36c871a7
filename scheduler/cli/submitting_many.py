"""``submit`` of an array or of a file with several jobs: all of them or none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scheduler.cli.formats import counted
from scheduler.cli.output import FAILED, OK, client, print_json

if TYPE_CHECKING:
    from jobs.client import Client
    from jobs.handle import Job
    from jobs.spec import JobSpec


def submit_many(
    specs: list[JobSpec], *, code_dir: Path | None, wait: bool, dry_run: bool, as_json: bool
) -> int:
    """Send, check or follow them; the exit code is that of a single job."""
    with client() as server:
        if dry_run:
            return _checked(server, specs, code_dir=code_dir, as_json=as_json)
        jobs = server.submit_all(specs, code_dir=code_dir)
        if not as_json:
            for line in _lines([job.data for job in jobs]):
                print(line, flush=True)
        good = all(job.wait() == "succeeded" for job in jobs) if wait else True
        if as_json:
            print_json({"jobs": [job.data for job in jobs]})
        else:
            print(_last(jobs, wait=wait))
        return OK if good else FAILED


def _checked(server: Client, specs: list[JobSpec], *, code_dir: Path | None, as_json: bool) -> int:
    from jobs.preparing import prepare

    rows = server.check_all([prepare(spec, code_dir=code_dir)[0] for spec in specs])
    if as_json:
        print_json({"jobs": rows})
    else:
        print(f"{counted(len(rows), 'job')} would be accepted; nothing was sent")
    return OK


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    """One line for each job, and one for each array."""
    lines: dict[str, str] = {}
    for row in rows:
        place, label = row.get("array"), row["spec"]["name"] or row["id"]
        name = place["id"] if place else row["id"]
        what = f"array of {place['size']}" if place else "job"
        label = label.removesuffix("-0") if place else label
        lines.setdefault(name, f"{what} {name} ({label}) is in the queue")
    return list(lines.values())


def _last(jobs: list[Job], *, wait: bool) -> str:
    if not wait:
        return "  follow them: lowtide ls"
    states = [str(job.data["state"]) for job in jobs]
    shown = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    return f"  {', '.join(shown)}"
