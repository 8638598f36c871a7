"""``quote``: what a job would cost, when it would end, and how sure that is, before it is sent."""

from __future__ import annotations

from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from scheduler.cli import options as o
from scheduler.cli.formats import NONE
from scheduler.cli.output import OK, Json, add_row, client, console, print_json, table
from scheduler.cli.submitting import NOT_FIELDS, submit

if TYPE_CHECKING:
    from jobs.client import Client
    from jobs.quotes import Quote, QuotedWay
    from jobs.spec import JobSpec

Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE.svg", help="Draw the cost-deadline curve as an SVG picture."),
]


def quote(
    plot: Plot = None, from_file: o.FromFile = None, as_json: Json = False, **given: object
) -> int:
    """Quote cost, start, finish and risk of a job before it is sent.

    The futures that are looked at follow the policy that would run the job, among the jobs that
    are there now. Nothing is sent or stored. The options are those of `submit`:

    lowtide quote train.py --gpus 4 --work 6h --deadline 24h --plot curve.svg
    """
    from jobs.codec import to_data
    from scheduler.cli.wishes import spec_from

    check_plot(plot)
    spec = spec_from(given, file=from_file)
    with client() as server:
        found = server.quote(spec)
    if plot is not None:
        draw(found, plot)
    if as_json:
        print_json(to_data(found))
        return OK
    show(found)
    if plot is not None:
        print(f"\nthe curve is in {plot}")
    return OK


def _signature() -> Signature:
    """Give the options of ``submit`` that say what job it is, and those of this command."""
    mine = [
        one for one in signature(quote, eval_str=True).parameters.values() if one.name != "given"
    ]
    wishes = [
        one
        for one in signature(submit, eval_str=True).parameters.values()
        if one.name not in NOT_FIELDS
    ]
    return Signature([*wishes, *mine])


cast("Any", quote).__signature__ = _signature()  # Typer reads the options there


def before_submit(server: Client, spec: JobSpec) -> Quote | None:
    """Ask for a quote without the curve; None where the server gives none.

    Raises:
        SpecError, InfeasibleError: the job would be refused.
    """
    from jobs.errors import InfeasibleError, LowtideError, SpecError

    try:
        return server.quote(spec, curve=False)
    except (InfeasibleError, SpecError):
        raise
    except LowtideError:
        return None  # an older server; who submits wants the job above all


def check_plot(plot: Path | None) -> None:
    """Refuse what cannot be drawn before anything is asked.

    Raises:
        SpecError: the file's name does not end in .svg, or its folder does not exist.
    """
    from jobs.errors import SpecError

    if plot is None:
        return
    if plot.suffix.lower() != ".svg":
        raise SpecError(
            f"--plot '{plot}' is not an SVG file.", remedy="Name a file that ends in .svg."
        )
    if not plot.parent.is_dir():
        raise SpecError(
            f"--plot '{plot}': there is no folder '{plot.parent}'.",
            remedy="Name a file in a folder that exists.",
        )


def draw(found: Quote, plot: Path) -> None:
    """Write the picture.

    Raises:
        SpecError: there is no curve, or the file cannot be written.
    """
    from jobs.errors import SpecError
    from scheduler.quote_plot import svg

    try:
        plot.write_text(svg(found), encoding="utf-8")
    except ValueError as error:
        raise SpecError("There is no curve to draw.", remedy="Give --work.") from error
    except OSError as error:
        raise SpecError(
            f"--plot '{plot}' cannot be written: {error.strerror}.", remedy="Name another file."
        ) from error


def show(found: Quote) -> None:
    """Print a quote for people."""
    from scheduler.quote_words import between, summary

    for line in summary(found):
        print(line)
    quoted = found.quoted
    starts = ", ".join(f"{name} {share / 10:.0f} %" for name, share in found.starts_permille)
    print(
        f"  starts {between(quoted.start_p50_us, quoted.start_p95_us)}; first on: {starts or NONE}"
    )
    print(
        f"  {found.ahead} ahead in the queue, {found.evictions_permille / 1_000:.1f} evictions "
        f"expected; policy {quoted.policy}, {quoted.futures} futures"
    )
    if found.ways or found.curve:
        print()
        console().print(ways_table(found))


def ways_table(found: Quote) -> Any:  # noqa: ANN401 - a Rich table
    """Put the other ways and the deadlines into a table."""
    columns = ("deadline", "cost P50", "cost P95", "done P50", "done P95", "risk")
    made = table("way", *columns, right=columns)
    for way in (*found.ways, *found.curve):
        add_row(made, *_cells(way), style="bold" if way.name == "yours" else None)
    return made


def _cells(way: QuotedWay) -> tuple[str, ...]:
    from scheduler.sentences import show_instant, show_usd

    told = way.quoted

    def usd(nanos: int | None) -> str:
        return NONE if nanos is None else show_usd(nanos)

    def at(instant_us: int | None) -> str:
        return NONE if instant_us is None else show_instant(instant_us)

    risk = NONE if way.deadline_us is None else f"{told.miss_permille / 10:g} %"
    return (
        way.name,
        at(way.deadline_us),
        usd(told.cost_p50_usd_nanos),
        usd(told.cost_p95_usd_nanos),
        at(told.finish_p50_us),
        at(told.finish_p95_us),
        risk,
    )
