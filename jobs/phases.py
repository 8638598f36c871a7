"""How long an attempt took from the death before it to new work, phase by phase. Pure.

detect      the first sign of the old attempt's death -> its end is known
place       its end is known -> the new attempt has a lease
boot        lease -> nodes and workers are up
start       workers are up -> the training process runs
import      the process runs -> its imports are done
restore     imports are done -> the first step begins
recompute   first step -> the step that the old attempt had reached

A phase whose ends were not both observed is left out; none is negative, though clocks differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from jobs.rows import AttemptRow
from jobs.states import AttemptState

PHASES = ("detect", "place", "boot", "start", "import", "restore", "recompute")
_TAKEN = frozenset({AttemptState.LOST, AttemptState.EVICTED, AttemptState.PREEMPTED})


def restart_phases(row: AttemptRow, *, before: AttemptRow | None) -> dict[str, int]:
    """Give the durations in microseconds, by name; ``before`` is the attempt before it."""
    taken = before is not None and before.state in _TAKEN
    instants = (
        before.silent_us if before is not None and taken else None,
        before.ended_us if before is not None and taken else None,
        row.created_us,
        row.started_us,
        row.process_us,
        row.opened_us,
        row.training_us,
        row.caught_up_us,
    )
    return {
        name: max(0, until - since)
        for name, (since, until) in zip(PHASES, pairwise(instants), strict=True)
        if since is not None and until is not None
    }


def phases_by_attempt(attempts: Sequence[AttemptRow]) -> dict[str, dict[str, int]]:
    """Give the phases of each attempt of one job, by its id; oldest attempt first."""
    befores = (None, *attempts)
    return {
        row.id: restart_phases(row, before=before)
        for row, before in zip(attempts, befores, strict=False)  # nobody comes after the last
    }
