"""``audit``: do the books hold together?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.errors import UnknownSubjectError
from scheduler.cli.output import FAILED, OK, Json, client, needs, print_json


def audit(
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Read this database itself; default: ask the server."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Check the books: journal, rows, entries, shares and bills."""
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
    _check_database(url)
    with needs("server"):
        from jobs.store_open import open_store
        from scheduler.audit import summary
        from scheduler.audit_store import audit_store

        store = open_store(url)
        try:
            report: dict[str, Any] = summary(audit_store(store))
        finally:
            store.close()
    return report


def _check_database(url: str) -> None:
    """Opening would create what is not there, and find it clean."""
    kind, _, path = url.partition(":///")
    if kind == "sqlite" and not Path(path).is_file():
        raise UnknownSubjectError(
            f"There is no database '{path}'.", remedy="Name an existing file: sqlite:///PATH."
        )


def _print(report: dict[str, Any]) -> None:
    findings = report["findings"]
    for finding in findings:
        print(f"{finding['rule']}: {finding['subject']}: {finding['detail']}")
    if findings:
        print(f"{len(findings)} found; please report them as a bug, with the database")
    else:
        print("clean: the journal gives the rows, every entry balances, shares add up to the bill")
