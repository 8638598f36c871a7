"""``budgets``: what is left of each, and changes, with what they would do before they do it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scheduler.cli.formats import NONE, counted, dollars, instant, percent
from scheduler.cli.output import Json, add_row, client, console, print_json, table

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]
Why = Annotated[str, typer.Option(metavar="TEXT", help="Kept in the journal with the change.")]


def budgets(context: typer.Context, as_json: Json = False) -> None:
    """List the budgets, what is left, and how long it lasts.

    The rate of now stands beside the one at which the money would last to the period's end.

    `lowtide budgets apply -f FILE --dry-run` shows what others would hold, pause or release.
    """
    if context.invoked_subcommand is not None:
        return
    with client() as server:
        answer = server.budgets()
    if as_json:
        print_json(answer)
    elif not answer["budgets"]:
        print("no budgets; set one: lowtide budgets set NAME --team TEAM --limit USD")
    else:
        _print_budgets(answer["budgets"])


def apply(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML with `budgets:`.")],
    all_of_them: Annotated[
        bool, typer.Option("--all", help="Remove applied budgets that are not in the file.")
    ] = False,
    why: Why = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Set the budgets of a file, all or none; running it again changes nothing."""
    from jobs.errors import FileFormatError

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise FileFormatError(
            f"The file '{file}' cannot be read: {reason}.", remedy="Name a YAML file with -f."
        ) from error
    body = {"text": text, "source": str(file), "all": all_of_them, "why": why}
    _change(body, dry_run=dry_run, as_json=as_json)


def set_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The budget's name.")],
    limit: Annotated[str, typer.Option("--limit", metavar="USD", help="What may be spent.")],
    team: Annotated[str | None, typer.Option(help="Whose money it is.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="And; repeatable.")
    ] = None,
    job: Annotated[str | None, typer.Option(metavar="JOB", help="Or one job's.")] = None,
    period: Annotated[str, typer.Option(help="day, week, month or total.")] = "month",
    time_zone: Annotated[str, typer.Option(metavar="ZONE", help="Like Europe/Berlin.")] = "UTC",
    soft: Annotated[bool, typer.Option("--soft", help="It may be passed.")] = False,
    even: Annotated[bool, typer.Option("--even", help="Burn no faster than time passes.")] = False,
    why: Why = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a budget or change one; fields that are not named get their defaults."""
    asked: dict[str, Any] = {"name": name, "limit_usd": limit, "period": period}
    asked |= {"time_zone": time_zone, "hard": not soft, "burn": "even" if even else "free"}
    asked |= {"team": team} if team is not None else {}
    asked |= {"job": job} if job is not None else {}
    asked |= {"tags": dict(_pair(one) for one in tag)} if tag else {}
    _change({"budgets": [asked], "why": why}, dry_run=dry_run, as_json=as_json)


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Budgets to remove.")],
    why: Why = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove budgets; what they paid for stays in the ledger."""
    _change({"remove": names, "why": why}, dry_run=dry_run, as_json=as_json)


def _pair(text: str) -> tuple[str, str]:
    from jobs.errors import SpecError

    key, equals, value = text.partition("=")
    if not key or not equals:
        raise SpecError(f"--tag: '{text}' is not KEY=VALUE.", remedy="Write product=search.")
    return key, value


def _change(body: dict[str, Any], *, dry_run: bool, as_json: bool) -> None:
    with client() as server:
        answer = server.apply_budgets(body, dry_run=dry_run)
    if as_json:
        print_json(answer)
        return
    for text in answer["warnings"]:
        print(f"warning: {text}")
    if not answer["changes"]:
        print("nothing to change")
        return
    _print_changes(answer["changes"])
    for verb in ("held", "paused", "released"):
        rows = answer[verb]
        would = "would be" if dry_run else "will be" if verb == "paused" else "are"
        print(f"{counted(len(rows), 'job')} {would} {verb}")
        for row in rows:
            print(f"  {row['job']}: {row['sentence']}")
    if dry_run:
        print("nothing was changed: this was a dry run")


def _print_changes(changes: list[dict[str, Any]]) -> None:
    made = table("budget", "change", "limit", "spent", "reserved", "left")
    for change in changes:
        before, after = change["before"] or {}, change["after"] or {}
        cells = (
            _moved(before.get(name), after.get(name))
            for name in (
                "limit_usd_nanos",
                "spent_usd_nanos",
                "reserved_usd_nanos",
                "left_usd_nanos",
            )
        )
        add_row(made, change["budget"], change["change"], *cells)
    console().print(made)


def _moved(before: int | None, after: int | None) -> str:
    if before is None or after is None or before == after:
        shown = after if after is not None else before
        return NONE if shown is None else dollars(shown)
    return f"{dollars(before)} -> {dollars(after)}"


def _print_budgets(rows: list[dict[str, Any]]) -> None:
    numbers = ("limit", "spent", "reserved", "left", "now/h", "plan/h")
    made = table("budget", "owner", "period", *numbers, "used up", "until", "state", right=numbers)
    for row in rows:
        add_row(made, *_cells(row))
    console().print(made)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    terms, limit = row["terms"], row["limit_usd_nanos"]
    kind = terms["period"] + ("" if terms["hard"] else ", soft")
    kind += ", even" if terms["burn"] == "even" else ""
    plan = row["planned_usd_nanos_per_hour"]
    return (
        row["name"],
        row["owner"],
        kind,
        dollars(limit),
        f"{dollars(row['spent_usd_nanos'])} ({percent(row['spent_usd_nanos'], limit)})",
        dollars(row["reserved_usd_nanos"]),
        dollars(row["left_usd_nanos"]),
        dollars(row["usd_nanos_per_hour"]),
        NONE if plan is None else dollars(plan),
        NONE if row["exhausted_us"] is None else instant(row["exhausted_us"]),
        NONE if row["until_us"] is None else instant(row["until_us"]),
        row["state"],
    )
