"""``simulate``: a scenario in virtual time, through the real controller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scheduler.cli.output import Json, add_row, console, needs, own_stdout, print_json, table

MONEY = ("cost_usd", "bound_usd")
HOURS = ("useful_gpu_h", "restart_gpu_h", "lost_gpu_h", "checkpoint_gpu_h", "idle_gpu_h")
LABELS = {
    "jobs": "jobs",
    "cost_usd": "cost",
    "bound_usd": "lower bound",
    "bound_kind": "bound by",
    "regret": "cost / bound",
    "deadline_misses": "deadlines missed",
    "unfinished": "unfinished",
    "evictions": "evictions",
    "useful_gpu_h": "useful",
    "restart_gpu_h": "restarts",
    "lost_gpu_h": "of them lost",
    "checkpoint_gpu_h": "checkpoints",
    "idle_gpu_h": "idle",
    "utilization": "utilization",
    "wait_s": "wait",
    "decisions": "decisions",
    "wall_s": "computed in",
    "journal_hash": "journal hash",
}
"""What the summary shows, in this order; everything is in --json."""


def simulate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A scenario, YAML or JSON.")],
    policy: Annotated[str | None, typer.Option(help="Decide by this policy.")] = None,
    seed: Annotated[int | None, typer.Option(help="Replace the scenario's seed.")] = None,
    jobs_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a row for each job (CSV).")
    ] = None,
    ledger: Annotated[
        str | None, typer.Option(metavar="URL", help="Keep the ledger in this database.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a scenario in virtual time, by the same controller.

    The same file and seed give the same decisions, to the byte.
    """
    with needs("server"):
        from scheduler.simulator import simulate_file

        wishes = {} if seed is None else {"seed": seed}
        with own_stdout():  # a solver greets there
            result = simulate_file(file, policy=policy, jobs_out=jobs_out, ledger=ledger, **wishes)
    if as_json:
        print_json(result)
        return
    out = console()
    out.print(summary(result))
    if result.get("per_team"):
        out.print()
        out.print(teams(result["per_team"]))
    if jobs_out:
        print(f"\na row for each job: {jobs_out}")


def summary(result: dict[str, Any]) -> Any:  # noqa: ANN401 - a Rich table
    """Put the figures of a simulation into a table of label and value."""
    made = table("", "", right=())
    made.show_header = False
    for name, label in LABELS.items():
        if result.get(name) is not None:
            add_row(made, label, shown(name, result[name]))
    return made


def shown(name: str, value: Any) -> str:  # noqa: ANN401 - any figure
    """Write one figure with its unit."""
    if name in MONEY:
        return f"${value:,.2f}"
    if name in HOURS:
        return f"{value:,.2f} GPU-h"
    if name == "wait_s":
        return ", ".join(f"{key} {_seconds(part)}" for key, part in value.items())
    if name == "wall_s":
        return f"{value:.2f} s"
    if name == "regret":
        return f"{value:.3f}"
    if name == "utilization":
        return f"{100 * value:.1f} %"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _seconds(value: float) -> str:
    from jobs.durations import show_duration

    return show_duration(round(value * 1_000))


def teams(per_team: dict[str, dict[str, Any]]) -> Any:  # noqa: ANN401 - a Rich table
    """Put each team's figures into a table with a column for each figure."""
    columns = [name for name in next(iter(per_team.values())) if name != "wait_s"]
    made = table("team", *(LABELS.get(name, name) for name in columns))
    for team, figures in per_team.items():
        add_row(made, team, *(shown(name, figures[name]) for name in columns))
    return made
