"""``nodes``, ``evict``, ``cordon``: what is up, and game days."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from scheduler.cli.formats import NONE, gpus, instant, span
from scheduler.cli.output import Json, NodeId, add_row, client, console, print_json, table


def nodes(as_json: Json = False) -> None:
    """List the nodes that are paid for now."""
    with client() as server:
        rows = server.nodes()
    if as_json:
        print_json(rows)
        return
    if not rows:
        print("no nodes are up; they are launched when a job needs them")
        return
    made = table(
        "node",
        "flavor",
        "cluster",
        "state",
        "why",
        "GPUs",
        "CPUs",
        "up",
        right=("GPUs", "CPUs", "up"),
    )
    now_us = _now_us()
    for row in rows:
        add_row(made, *_cells(row, now_us=now_us))
    console().print(made)


def _cells(row: dict[str, Any], *, now_us: int) -> tuple[str, ...]:
    since = row.get("booting_us")
    return (
        row["id"],
        row["flavor"],
        row["cluster"],
        _state(row),
        row["reason"],
        gpus(row["gpu_milli"]),
        str(row["cpus"]),
        NONE if since is None else span(((row.get("gone_us") or now_us) - since) // 1_000),
    )


def _state(row: dict[str, Any]) -> str:
    marks = []
    if row.get("noticed"):
        marks.append("eviction notice")
    if row.get("cordoned"):
        marks.append("cordoned")
    if row.get("idle_since_us") is not None and row["state"] == "ready":
        marks.append("idle")
    return f"{row['state']} ({', '.join(marks)})" if marks else str(row["state"])


def evict(
    node: NodeId,
    notice: Annotated[
        str, typer.Option(help="Warning time, like 30s; 0s kills the node at once.")
    ] = "30s",
    as_json: Json = False,
) -> None:
    """Hold a game day: evict a node for real, with notice or not."""
    _check_duration(notice)
    with client() as server:
        row = _row(server.evict(node, notice=notice))
    if as_json:
        print_json(row)
        return
    print(f"node {node} will be evicted with a notice of {notice}")
    if row.get("drain_deadline_us"):
        print(f"  it dies at {instant(row['drain_deadline_us'])}")
    print("  watch: lowtide nodes, lowtide ls")


def cordon(
    node: NodeId,
    undo: Annotated[bool, typer.Option("--undo", help="Let attempts in again.")] = False,
    as_json: Json = False,
) -> None:
    """Let a node take no new attempts; what trains there goes on."""
    with client() as server:
        row = _row(server.cordon(node, cordoned=not undo))
    if as_json:
        print_json(row)
    elif undo:
        print(f"node {node} takes attempts again")
    else:
        print(f"node {node} takes no new attempts; undo: lowtide cordon {node} --undo")


def _row(answer: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = answer.get("node", answer)
    return row


def _check_duration(text: str) -> None:
    from jobs.durations import parse_duration_ms
    from jobs.errors import SpecError

    try:
        parse_duration_ms(text)
    except ValueError as error:
        raise SpecError(f"--notice: {error}.", remedy="Write it like 30s or 2m.") from error


def _now_us() -> int:
    from scheduler.clock import SystemClock

    return SystemClock().now_us()
