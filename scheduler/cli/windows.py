"""``windows``: cheap hours, what they rest on, who waits for them, and what others would change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scheduler.cli.formats import NONE, counted, dollars, instant
from scheduler.cli.output import Json, add_row, client, console, print_json, table


def windows(context: typer.Context, as_json: Json = False) -> None:
    """List the price windows: what is open, the price, who waits.

    `lowtide windows apply -f FILE --dry-run` shows what other windows would change.
    """
    if context.invoked_subcommand is not None:
        return
    with client() as server:
        answer = server.transport.json("GET", "/v1/windows")
    if as_json:
        print_json(answer)
        return
    _print_windows(answer)
    for row in answer["learned"]:
        size = counted(row["nodes"], "node")
        hours = ", ".join(_hours(one) for one in row["windows"]) or "no hours stand out"
        print(f"{row['flavor']}, {size}, UTC: {hours}; {row['rests_on']}")


def apply(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML with price_windows, holidays.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    as_json: Json = False,
) -> None:
    """Let the windows of a file hold instead of all present ones; they survive a restart.

    With --dry-run: which waiting jobs would start when, and the money; nothing is changed.
    """
    from jobs.errors import FileFormatError

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise FileFormatError(
            f"The file '{file}' cannot be read: {reason}.", remedy="Name a YAML file with -f."
        ) from error
    with client() as server:
        body = {"text": text, "source": str(file)}
        path = "/v1/windows/trial" if dry_run else "/v1/windows"
        answer = server.transport.json("POST", path, body=body)
    if as_json:
        print_json(answer)
        return
    if not dry_run:
        print(f"price windows that hold now: {', '.join(answer['applied']) or 'none'}")
        return
    _print_windows(answer)
    _print_changes(answer)


def _print_windows(answer: dict[str, Any]) -> None:
    if not answer["windows"]:
        print("no price windows; add `price_windows` to lowtide.yaml")
    else:
        made = table("window", "now", "next edge", "price inside", "rests on", "waiting")
        for row in answer["windows"]:
            add_row(made, *_cells(row))
        console().print(made)
    for text in answer["warnings"]:
        print(f"warning: {text}")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    turn = "closes" if row["open"] else "opens"
    edge = row["next_edge"] if row["next_edge_us"] is None else f"{turn} {row['next_edge']}"
    return (
        row["name"],
        "open" if row["open"] else "closed",
        edge,
        ", ".join(_price(one) for one in row["prices"]) or NONE,
        row["rests_on"],
        ", ".join(row["waiting"]) or NONE,
    )


def _price(one: dict[str, Any]) -> str:
    inside, base = one["usd_nanos_per_hour"], one["base_usd_nanos_per_hour"]
    return f"{one['flavor']} {dollars(inside)}/h (else {dollars(base)})"


def _hours(window: dict[str, Any]) -> str:
    day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][window["days"][0]]
    start, end = window["start_s"] // 3_600, window["end_s"] // 3_600 or 24
    return f"{day} {start:02}-{end:02}"


def _print_changes(answer: dict[str, Any]) -> None:
    moved = answer["changes"]
    if not moved:
        print("no waiting job would start at another time or cost another amount")
        return
    made = table("job", "starts now", "would start", "saves", right=("saves",))
    for row in moved:
        saves = dollars(row["saves_nanos"])
        add_row(made, row["job_id"], instant(row["before_us"]), instant(row["after_us"]), saves)
    console().print(made)
    total = dollars(answer["saves_usd_nanos"])
    print(f"{counted(len(moved), 'waiting job')} would change; {total} saved in all")
