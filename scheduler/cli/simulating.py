"""``simulate``: a scenario in virtual time, through the real controller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.errors import ConflictError
from scheduler.cli.output import Json, add_row, console, needs, own_stdout, print_json, table

MOST_UNMET = 20
COMPARED = (
    "cost_usd",
    "bound_usd",
    "regret",
    "deadline_misses",
    "unfinished",
    "refused",
    "evictions",
    "useful_gpu_h",
)
MONEY = ("cost_usd", "bound_usd")
HOURS = ("useful_gpu_h", "restart_gpu_h", "lost_gpu_h", "checkpoint_gpu_h", "idle_gpu_h")
LABELS = {
    "jobs": "jobs",
    "refused": "refused",
    "cost_usd": "cost",
    "bound_usd": "lower bound",
    "bound_kind": "bound by",
    "bound_jobs": "bound covers",
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
    policy: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Decide by this policy; several or `all` to compare."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Replace the scenario's seed.")] = None,
    jobs_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a row for each job (CSV).")
    ] = None,
    ledger: Annotated[
        str | None, typer.Option(metavar="URL", help="Keep the ledger in this database.")
    ] = None,
    job_bounds: Annotated[
        bool, typer.Option("--job-bounds", help="Bound each of more than 1,000 jobs, too (slow).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a scenario in virtual time, by the same controller.

    The same file and seed give the same decisions, to the byte. The bound is what nobody could
    have beaten who knew all prices and limits ahead.
    """
    if policy and (len(policy) > 1 or policy == ["all"]):
        compare(file, policy, seed=seed, kept=jobs_out or ledger, as_json=as_json)
        return
    with needs("server"):
        from scheduler.simulator import simulate_file

        with own_stdout():  # a solver greets there
            result = simulate_file(
                file,
                policy=policy[0] if policy else None,
                seed=seed,
                jobs_out=jobs_out,
                ledger=ledger,
                job_bounds=job_bounds,
            )
    if as_json:
        print_json(result)
        return
    _print(result)
    if result.get("budgets"):
        print()
        console().print(budgets_table(result["budgets"]))
    if jobs_out:
        print(f"\na row for each job: {jobs_out}")


def _print(result: dict[str, Any]) -> None:
    out = console()
    out.print(summary(result))
    if len(result["per_team"]) > 1:
        out.print()
        out.print(teams(result["per_team"]))
    if result["unmet"]:
        out.print()
        out.print(unmet(result["unmet"]))


def compare(
    file: Path, policies: list[str], *, seed: int | None, kept: object, as_json: bool
) -> None:
    """Play the scenario under each policy and put them side by side.

    Raises:
        ConflictError: rows or a ledger were asked for, which belong to one policy.
    """
    if kept:
        raise ConflictError(
            "--jobs-out and --ledger keep what one policy did, but several were named.",
            remedy="Name one --policy, or leave both out.",
        )
    with needs("server"):
        from scheduler.simulator import compare_file

        with own_stdout():
            found = compare_file(file, policies=policies, seed=seed)
    if as_json:
        print_json(found)
        return
    console().print(comparison(found["results"]))


def comparison(results: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - a Rich table
    """Put policies into rows, cheapest first; what was missed or left undone stands beside it."""
    figures = [name for name in COMPARED if name in results[0]]
    made = table("policy", *(LABELS[name] for name in figures), "mean wait", right=("cost",))
    for result in sorted(results, key=lambda one: (one["cost_usd"], one["policy"])):
        cells = ["-" if result[name] is None else shown(name, result[name]) for name in figures]
        add_row(made, result["policy"], *cells, _seconds(result["wait_s"]["mean"]))
    return made


def unmet(rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - a Rich table
    """Name the jobs that did not get what they asked for, and why."""
    more = len(rows) - MOST_UNMET
    title = "Not served as asked" + (
        f" (the first {MOST_UNMET} of {len(rows)})" if more > 0 else ""
    )
    made = table("job", "state", "due after", "possible after", "why", title=title)
    for row in rows[:MOST_UNMET]:
        due, first = (
            "-" if row[name] is None else _seconds(row[name] - row["submit_s"])
            for name in ("deadline_s", "earliest_finish_s")
        )
        add_row(made, row["name"], row["state"], due, first, row["why"])
    return made


def summary(result: dict[str, Any]) -> Any:  # noqa: ANN401 - a Rich table
    """Put the figures of a simulation into a table of label and value."""
    made = table("", "", right=())
    made.show_header = False
    for name, label in LABELS.items():
        bound = name.startswith("bound") and result["bound_usd"] is None
        if result.get(name) is not None and not bound:
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
    if name == "bound_jobs":
        return f"{value:,} jobs that were done"
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


def budgets_table(rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - a Rich table
    """Put how near each budget came to its limit into a table."""
    made = table("budget", "period", "limit", "most spent + reserved", "times held", "paused")
    for row in rows:
        limit, most = (f"${row[name]:,.2f}" for name in ("limit_usd", "most_committed_usd"))
        kind = row["period"] if row["hard"] else f"{row['period']}, soft"
        add_row(made, row["name"], kind, limit, most, str(row["held"]), str(row["paused"]))
    return made
