"""``lowtide schedules``: jobs that are submitted again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scheduler.cli import options as o
from scheduler.cli.output import EXITS, Json, client, console, print_json

HELP = "Recurring retrains: jobs by cron, in a time zone."

ScheduleId = Annotated[str, typer.Argument(metavar="ID", help="Id of the schedule.")]


def add(
    script: o.Script = None,
    args: o.Args = None,
    cron: Annotated[
        str | None, typer.Option(metavar="EXPR", help="'30 2 * * mon-fri': five fields.")
    ] = None,
    name: o.Name = None,
    time_zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Default UTC; 'Europe/Berlin'.")
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="If the last one is on: skip, queue or replace."),
    ] = None,
    catch_up: Annotated[
        str | None, typer.Option(metavar="RULE", help="After an outage: one (the last) or none.")
    ] = None,
    starts: Annotated[str | None, typer.Option(metavar="INSTANT", help="Not before.")] = None,
    ends: Annotated[str | None, typer.Option(metavar="INSTANT", help="Not after.")] = None,
    gpus: o.Gpus = None,
    nodes: o.Nodes = None,
    deadline: o.Deadline = None,
    work: o.Work = None,
    budget: o.Budget = None,
    team: o.Team = None,
    code_dir: o.CodeDir = None,
    from_file: o.FromFile = None,
    dry_run: o.DryRun = False,
    as_json: Json = False,
) -> None:
    """Submit a job at each occurrence; its deadline and budget are each occurrence's own.

    lowtide schedules add train.py --cron '30 2 * * *' --time-zone Europe/Berlin --deadline 6h
    """
    job = {"script": script, "args": args, "gpus": gpus, "nodes": nodes, "deadline": deadline}
    job |= {"work": work, "budget": budget, "team": team}
    when = {"name": name, "cron": cron, "time_zone": time_zone, "overlap": overlap}
    when |= {"catch_up": catch_up, "starts": starts, "ends": ends}
    with client() as server:
        from jobs.schedules import Schedules

        fields = _fields(job, when, file=from_file)
        view = Schedules(server).make(fields, code_dir=code_dir, dry_run=dry_run)
    if as_json:
        print_json(view)
        return
    what = "would be made" if dry_run else "is made"
    print(f"schedule {view['schedule']['id']} {what}")
    _print_next(view)


def ls(as_json: Json = False) -> None:
    """List schedules with their next occurrence."""
    views = _schedules("all")
    if as_json:
        print_json(views)
        return
    if not views:
        print("no schedules; make one: lowtide schedules add train.py --cron '30 2 * * *'")
        return
    from scheduler.cli.formats import NONE
    from scheduler.cli.output import add_row, table

    made = table("id", "cron", "zone", "overlap", "next", "last", "submitted", "skipped", "missed")
    for view in views:
        row, spec = view["schedule"], view["schedule"]["spec"]
        following = _instant(view["next"][0]) if view["next"] else NONE
        add_row(
            made,
            *(row["id"], spec["cron"], spec["time_zone"], spec["overlap"]),
            "paused" if row["held"] else following,
            row["last_outcome"] or NONE,
            *(str(row[name]) for name in ("submitted", "skipped", "missed")),
        )
    console().print(made)


def show(schedule: ScheduleId, as_json: Json = False) -> None:
    """Show a schedule and its next five occurrences."""
    view = _schedules("show", schedule)
    if as_json:
        print_json(view)
        return
    row = view["schedule"]
    print(f"{row['id']}: '{row['spec']['cron']}' in {row['spec']['time_zone']}")
    if row["sentence"]:
        print(f"  last: {row['sentence']}")
    _print_next(view)


def pause(schedule: ScheduleId, as_json: Json = False) -> None:
    """Let a schedule occur no more until it is resumed; its jobs go on."""
    _acted(_schedules("pause", schedule), f"{schedule} is paused", as_json=as_json)


def resume(schedule: ScheduleId, as_json: Json = False) -> None:
    """Let a schedule occur again; what came in between is not caught up."""
    view = _schedules("resume", schedule)
    _acted(view, f"{schedule} goes on", as_json=as_json)
    if not as_json:
        _print_next(view)


def rm(schedule: ScheduleId, as_json: Json = False) -> None:
    """End a schedule; jobs of earlier occurrences go on."""
    _acted(_schedules("remove", schedule), f"{schedule} is removed", as_json=as_json)


COMMANDS = (
    ("add", add, EXITS),
    ("ls", ls, EXITS),
    ("show", show, EXITS),
    ("pause", pause, EXITS),
    ("resume", resume, EXITS),
    ("rm", rm, EXITS),
)


def _fields(job: dict[str, Any], when: dict[str, Any], *, file: Path | None) -> dict[str, Any]:
    """Put a file and options together; options win."""
    from scheduler.cli.wishes import at_home, fields_of, read_file

    data = dict(read_file(file).data) if file else {}
    inside = at_home(data.get("job") or {}, file=file)
    given = {name: value for name, value in when.items() if value is not None}
    fields = {**data, **given, "job": {**inside, **fields_of(job)}}
    script = fields["job"].get("script")
    if "name" not in fields and script:
        fields["name"] = Path(str(script)).stem
    return fields


def _schedules(verb: str, *args: str) -> Any:  # noqa: ANN401 - a view or a list of them
    from jobs.schedules import Schedules

    with client() as server:
        return getattr(Schedules(server), verb)(*args)


def _acted(view: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
    else:
        print(f"schedule {text}")


def _print_next(view: dict[str, Any]) -> None:
    for at_us in view["next"]:
        print(f"  {_instant(at_us, zone=view['schedule']['spec']['time_zone'])}")


def _instant(at_us: int, *, zone: str = "UTC") -> str:
    from zoneinfo import ZoneInfo

    from jobs.durations import from_us

    return f"{from_us(at_us).astimezone(ZoneInfo(zone)):%a %d %b %Y %H:%M %Z}"
