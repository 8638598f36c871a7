"""``cost``: one job's statement, or everything that was paid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from scheduler.cli.formats import dollar_column, dollars, exact_dollars, gpu_hours, percent
from scheduler.cli.output import Json, add_row, client, console, print_json, table

if TYPE_CHECKING:
    from rich.table import Table

Amounts = dict[str, int]
NUMBERS = ("GPU time", "share", "cost", "on demand")
EXACT = "exact"
PPM = 1_000_000
NANOS_PER_USD = 1_000_000_000


def cost(
    job: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="A job's id; without one, everything.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a job cost and for what, or all that was paid.

    People get cents; --json gives integer nano-dollars (usd_nanos) and GPU-milliseconds (gpu_ms).
    """
    with client() as server:
        answer = server.cost(job)
    if as_json:
        print_json(answer)
    elif job is not None:
        _print_statement(answer)
    else:
        _print_overview(answer)


def _print_statement(statement: dict[str, Any]) -> None:
    if not statement["total"]["gpu_ms"] and not statement["total"]["usd_nanos"]:
        print("nothing was paid for this job yet")
        return
    from jobs.ledger.accounts import CostClass

    classes = statement["classes"]
    ordered = {str(name): classes[name] for name in CostClass if name in classes}
    shown = {name: amount for name, amount in ordered.items() if amount["gpu_ms"]}
    out = console()
    out.print(amounts_table("time", shown, total=statement["total"]))
    out.print()
    for line in statement_lines(statement):
        out.print(line, markup=False)


def statement_lines(statement: dict[str, Any]) -> list[str]:
    """Give a statement's named figures, one sentence each."""
    lines = [f"exactly {exact_dollars(statement['total']['usd_nanos'])}"]
    hourly = statement["effective_usd_nanos_per_useful_gpu_hour"]
    if hourly is not None:
        lines.append(f"{dollars(hourly)} for each useful GPU-hour")
    if statement["goodput_gpu_ppm"] is not None:
        share = percent(statement["goodput_gpu_ppm"], PPM)
        lines.append(f"{share} of the GPU time it held was useful")
    if statement["restart_gpu_ms"]:
        lines.append(
            f"restarts took {gpu_hours(statement['restart_gpu_ms'])} of GPU time "
            f"and {dollars(statement['restart_usd_nanos'])}"
        )
    lines.append(saving(statement["net_spot_saving_usd_nanos"]))
    return lines


def saving(usd_nanos: int) -> str:
    """Say what spot capacity saved, all restarts paid; it may have cost more."""
    if usd_nanos < 0:
        return f"{dollars(-usd_nanos)} more than on demand, restarts included"
    return f"{dollars(usd_nanos)} saved against on demand, restarts included"


def amounts_table(first: str, rows: dict[str, Amounts], *, total: Amounts) -> Table:
    """Put amounts into a table whose columns of money add up to the total, to the cent.

    Where all of it is less than a dollar, cents say little and the exact amounts stand beside.
    """
    columns = (*NUMBERS, EXACT) if total["usd_nanos"] < NANOS_PER_USD else NUMBERS
    made = table(first, *columns, right=columns)
    everything = {**rows, "total": total}
    paid = _column(rows, total, name="usd_nanos")
    listed = _column(rows, total, name="list_usd_nanos")
    for (name, row), cost_text, list_text in zip(everything.items(), paid, listed, strict=True):
        share = percent(row["gpu_ms"], total["gpu_ms"])
        exact = [exact_dollars(row["usd_nanos"])] if EXACT in columns else []
        cells = (name, gpu_hours(row["gpu_ms"]), share, cost_text, list_text, *exact)
        add_row(made, *cells, style="bold" if name == "total" else None)
    return made


def _column(rows: dict[str, Amounts], total: Amounts, *, name: str) -> list[str]:
    return [*dollar_column([row[name] for row in rows.values()]), dollars(total[name])]


def _print_overview(overview: dict[str, Any]) -> None:
    bill = overview["bill"]
    if not bill["gpu_ms"] and not bill["usd_nanos"]:
        print("nothing was paid yet")
        return
    rows = {job_id: one["total"] for job_id, one in overview["jobs"].items()}
    rows |= {"idle": overview["idle"], "overhead": overview["overhead"]}
    out = console()
    out.print(amounts_table("job", rows, total=bill))
    out.print()
    out.print(tie(bill["usd_nanos"], difference=overview["difference_usd_nanos"]), markup=False)


def tie(bill: int, *, difference: int) -> str:
    """Say whether the shares add up to the bill."""
    if difference:
        return (
            f"jobs + idle + overhead differ from the nodes' bill of {exact_dollars(bill)} by "
            f"{exact_dollars(difference)}: run `lowtide audit`"
        )
    return f"jobs + idle + overhead = the nodes' bill = {exact_dollars(bill)}, to the nano-dollar"
