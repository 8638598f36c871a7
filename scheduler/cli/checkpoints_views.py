"""Checkpoints as tables and lines for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from jobs.archive import show_bytes as size
from scheduler.cli.formats import NONE, counted, instant
from scheduler.cli.output import add_row, console, table

if TYPE_CHECKING:
    from rich.table import Table

    from checkpointing.catalog import Checkpoint, CommitLine
    from checkpointing.catalog_check import Difference, WrongChunk
    from checkpointing.manifest import Manifest, TensorEntry
    from checkpointing.retirement import SweepReport

STYLES = {"newest": "green", "kept": "", "would be retired": "yellow", "retired": "dim"}
LISTED = 20  # names of one kind; the rest is counted


class Tell(Protocol):
    """Moves a progress bar."""

    def __call__(self, count: int, *, absolute: bool = False) -> None:
        """Add `count`, or go to it."""


def commits_table(lines: Sequence[CommitLine]) -> Table:
    """Put commits into a table, newest first."""
    made = table(
        *("commit", "step", "time", "bytes", "new bytes", "ranks"),
        *("epoch", "attempt", "signed by", "state"),
        right=("commit", "step", "bytes", "new bytes", "ranks", "epoch"),
    )
    for line in lines:
        record, found = line.record, line.checkpoint
        add_row(
            made,
            str(record.seq),
            str(record.step),
            instant(record.at_us),
            size(found.length_bytes) if found else NONE,
            size(line.new_bytes) if found else NONE,
            str(len(found.manifests)) if found else NONE,
            str(record.epoch),
            record.attempt_id or NONE,
            record.key_id or NONE,
            (line.state, STYLES.get(line.state, "red")),
        )
    return made


def line_json(line: CommitLine) -> dict[str, Any]:
    """Give a commit's line as JSON."""
    record, found = line.record, line.checkpoint
    return {
        "commit": record.seq,
        "step": record.step,
        "at_us": record.at_us,
        "bytes": found.length_bytes if found else None,
        "new_bytes": line.new_bytes if found else None,
        "ranks": len(found.manifests) if found else None,
        "epoch": record.epoch,
        "attempt": record.attempt_id,
        "signed_by": record.key_id or None,
        "manifest": record.manifest,
        "state": line.state,
    }


def jobs_lines(found: Sequence[dict[str, Any]], where: str) -> Iterator[str]:
    """Describe the jobs of a root, and how to go on."""
    yield f"{counted(len(found), 'job')} in {where}; see one with --job:"
    for one in found:
        what = counted(one["manifests"], "checkpoint")
        yield f"  {one['job']}  {what}, newest {instant(one['newest_us'] or None)}"


def facts(found: Checkpoint) -> Iterator[tuple[str, str]]:
    """Describe a checkpoint as pairs of label and text."""
    record = found.record
    ranks = counted(len(found.manifests), "rank")
    yield "job", found.manifests[0].job_id
    yield "step", f"{record.step} (commit {record.seq}, epoch {record.epoch}, {ranks})"
    yield "committed", f"{instant(record.at_us)} by attempt {record.attempt_id or '(unnamed)'}"
    yield "signed by", record.key_id or "nobody"
    yield "size", f"{size(found.length_bytes)} in {counted(len(found.chunks), 'chunk')}"
    yield "manifest", record.manifest
    yield from found.manifests[0].provenance.items()


def values_table(found: Checkpoint) -> Table:
    """Put every value of a state into a table: tensors by kind and size, others as they are."""
    from checkpointing.catalog_tree import shown

    made = table("rank", "name", "dtype", "shape", "bytes", "value", right=("rank", "bytes"))
    for rank, name, entry, value in _values(found):
        if isinstance(value, Mapping) and "sharded" in value:
            told = value["sharded"]
            shape = "x".join(str(size) for size in told["shape"])
            add_row(made, "all", name, told["dtype"], shape, "", "sharded over the ranks")
        elif entry is None:
            add_row(made, str(rank), name, "", "", "", _short(shown(value)))
        else:
            bytes_ = sum(part.length for part in entry.parts)
            add_row(made, str(rank), name, entry.dtype, _shape(entry), size(bytes_), "")
    return made


def checkpoint_json(found: Checkpoint) -> dict[str, Any]:
    """Give all that `show` shows as JSON."""
    record = found.record
    return {
        "job": found.manifests[0].job_id,
        "commit": record.seq,
        "step": record.step,
        "at_us": record.at_us,
        "epoch": record.epoch,
        "attempt": record.attempt_id,
        "signed_by": record.key_id or None,
        "manifest": record.manifest,
        "bytes": found.length_bytes,
        "chunks": len(found.chunks),
        "ranks": len(found.manifests),
        "provenance": dict(found.manifests[0].provenance),
        "values": [
            {"rank": rank, "name": name, "value": value}
            if entry is None
            else {"rank": rank, "name": name, **_entry_json(entry)}
            for rank, name, entry, value in _values(found)
        ],
    }


def verdict_lines(
    checkpoints: Sequence[Checkpoint],
    wrong: Sequence[WrongChunk],
    damaged: Sequence[str],
    total: int,
) -> Iterator[str]:
    """Say what a verification found."""
    yield from (f"wrong: {why}" for why in damaged)
    for chunk in wrong:
        steps = ", ".join(str(step) for step in chunk.steps)
        yield f"wrong: chunk {chunk.name}: {chunk.why}; it breaks step {steps}"
    bad = {step for chunk in wrong for step in chunk.steps}
    whole = [one.record.step for one in checkpoints if one.record.step not in bad]
    chunks = len({name for one in checkpoints for name in one.chunks})
    commits = counted(len(checkpoints), "commit")
    yield f"read {size(total)} in {counted(chunks, 'chunk')} of {commits}"
    if not wrong and not damaged:
        yield "all of it is what was committed"
    else:
        yield f"whole: {', '.join(f'step {step}' for step in whole) or 'none'}"


def verdict_json(
    checkpoints: Sequence[Checkpoint],
    wrong: Sequence[WrongChunk],
    damaged: Sequence[str],
    total: int,
) -> dict[str, Any]:
    """Give a verification's result as JSON."""
    return {
        "commits": [one.record.seq for one in checkpoints],
        "bytes": total,
        "wrong_chunks": [asdict(chunk) for chunk in wrong],
        "damaged": list(damaged),
    }


def difference_lines(first: Checkpoint, second: Checkpoint, found: Difference) -> Iterator[str]:
    """Say what differs."""
    yield f"step {first.record.step} -> step {second.record.step}"
    kinds = (("changed", found.changed), ("added", found.added), ("removed", found.removed))
    for kind, names in kinds:
        for name in names[:LISTED]:
            note = " (another dtype or shape)" if name in found.reshaped else ""
            yield f"  {kind:<8} {name}{note}"
        if len(names) > LISTED:
            yield f"  {kind:<8} ... and {len(names) - LISTED} more (all of them: --json)"
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds)
    yield f"tensors: {found.equal} equal, {counts}"
    yield (
        f"bytes: {size(found.shared_bytes)} shared, {size(found.only_first_bytes)} only in the "
        f"first, {size(found.only_second_bytes)} only in the second"
    )


def report_lines(report: SweepReport, *, dry_run: bool) -> Iterator[str]:
    """Say what a sweep deleted, or would delete."""
    for why in report.refused:
        yield f"refused: {why}"
    kinds: dict[str, list[int]] = {}
    for item in report.deleted:
        kind = item.key.split("/")[0 if item.key.startswith("chunks/") else 2]
        kinds.setdefault(kind, []).append(item.length)
    for kind, lengths in sorted(kinds.items()):
        yield f"  {kind:<10} {len(lengths):>6,}  {size(sum(lengths)):>10}"
    if report.waiting:
        waits = f"{counted(len(report.waiting), 'chunk')}, {size(waiting_bytes(report))}"
        yield f"  younger than the grace period, deleted later: {waits}"
    does = "would delete" if dry_run else "deleted"
    freed = f"{does} {counted(len(report.deleted), 'object')}, {size(report.freed_bytes)}"
    aborted = report.abandoned_uploads
    yield freed + (f"; aborted {counted(aborted, 'unfinished upload')}" if aborted else "")


def waiting_bytes(report: SweepReport) -> int:
    """Bytes of the garbage that is too young to go."""
    return sum(item.length for item in report.waiting)


def report_json(report: SweepReport, *, dry_run: bool) -> dict[str, Any]:
    """Give a sweep's report as JSON."""
    return {
        "dry_run": dry_run,
        "deleted": [{"key": item.key, "bytes": item.length} for item in report.deleted],
        "freed_bytes": report.freed_bytes,
        "refused": list(report.refused),
        "waiting_bytes": waiting_bytes(report),
        "abandoned_uploads": report.abandoned_uploads,
    }


@contextmanager
def bar(label: str, *, total: int, hidden: bool, unit: str = "bytes") -> Iterator[Tell]:
    """Show progress on standard error while the block runs, if somebody can see it."""
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn

    done = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    out = console(stderr=True)
    columns = (TextColumn(label), BarColumn(), done)
    with Progress(
        *columns, console=out, transient=True, disable=hidden or not out.is_terminal
    ) as progress:
        task = progress.add_task(label, total=total)

        def tell(count: int, *, absolute: bool = False) -> None:
            if absolute:
                progress.update(task, completed=count)
            else:
                progress.advance(task, count)

        yield tell


def _values(found: Checkpoint) -> Iterator[tuple[int, str, TensorEntry | None, object]]:
    from checkpointing.catalog_tree import leaves

    for manifest in found.manifests:
        for leaf in leaves(manifest.tree):
            yield manifest.rank, leaf.name, _entry(manifest, leaf.tensor), leaf.value


def _entry(manifest: Manifest, number: int | None) -> TensorEntry | None:
    return None if number is None else manifest.tensors[number]


def _entry_json(entry: TensorEntry) -> dict[str, Any]:
    made: dict[str, Any] = {
        "dtype": entry.dtype,
        "shape": list(entry.shape),
        "bytes": sum(part.length for part in entry.parts),
    }
    if entry.shard is not None:
        made["shard"] = asdict(entry.shard)
    return made


def _shape(entry: TensorEntry) -> str:
    mine = "x".join(str(size) for size in entry.shape) or "scalar"
    if entry.shard is None:
        return mine
    return f"{mine} of {'x'.join(str(size) for size in entry.shard.shape)}"


def _short(text: str) -> str:
    limit = 60
    return text if len(text) <= limit else f"{text[:limit]}..."
