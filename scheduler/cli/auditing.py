"""``audit``: do the books hold together?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from scheduler.cli.output import FAILED, OK, Json, client, needs, print_json


def audit(
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Read this database itself; default: ask the server."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Check the books: journal against rows, entries against each other, bills against shares."""
    report = _by_server() if database is None else _by_database(database)
    if as_json:
        print_json(report)
    else:
        _print(report)
    return FAILED if report["findings"] else OK


def _by_server() -> dict[str, Any]:
    with client() as server:
        answer: dict[str, Any] = server.audit()
    return answer


def _by_database(url: str) -> dict[str, Any]:
    with needs("server"):
        from jobs.codec import to_data
        from jobs.store_open import open_store
        from scheduler.audit import audit_store

        store = open_store(url)
        try:
            report: dict[str, Any] = to_data(audit_store(store))
        finally:
            store.close()
    return report


def _print(report: dict[str, Any]) -> None:
    for finding in report["findings"]:
        print(f"found: {finding}")
    count = len(report["findings"])
    checked = ", ".join(f"{value} {key}" for key, value in report.items() if key != "findings")
    print(f"{checked}: {f'{count} problems' if count else 'the books hold together'}")
