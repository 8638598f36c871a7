"""The entry point: which commands there are, and how each of them may end."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from checkpointing.errors import CheckpointError
from jobs.errors import LowtideError, UnreachableError
from scheduler.cli import (
    acting,
    auditing,
    budgets,
    capacity,
    checkpoints,
    diagnosing,
    following,
    looking,
    money,
    quoting,
    schedules,
    serving,
    simulating,
    submitting,
    windows,
)
from scheduler.cli.helping import SectionedCommand, SectionedGroup
from scheduler.cli.output import (
    EXITS,
    EXITS_DEMO,
    EXITS_FOUND,
    EXITS_JOB,
    INTERRUPTED,
    OK,
    REFUSED,
    UNREACHABLE,
    print_error,
)

RUN, JOBS, CAPACITY, CHECK = "Run it", "Jobs", "Money and capacity", "Check it"

COMMANDS = (
    ("up", serving.up, RUN, EXITS),
    ("serve", serving.serve, RUN, EXITS),
    ("agent", serving.agent, RUN, EXITS),
    ("demo", serving.demo, RUN, EXITS_DEMO),
    ("submit", submitting.submit, JOBS, EXITS_JOB),
    ("quote", quoting.quote, JOBS, EXITS),
    ("ls", looking.ls, JOBS, EXITS),
    ("show", looking.show, JOBS, EXITS),
    ("explain", looking.explain, JOBS, EXITS),
    ("logs", following.logs, JOBS, EXITS_JOB),
    ("cancel", acting.cancel, JOBS, EXITS),
    ("pause", acting.pause, JOBS, EXITS),
    ("resume", acting.resume, JOBS, EXITS),
    ("cost", money.cost, CAPACITY, EXITS),
    ("nodes", capacity.nodes, CAPACITY, EXITS),
    ("evict", capacity.evict, CAPACITY, EXITS),
    ("cordon", capacity.cordon, CAPACITY, EXITS),
    ("simulate", simulating.simulate, CHECK, EXITS),
    ("audit", auditing.audit, CHECK, EXITS_FOUND),
    ("doctor", diagnosing.doctor, CHECK, EXITS_FOUND),
    ("version", diagnosing.version, CHECK, EXITS),
)


def build() -> typer.Typer:
    """Make the application."""
    app = typer.Typer(
        help="Lowtide trains your PyTorch jobs in the cheap hours: spot-aware packing, "
        "checkpoints that survive evictions, a ledger that adds up.",
        epilog="It talks to the server of LOWTIDE_SERVER and LOWTIDE_TOKEN, else to the one that "
        "`lowtide up` started on this machine (LOWTIDE_HOME, default ~/.lowtide).",
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=False,
        cls=SectionedGroup,
    )
    for name, function, panel, exits in COMMANDS:
        app.command(name, cls=SectionedCommand, rich_help_panel=panel, epilog=exits)(function)
    app.add_typer(_checkpoints(), name="checkpoints", rich_help_panel=JOBS)
    app.add_typer(_schedules(), name="schedules", rich_help_panel=JOBS)
    app.add_typer(_windows(), name="windows", rich_help_panel=CAPACITY)
    app.add_typer(_budgets(), name="budgets", rich_help_panel=CAPACITY)
    return app


def _windows() -> typer.Typer:
    group = typer.Typer(rich_markup_mode=None, cls=SectionedGroup, invoke_without_command=True)
    group.callback(epilog=EXITS)(windows.windows)
    group.command("apply", cls=SectionedCommand, epilog=EXITS)(windows.apply)
    return group


def _budgets() -> typer.Typer:
    group = typer.Typer(rich_markup_mode=None, cls=SectionedGroup, invoke_without_command=True)
    group.callback(epilog=EXITS)(budgets.budgets)
    for name, function in (("apply", budgets.apply), ("set", budgets.set_), ("rm", budgets.rm)):
        group.command(name, cls=SectionedCommand, epilog=EXITS)(function)
    return group


def _schedules() -> typer.Typer:
    group = typer.Typer(help=schedules.HELP, rich_markup_mode=None, cls=SectionedGroup)
    for name, function, exits in schedules.COMMANDS:
        group.command(name, cls=SectionedCommand, epilog=exits)(function)
    return group


def _checkpoints() -> typer.Typer:
    group = typer.Typer(help=checkpoints.HELP, rich_markup_mode=None, cls=SectionedGroup)
    for name, function, exits in checkpoints.COMMANDS:
        group.command(name, cls=SectionedCommand, epilog=exits)(function)
    return group


def run(args: Sequence[str]) -> int:
    """Run one command line and give its exit code; every user's error becomes two lines."""
    as_json = "--json" in _before_dashes(args)
    if list(args) == ["--version"]:
        args = ["version"]
    if list(args) in (["checkpoints"], ["schedules"]):
        args = [*args, "--help"]
    try:
        result = build()(args=list(args) or ["--help"], standalone_mode=False, prog_name="lowtide")
        sys.stdout.flush()
    except (LowtideError, CheckpointError) as error:
        print_error(code=error.code, cause=error.cause, remedy=error.remedy, as_json=as_json)
        return UNREACHABLE if isinstance(error, UnreachableError) else REFUSED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; the interpreter must not flush into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except typer.TyperException as error:
        cause = str(getattr(error, "format_message", error.__str__)())
        print_error(code="usage", cause=cause, remedy=_usage(error), as_json=as_json)
        return REFUSED
    return result if isinstance(result, int) else OK


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


def _before_dashes(args: Sequence[str]) -> Sequence[str]:
    """Give our own arguments, without those of the training script."""
    return args[: list(args).index("--")] if "--" in args else args


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "lowtide"
    return f"See `{path} --help`."
