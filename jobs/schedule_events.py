"""What happens to schedules: a part of the journal's events (``jobs.events``).

Each event carries the next occurrence, so folding the journal needs no calendar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.recurrence import Outcome, ScheduleSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleMade:
    """A user asked for a job to be submitted again and again."""

    kind: Literal["schedule-made"] = "schedule-made"
    at_us: int
    schedule_id: str
    spec: ScheduleSpec
    owner: str
    next_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleHeld:
    """Its owner paused (``held``) or resumed it."""

    kind: Literal["schedule-held"] = "schedule-held"
    at_us: int
    schedule_id: str
    held: bool
    next_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRemoved:
    """It occurs no more; jobs of earlier occurrences go on."""

    kind: Literal["schedule-removed"] = "schedule-removed"
    at_us: int
    schedule_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OccurrenceDue:
    """An occurrence came: its jobs were submitted, or why not."""

    kind: Literal["occurrence-due"] = "occurrence-due"
    at_us: int
    schedule_id: str
    due_us: int
    outcome: Outcome
    sentence: str
    next_us: int | None
    job_ids: tuple[str, ...] = ()
    missed: int = 0  # occurrences before it that nobody was there for


ScheduleEvent = ScheduleMade | ScheduleHeld | ScheduleRemoved | OccurrenceDue
