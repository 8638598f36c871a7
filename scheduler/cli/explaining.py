"""How an explanation is told at the terminal. It prints what the server found, and adds nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scheduler.cli.formats import NONE, counted, dollars, instant, span
from scheduler.cli.output import add_row, table

Data = Mapping[str, Any]


def lines(data: Data) -> Iterator[str]:
    """Give what is said above the table."""
    yield f"{data['id']} {data['state']}: {data['reason']}"
    if data["sentence"]:
        yield f"  {data['sentence']}"
    yield f"  ({data['reason']}: {data['help']})"
    if data["state"] == "queued":
        yield f"  in the queue: {_place(data)}"
    if data["latest_start_us"] is not None:
        latest = instant(data["latest_start_us"])
        yield f"  slack {span(data['slack_ms'])}: on sure capacity by {latest} at the latest"
    if data["next"]:
        yield f"  next: {data['next']}"
    for one in data["releases"]:
        yield f"  released by {one['what']}"


def _place(data: Data) -> str:
    if not data["ahead"]:
        return "nobody is ahead"
    names = ", ".join(data["ahead_ids"])
    more = data["ahead"] - len(data["ahead_ids"])
    return f"{counted(data['ahead'], 'job')} ahead: {names}{f' and {more} more' if more else ''}"


def alternatives(data: Data) -> Any:  # noqa: ANN401 - a Rich table
    """Put the flavors into a table, the allowed and cheapest first."""
    right = ("$/h", "rest costs", "$/useful h")
    made = table("flavor", "allowed", "room", *right, "latest start", "cheaper", right=right)
    for one in data["alternatives"]:
        add_row(made, *_cells(one), style=None if one["allowed"] else "dim")
    return made


def _cells(one: Data) -> tuple[str, ...]:
    cheaper = NONE
    if one["cheaper_from_us"] is not None:
        cheaper = f"{dollars(one['cheaper_usd_nanos'])} from {instant(one['cheaper_from_us'])}"
    return (
        one["flavor"],
        "yes" if one["allowed"] else f"no: {' and '.join(one['obstacles'])}",
        "yes" if one["room"] else "no",
        dollars(one["usd_nanos_per_hour"]),
        *(
            NONE if one[name] is None else dollars(one[name])
            for name in ("cost_usd_nanos", "effective_usd_nanos_per_hour")
        ),
        instant(one["latest_start_us"]),
        cheaper,
    )
