"""``checkpoints``: what is stored, whether it is whole, and how to get it out without Lowtide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scheduler.cli.checkpoints_place import open_place
from scheduler.cli.formats import counted
from scheduler.cli.output import EXITS, EXITS_FOUND, FAILED, OK, Json, console, print_json

if TYPE_CHECKING:
    from checkpointing.catalog import Catalog, Checkpoint

HELP = "Look at stored checkpoints, verify, compare, restore."

Where = Annotated[
    str,
    typer.Argument(
        metavar="WHERE",
        help="s3://BUCKET/PREFIX, a folder, or the id of a job of this installation.",
    ),
]
JobName = Annotated[
    str | None,
    typer.Option("--job", metavar="JOB", help="Whose checkpoints, if the place holds several."),
]
CommitName = Annotated[
    str, typer.Option("--commit", metavar="COMMIT", help="newest, a number of `ls`, or step=N.")
]
Keep = Annotated[int, typer.Option(min=1, metavar="N", help="How many commits the policy keeps.")]
Milestones = Annotated[
    int, typer.Option("--keep-every", min=0, metavar="STEPS", help="Also keep each such step.")
]


def ls(
    where: Where,
    job: JobName = None,
    keep: Keep = 3,
    keep_every: Milestones = 0,
    as_json: Json = False,
) -> None:
    """List a job's commits, or the jobs of a shared place."""
    from scheduler.cli.checkpoints_views import commits_table, jobs_lines, line_json

    with open_place(where, job=job, several=True) as found:
        if isinstance(found, list):
            print_json(found) if as_json else print("\n".join(jobs_lines(found, where)))
            return
        lines = found.lines(_policy(keep, keep_every), now_us=_now_us())
        skipped = found.history.skipped
    if as_json:
        commits = [line_json(line) for line in lines]
        print_json({"job": found.job_id, "commits": commits, "skipped": skipped})
        return
    print(f"job {found.job_id} in {found.storage.uri}")
    console().print(commits_table(lines))
    for why in skipped:
        print(f"skipped: {why}")


def show(
    where: Where, job: JobName = None, commit: CommitName = "newest", as_json: Json = False
) -> None:
    """Show one commit: origin, every value of its state, sizes."""
    from scheduler.cli.checkpoints_views import checkpoint_json, facts, values_table

    with open_place(where, job=job) as catalog:
        found = catalog.read(catalog.find(commit))
    if as_json:
        print_json(checkpoint_json(found))
        return
    out = console()
    for label, text in facts(found):
        out.print(f"[bold]{label:<11}[/bold] ", end="")
        out.print(text, markup=False)
    out.print()
    out.print(values_table(found))


def verify(
    where: Where,
    job: JobName = None,
    commit: Annotated[
        str | None,
        typer.Option("--commit", metavar="COMMIT", help="Only this one: a number, step=N, newest."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Read and hash every chunk again; 1 if one is wrong."""
    from checkpointing import catalog_check
    from scheduler.cli.checkpoints_views import bar, verdict_json, verdict_lines

    with open_place(where, job=job) as catalog:
        checkpoints, damaged = _readable(catalog, commit)
        total = sum({n: c.length for one in checkpoints for n, c in one.chunks.items()}.values())
        with bar("verifying", total=total, hidden=as_json) as tell:
            wrong = catalog_check.verify(catalog.storage, checkpoints, tell=tell)
        skipped = catalog.history.skipped if commit is None else ()
    bad = bool(wrong or damaged or skipped)
    if as_json:
        print_json(verdict_json(checkpoints, wrong, (*damaged, *skipped), total))
    else:
        print("\n".join(verdict_lines(checkpoints, wrong, (*damaged, *skipped), total)))
    return FAILED if bad else OK


def diff(
    where: Where,
    first: Annotated[str, typer.Argument(metavar="A", help="A commit: a number, step=N, newest.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another commit.")],
    job: JobName = None,
    as_json: Json = False,
) -> None:
    """Say which tensors differ between two commits."""
    from dataclasses import asdict

    from checkpointing.catalog_check import compare
    from scheduler.cli.checkpoints_views import difference_lines

    with open_place(where, job=job) as catalog:
        one = catalog.read(catalog.find(first))
        other = catalog.read(catalog.find(second))
        found = compare(catalog.storage, one, other)
    if as_json:
        print_json(asdict(found))
    else:
        print("\n".join(difference_lines(one, other, found)))


def gc(
    where: Where,
    job: JobName = None,
    keep: Keep = 3,
    keep_every: Milestones = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="Younger chunks stay; saves in flight need them.")
    ] = "15m",
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking again.")] = False,
    as_json: Json = False,
) -> int:
    """Delete what no kept commit needs; other jobs keep theirs."""
    from checkpointing.retirement import Retirement
    from scheduler.cli.checkpoints_views import bar, report_json, report_lines

    with open_place(where, job=job) as catalog:
        policy, grace_us = _policy(keep, keep_every), _duration_us(grace)
        archive = catalog.archive(conditional=dry_run or _probed(catalog))
        sweeper = Retirement(archive, policy=policy, grace_us=grace_us)
        report = sweeper.plan()
        if not dry_run:
            _confirm(yes, len(report.deleted), report.freed_bytes, as_json=as_json)
            with bar("deleting", total=len(report.deleted), hidden=as_json, unit="") as tell:
                report = sweeper.sweep(lambda done, _of: tell(done, absolute=True))
    if as_json:
        print_json(report_json(report, dry_run=dry_run))
    else:
        print("\n".join(report_lines(report, dry_run=dry_run)))
    return FAILED if report.refused else OK


def restore_to(
    where: Where,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    job: JobName = None,
    commit: CommitName = "newest",
    as_json: Json = False,
) -> None:
    """Write a commit as safetensors and JSON, for any tool."""
    from checkpointing.catalog_export import export
    from jobs.archive import show_bytes
    from scheduler.cli.checkpoints_views import bar

    with open_place(where, job=job) as catalog:
        found = catalog.read(catalog.find(commit))
        with bar("restoring", total=found.length_bytes, hidden=as_json) as tell:
            files = export(catalog.storage, found, folder, tell=tell)
    if as_json:
        print_json({"folder": str(folder), "step": found.record.step, "files": files})
        return
    print(f"step {found.record.step} (commit {found.record.seq}) is in {folder}, verified:")
    for name, length in files.items():
        print(f"  {show_bytes(length):>10}  {name}")


def _readable(catalog: Catalog, commit: str | None) -> tuple[list[Checkpoint], list[str]]:
    """Read the manifests of one commit or of all; say which are damaged."""
    from checkpointing.errors import CorruptCheckpoint

    found, damaged = [], []
    for record in catalog.history.commits if commit is None else [catalog.find(commit)]:
        try:
            found.append(catalog.read(record))
        except CorruptCheckpoint as error:
            if commit is not None or not catalog.is_retired(record):
                damaged.append(f"commit {record.seq} (step {record.step}): {error.cause}")
    return found, damaged


def _confirm(yes: bool, count: int, freed_bytes: int, *, as_json: bool) -> None:
    from jobs.archive import show_bytes

    what = f"{counted(count, 'object')}, {show_bytes(freed_bytes)}"
    if count and not yes:
        if as_json or not console().is_terminal:
            raise typer.BadParameter(f"it would delete {what}: say --yes, or --dry-run to look")
        typer.confirm(f"Delete {what}?", abort=True)


def _probed(catalog: Catalog) -> bool:
    from checkpointing.environment import new_nonce
    from checkpointing.keys import job_prefix
    from checkpointing.storage import keeps_conditions

    probe = f"{job_prefix(catalog.job_id)}probes/{new_nonce():015x}"
    return keeps_conditions(catalog.storage, probe_key=probe)


def _duration_us(text: str) -> int:
    from jobs.durations import parse_duration_ms
    from jobs.errors import SpecError

    try:
        return parse_duration_ms(text) * 1_000
    except ValueError as error:
        raise SpecError(f"--grace: {error}.", remedy="Write it like --grace 15m.") from error


def _policy(keep: int, keep_every: int) -> Any:  # noqa: ANN401 - imported late
    from checkpointing.retention import Retention

    return Retention(last=keep, milestone_steps=keep_every)


def _now_us() -> int:
    from scheduler.clock import SystemClock

    return SystemClock().now_us()


COMMANDS = (
    ("ls", ls, EXITS),
    ("show", show, EXITS),
    ("verify", verify, EXITS_FOUND),
    ("diff", diff, EXITS),
    ("gc", gc, EXITS_FOUND),
    ("restore-to", restore_to, EXITS),
)
