"""Jobs and attempts as tables and lines for people. Pure: the instant is handed in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.durations import US_PER_S
from jobs.phases import phases_by_attempt
from jobs.reasons import HELP
from jobs.rows import AttemptRow, JobRow
from jobs.states import JOB_ENDS, AttemptState, JobState
from scheduler.cli.formats import NONE, counted, gpus, instant, span
from scheduler.cli.output import add_row, table

if TYPE_CHECKING:
    from rich.table import Table

STYLE = {
    JobState.QUEUED: "yellow",
    JobState.ADMITTED: "cyan",
    JobState.RUNNING: "blue",
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "dim",
}


def jobs_table(
    rows: Sequence[JobRow], *, now_us: int, arrays: Mapping[str, Mapping[str, int]] | None = None
) -> Table:
    """Put jobs into a table, one line each.

    Args:
        rows: the jobs; of an array that is one line, its first element.
        now_us: the instant of "now".
        arrays: how many elements of each such array are in which state.
    """
    made = table(
        *("id", "name", "team", "state", "reason", "progress"),
        *("attempts", "evictions", "wait", "slack"),
        right=("progress", "attempts", "evictions", "wait", "slack"),
    )
    for row in rows:
        counts = (arrays or {}).get(row.array.id) if row.array else None
        if counts is not None:
            _add_array(made, row, counts, now_us=now_us)
            continue
        add_row(
            made,
            row.id,
            row.spec.label,
            row.spec.team,
            (str(row.state), STYLE[row.state]),
            str(row.reason),
            progress(row),
            str(row.attempts),
            str(row.evictions),
            span(wait_ms(row, now_us=now_us)),
            span(slack_ms(row, now_us=now_us)),
        )
    return made


def _add_array(made: Table, first: JobRow, counts: Mapping[str, int], *, now_us: int) -> None:
    place = first.array
    assert place is not None, f"not an element: {first.id}"
    shown = ", ".join(f"{counts[state]} {state}" for state in JobState if state in counts)
    over = sum(counts.get(state, 0) for state in JOB_ENDS)
    add_row(
        made,
        place.id,
        f"{first.spec.label.removesuffix('-0')} [{place.size}]",
        first.spec.team,
        shown,
        NONE,
        f"{100 * over // place.size} %",
        *(NONE, NONE, NONE),
        span(slack_ms(first, now_us=now_us)) if first.ended_us is None else NONE,
    )


def attempts_table(rows: Sequence[AttemptRow], *, now_us: int) -> Table:
    """Put a job's attempts into a table, oldest first."""
    made = table(
        *("attempt", "state", "reason", "flavor", "nodes"),
        *("steps", "began", "lasted", "saves", "detail"),
        right=("steps", "lasted", "saves"),
    )
    for row in rows:
        add_row(
            made,
            str(row.number),
            str(row.state),
            str(row.reason),
            row.flavor,
            ", ".join(row.node_ids),
            f"{row.first_step}-{row.step}",
            instant(row.created_us),
            span(((row.ended_us or now_us) - row.created_us) // 1_000),
            str(row.saves),
            row.detail,
        )
    return made


def start_lines(rows: Sequence[AttemptRow]) -> Iterator[str]:
    """Say what the start of each attempt took, phase by phase, oldest attempt first."""
    for row, phases in zip(rows, phases_by_attempt(rows).values(), strict=True):
        if phases:
            parts = ", ".join(f"{name} {us / US_PER_S:.2f}" for name, us in phases.items())
            how = " (stood ready)" if row.standby else ""
            total = sum(phases.values()) / US_PER_S
            yield f"start of attempt {row.number}{how}: {total:.2f} s: {parts}"


def job_lines(
    row: JobRow, *, attempts: Sequence[AttemptRow], now_us: int
) -> Iterator[tuple[str, str]]:
    """Describe a job as pairs of label and text."""
    yield "job", f"{row.id} ({row.spec.label}), team {row.spec.team}"
    yield "state", f"{row.state}: {row.reason} ({HELP[row.reason]})"
    if row.sentence:
        yield "", row.sentence
    yield "wants", wants(row)
    yield "progress", progress(row, long=True)
    yield "submitted", instant(row.submitted_us)
    yield "waited", span(wait_ms(row, now_us=now_us))
    if row.deadline_us is not None:
        yield "deadline", _deadline(row, now_us=now_us)
    if row.ended_us is not None:
        yield "ended", instant(row.ended_us)
    yield "restore point", restore_point(row, now_us=now_us)
    yield "attempts", _counts(row)
    if row.last_error:
        yield "last error", row.last_error
    if row.spec.after:
        yield "comes after", ", ".join(f"{one.job} ({one.when})" for one in row.spec.after)
    if row.array is not None:
        yield "array", f"element {row.array.index} of {row.array.size} of {row.array.id}"
    yield "next", next_step(row, attempts=attempts)


def wants(row: JobRow) -> str:
    """Say what capacity a job asks for."""
    spec = row.spec
    each = f"{gpus(spec.gpu_milli)} GPU, {spec.cpus} CPU"
    parts = [each if spec.nodes == 1 else f"{spec.nodes} nodes with {each} each"]
    parts += [", ".join(some) for some in (spec.markets, spec.accelerators, spec.regions) if some]
    if spec.budget_usd is not None:
        parts.append(f"at most ${spec.budget_usd}")
    return "; ".join(parts)


def progress(row: JobRow, *, long: bool = False) -> str:
    """Say how far a job is: a share, or the step alone when the total is not known."""
    if row.total_steps:
        share = f"{100 * row.step // row.total_steps} %"
        return f"step {row.step} of {row.total_steps} ({share})" if long else share
    return f"step {row.step}" if row.step else NONE


def wait_ms(row: JobRow, *, now_us: int) -> int:
    """Give the time spent in the queue, the present stay included."""
    here_us = now_us - row.queued_us if row.state is JobState.QUEUED else 0
    return row.waited_ms + max(0, here_us) // 1_000


def slack_ms(row: JobRow, *, now_us: int) -> int | None:
    """Give deadline - now - remaining work; at the end, by how much the deadline was met."""
    if row.deadline_us is None:
        return None
    if row.ended_us is not None:
        return (row.deadline_us - row.ended_us) // 1_000
    step = row.step if row.state is JobState.RUNNING else None
    return (row.deadline_us - now_us) // 1_000 - row.remaining_ms(step=step)


def _deadline(row: JobRow, *, now_us: int) -> str:
    slack = slack_ms(row, now_us=now_us) or 0
    if row.ended:
        met = f"met with {span(slack)} to spare" if slack >= 0 else f"missed by {span(-slack)}"
        return f"{instant(row.deadline_us)}, {met}"
    return f"{instant(row.deadline_us)}, slack {span(slack)}"


def restore_point(row: JobRow, *, now_us: int) -> str:
    """Say where the next attempt would begin."""
    point = row.restore_point
    if point is None:
        running = row.state is JobState.RUNNING
        return "none yet: an eviction now would lose everything so far" if running else "none"
    return f"step {point.step}, saved {span((now_us - point.committed_us) // 1_000)} ago"


def _counts(row: JobRow) -> str:
    return (
        f"{row.attempts}; {counted(row.evictions, 'eviction')}, "
        f"{counted(row.preemptions, 'preemption')}, {counted(row.failures, 'failure')} "
        f"({row.spec.max_failures} allowed)"
    )


def next_step(row: JobRow, *, attempts: Sequence[AttemptRow]) -> str:
    """Say what will happen, or what the reader can do."""
    if row.cancel_requested and not row.ended:
        return "its attempt stops, then it is cancelled"
    if row.held:
        return f"it goes on when you say so: lowtide resume {row.id}"
    live = next((a for a in attempts if a.id == row.attempt_id), None)
    if live is not None and live.state is AttemptState.DRAINING:
        return f"it saves until {instant(live.drain_deadline_us)}, then it goes on elsewhere"
    return _next_by_state(row, where=_where(live))


def _next_by_state(row: JobRow, *, where: str) -> str:
    match row.state:
        case JobState.QUEUED:
            return f"it starts as soon as that changes: lowtide explain {row.id}"
        case JobState.ADMITTED:
            return f"its nodes get ready{where}"
        case JobState.RUNNING:
            return f"it trains{where}: lowtide logs -f {row.id}"
        case JobState.FAILED:
            return f"read why: lowtide logs {row.id}"
        case JobState.SUCCEEDED | JobState.CANCELLED:
            return f"what it cost: lowtide cost {row.id}"


def _where(attempt: AttemptRow | None) -> str:
    return f" on {', '.join(attempt.node_ids)} ({attempt.flavor})" if attempt else ""
