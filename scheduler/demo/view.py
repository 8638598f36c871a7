"""The demo's live view: what every job does now, why it waits, and the nodes that are up."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_STYLES = {"succeeded": "green", "failed": "red", "running": "cyan", "queued": "yellow"}


def live_view(
    details: list[dict[str, Any]], nodes: list[dict[str, Any]], events: list[str], *, age_s: float
) -> Group:
    """Draw the jobs with progress bars, the nodes, and the last mishaps."""
    return Group(
        Text(f"Lowtide demo, {age_s:.0f} s", style="bold"),
        _jobs(details),
        _nodes(nodes),
        *(Text(f"* {event}", style="magenta") for event in events[-4:]),
    )


def _jobs(details: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 1))
    for name in ("job", "state", "progress", "", "try", "why"):
        table.add_column(name, no_wrap=name != "why")
    for detail in details:
        job = detail["job"]
        total = job["total_steps"]
        done = total if job["state"] == "succeeded" else job["step"]
        state = detail["attempts"][-1]["state"] if job["attempt_id"] else job["state"]
        table.add_row(
            job["spec"]["name"],
            Text(state, style=_STYLES.get(job["state"], "")),
            ProgressBar(total=total or 1, completed=done, width=20),
            f"{done}/{total}" if total else "",
            str(job["attempts"] or ""),
            job["sentence"],
        )
    return table


def _nodes(nodes: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 1))
    for name in ("node", "flavor", "state"):
        table.add_column(name, no_wrap=True)
    for node in nodes:
        table.add_row(node["id"], node["flavor"], node["state"])
    return table
