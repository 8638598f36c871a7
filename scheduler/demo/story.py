"""The demo from beginning to end: submit, watch, evict, prove, account."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.live import Live

from jobs.client import Client
from jobs.errors import LowtideError
from scheduler.demo.cast import KILL_ROLE, NOTICE_ROLE, Part, parts
from scheduler.demo.director import Director
from scheduler.demo.proof import (
    PlainTraining,
    Proof,
    audit_clean,
    books_tie,
    digest_in,
    equal_bytes,
)
from scheduler.demo.table import Row, closing_table, make_row
from scheduler.demo.view import live_view
from scheduler.demo.world import running

_LIMIT_S = 240
_LOOK_S = 0.5
_NODES_GONE_S = 45
_WIDTH = 112  # what the closing table needs; a narrower terminal folds its lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the demo showed."""

    rows: list[Row]
    overview: dict[str, Any]
    proofs: list[Proof]
    events: list[str]
    wall_s: float

    @property
    def good(self) -> bool:
        """Whether every job succeeded and every proof holds."""
        return all(proof.holds for proof in self.proofs) and all(
            row.state == "succeeded" for row in self.rows
        )


def tell(*, json_output: bool, keep: bool) -> int:
    """Run the demo; the report goes to stdout, the live view to the terminal.

    Args:
        json_output: print one JSON object and nothing else on stdout.
        keep: leave the folder (database, checkpoints, logs) for a look.

    Returns:
        0 when every job ended as it should and every proof holds, else 1.
    """
    console = Console(stderr=json_output, width=None if _is_wide() else _WIDTH)
    folder = Path(tempfile.mkdtemp(prefix="lowtide-"))
    try:
        report = _play(folder, console)
    finally:
        if keep:
            console.print(f"Everything is kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if json_output:
        data = {**asdict(report), "good": report.good}
        sys.stdout.buffer.write(orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        _print(report, console)
    return 0 if report.good else 1


def _is_wide() -> bool:
    return Console().width >= _WIDTH


def _play(folder: Path, console: Console) -> Report:
    began = time.monotonic()
    console.print("Starting a real S3 server, the Lowtide server, an agent and a Ray cluster ...")
    with running(folder) as client:
        cast = {client.submit(part.spec()).id: part for part in parts()}
        director = Director(client, {job_id: part.shows for job_id, part in cast.items()})
        details = _watch(client, director, console, began)
        _await_no_nodes(client)
        return _report(client, cast, details, director.events, began)


def _watch(
    client: Client, director: Director, console: Console, began: float
) -> list[dict[str, Any]]:
    details = director.look()
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        while not director.over(details) and time.monotonic() - began < _LIMIT_S:
            time.sleep(_LOOK_S)
            details = director.look()
            age_s = time.monotonic() - began
            live.update(live_view(details, client.nodes(), director.events, age_s=age_s))
    console.print()
    return details


def _await_no_nodes(client: Client) -> None:
    """Wait until idle nodes are released, so that the bill is closed."""
    deadline = time.monotonic() + _NODES_GONE_S
    while client.nodes() and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def _report(
    client: Client,
    cast: dict[str, Part],
    details: list[dict[str, Any]],
    events: list[str],
    began: float,
) -> Report:
    overview = client.cost()
    rows = [
        make_row(
            detail,
            overview["jobs"][detail["job"]["id"]],
            shows=cast[detail["job"]["id"]].shows,
        )
        for detail in details
        if detail["job"]["id"] in overview["jobs"]
    ]
    proofs = [
        *_byte_proofs(client, cast, details),
        books_tie(overview),
        audit_clean(client.audit()),
    ]
    return Report(
        rows=rows,
        overview=overview,
        proofs=proofs,
        events=events,
        wall_s=time.monotonic() - began,
    )


def _byte_proofs(
    client: Client, cast: dict[str, Part], details: list[dict[str, Any]]
) -> list[Proof]:
    """Train the two evicted jobs once more, plainly, and compare the final weights."""
    struck = [one for one in details if cast[one["job"]["id"]].shows in {NOTICE_ROLE, KILL_ROLE}]
    plain = [PlainTraining(_without_pace(cast[one["job"]["id"]].args)) for one in struck]
    try:
        return [
            equal_bytes(
                cast[detail["job"]["id"]].name,
                evictions=detail["job"]["evictions"],
                ours=_logged_digest(client, detail["job"]["id"]),
                plain=training.digest(),
            )
            for detail, training in zip(struck, plain, strict=True)
        ]
    finally:
        for training in plain:
            training.stop()


def _without_pace(args: tuple[str, ...]) -> tuple[str, ...]:
    return args[: args.index("--pace")]


def _logged_digest(client: Client, job_id: str) -> str | None:
    try:
        return digest_in(client.job(job_id).logs())
    except LowtideError:
        return None


def _print(report: Report, console: Console) -> None:
    console.print()
    console.print(closing_table(report.rows, report.overview))
    mark: Callable[[bool], str] = lambda holds: "[green]ok[/]" if holds else "[red]NO[/]"  # noqa: E731
    for proof in report.proofs:
        console.print(f"{mark(proof.holds)}  {proof.claim}: {proof.detail}")
    console.print(f"Whole demo: {report.wall_s:.0f} s")
