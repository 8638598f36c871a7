"""The options of ``submit``: each is a field of the job's specification."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

GANG, WHERE, WHEN = "The gang", "Where it may go", "Time and money"
MANY, WHO = "Several jobs", "Who and how"

Script = Annotated[
    str | None, typer.Argument(metavar="SCRIPT", help="Path of the training script.")
]
Args = Annotated[
    list[str] | None, typer.Argument(metavar="-- ARGS", help="What the script is given.")
]
Name = Annotated[str | None, typer.Option(help="Default: the script's name.", rich_help_panel=WHO)]
Nodes = Annotated[int | None, typer.Option(help="Nodes that start together.", rich_help_panel=GANG)]
Gpus = Annotated[
    str | None,
    typer.Option(metavar="N", help="On each node; below 1 a fraction.", rich_help_panel=GANG),
]
Processes = Annotated[int | None, typer.Option(help="Ranks on each node.", rich_help_panel=GANG)]
Cpus = Annotated[int | None, typer.Option(help="Cores on each node.", rich_help_panel=GANG)]
MemoryGb = Annotated[
    str | None, typer.Option(metavar="N", help="GB on each node.", rich_help_panel=GANG)
]
MarketList = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="spot, on-demand or reserved; repeatable.", rich_help_panel=WHERE
    ),
]
AcceleratorList = Annotated[
    list[str] | None,
    typer.Option(metavar="TYPE", help="Allowed GPU type; repeatable.", rich_help_panel=WHERE),
]
RegionList = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Allowed region; repeatable.", rich_help_panel=WHERE),
]
Deadline = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="'6h' from now, or 2026-12-01T06:00+01:00; give --work with it to save money.",
        rich_help_panel=WHEN,
    ),
]
Work = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Expected useful training time: '2h30m'.", rich_help_panel=WHEN
    ),
]
Budget = Annotated[
    str | None, typer.Option(metavar="USD", help="The most it may cost.", rich_help_panel=WHEN)
]
MaxRuntime = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="End it after so long on capacity.", rich_help_panel=WHEN),
]
CheckpointInterval = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Default: the scheduler's choice.", rich_help_panel=WHEN),
]
Team = Annotated[str | None, typer.Option(help="Who pays.", rich_help_panel=WHO)]
TagList = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="For the ledger; repeatable.", rich_help_panel=WHO),
]
EnvList = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="For the script; repeatable.", rich_help_panel=WHO),
]
Priority = Annotated[int | None, typer.Option(help="Higher goes first.", rich_help_panel=WHO)]
ArrayCount = Annotated[
    int | None,
    typer.Option(metavar="N", help="So many jobs, told apart by an index.", rich_help_panel=MANY),
]
MaxParallel = Annotated[
    int | None,
    typer.Option(metavar="N", help="Elements that may be up at once.", rich_help_panel=MANY),
]
AfterList = Annotated[
    list[str] | None,
    typer.Option(
        metavar="JOB[:ended]",
        help="Start once it has succeeded (or ended); repeatable.",
        rich_help_panel=MANY,
    ),
]
OnFailure = Annotated[
    str | None,
    typer.Option(
        metavar="RULE", help="If it did not: cancel (default), run or wait.", rich_help_panel=MANY
    ),
]
RetryOnList = Annotated[
    list[int] | None,
    typer.Option(
        metavar="CODE", help="Retry these exit codes only; repeatable.", rich_help_panel=WHO
    ),
]
MaxEvictions = Annotated[
    int | None, typer.Option(help="Evictions before it is given up.", rich_help_panel=WHO)
]
MaxFailures = Annotated[
    int | None, typer.Option(help="Retries of the script's own errors.", rich_help_panel=WHO)
]
CodeDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder to pack; default: the script's.")
]
FromFile = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="FILE", help="YAML with the same names, or a list of jobs; options win."
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Stay until the job has ended.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only ask whether it would be accepted.")]
