"""What a command prints, and how it ends: the same shapes and exit codes everywhere."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.errors import LowtideError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

OURS = frozenset({"scheduler", "cluster", "jobs", "checkpointing"})
MIN_WIDTH, PIPE_WIDTH = 150, 240  # columns
CLI_PATIENCE_S = 2.0  # somebody waits at the terminal
OK, FAILED, REFUSED, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130

_EXITS = """\b
Exit codes:
  0  done
{}  2  bad input or refused; says the cause and the fix
  3  the server cannot be reached"""
EXITS = _EXITS.format("")
EXITS_JOB = _EXITS.format("  1  the job failed or was cancelled\n")
EXITS_FOUND = _EXITS.format("  1  something was found\n")
EXITS_DEMO = _EXITS.format("  1  a proof failed\n")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else.")]
"""The option that every command has."""
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id: see `lowtide ls`.")]
"""A job's id."""
NodeId = Annotated[str, typer.Argument(metavar="NODE", help="The node's id: see `lowtide nodes`.")]
"""A node's id."""


class MissingPartError(LowtideError):
    """A part of Lowtide that this command needs is not installed here."""

    code = "missing-part"


def print_json(data: object) -> None:
    """Print one JSON value on standard output."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def print_error(*, code: str, cause: str, remedy: str, as_json: bool) -> None:
    """Print a problem: JSON on standard output, or two lines on standard error."""
    if as_json:
        print_json({"error": {"code": code, "cause": cause, "remedy": remedy}})
        return
    sys.stdout.flush()
    sys.stderr.write(f"error: {_line(cause)}\n  fix: {_line(remedy)}\n")


def _line(text: str) -> str:
    """One line stays one line, whatever a path or a server puts into it."""
    return " ".join(text.split())


def console(*, stderr: bool = False) -> Console:
    """Give a Rich console. A narrow terminal wraps a line; an id is never cut to fit it."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    made.width = max(made.width, MIN_WIDTH) if made.is_terminal else PIPE_WIDTH
    return made


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """Make a table without a frame; the columns named in ``right`` hold numbers."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, title=title, title_justify="left", header_style="bold")
    for column in columns:
        number = column in right
        made.add_column(column, justify="right" if number else "left", no_wrap=number)
    return made


def add_row(made: Table, *cells: str | tuple[str, str], style: str | None = None) -> None:
    """Add cells to a table as they are, brackets included; a pair is a text and its style."""
    from rich.text import Text

    pairs = [cell if isinstance(cell, tuple) else (cell, "") for cell in cells]
    made.add_row(*(Text(text, style=look) for text, look in pairs), style=style)


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a missing import into the command that installs it.

    Raises:
        MissingPartError: something that ``lowtide[extra]`` brings is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OURS:
            raise
        raise MissingPartError(
            f"This command needs the Python package '{error.name}', which is not installed.",
            remedy=f"Install it: pip install 'lowtide[{extra}]'.",
        ) from error


@contextmanager
def own_stdout() -> Iterator[None]:
    """Send what libraries print below Python to standard error: standard output is for us."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def client(*, patience_s: float | None = None) -> Any:  # noqa: ANN401 - imported late
    """Connect to the server; see ``jobs.Client``."""
    from jobs.client import Client

    return Client(patience_s=CLI_PATIENCE_S if patience_s is None else patience_s)
