"""A schedule: a job that is submitted again and again, by a cron expression in a time zone.

``scheduler.recurring`` works out the instants; here is what a user writes, and what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from jobs.durations import to_us
from jobs.spec import JobSpec, Name

_CRON_FIELDS = 5


class Overlap(StrEnum):
    """What happens when an occurrence is due and the one before it is not over."""

    SKIP = "skip"
    QUEUE = "queue"
    REPLACE = "replace"


class CatchUp(StrEnum):
    """What becomes of occurrences that came while no server was up."""

    ONE = "one"
    NONE = "none"


class Outcome(StrEnum):
    """What became of an occurrence."""

    SUBMITTED = "submitted"
    SKIPPED = "skipped"
    MISSED = "missed"
    REFUSED = "refused"


class ScheduleSpec(BaseModel):
    """When a job is submitted, and what an occurrence does when the last one is still on.

    ``job`` is submitted at each occurrence: its deadline counts from there, its budget is each
    occurrence's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(max_length=60)
    cron: str = Field(max_length=200, description="minute hour day-of-month month day-of-week")
    time_zone: str = Field(default="UTC", max_length=100)
    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.ONE
    starts: AwareDatetime | None = None
    ends: AwareDatetime | None = None
    job: JobSpec

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        fields = value.split()
        if len(fields) != _CRON_FIELDS:
            msg = f"a cron expression has {_CRON_FIELDS} fields, like '0 2 * * mon-fri'"
            raise ValueError(msg)
        return " ".join(fields)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            msg = f"there is no time zone '{value}'; write one like 'Europe/Berlin'"
            raise ValueError(msg) from error
        return value

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.starts is not None and self.ends is not None and self.ends <= self.starts:
            msg = "it ends before it starts"
            raise ValueError(msg)
        if isinstance(self.job.deadline, datetime):
            msg = "job.deadline must be a duration such as '6h': each occurrence has its own"
            raise ValueError(msg)  # noqa: TRY004 - pydantic turns ValueError into a field error
        return self

    @property
    def starts_us(self) -> int | None:
        """The first instant at which it may occur."""
        return None if self.starts is None else to_us(self.starts)

    @property
    def ends_us(self) -> int | None:
        """The last instant at which it may occur."""
        return None if self.ends is None else to_us(self.ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """A schedule now. ``next_us`` is the one truth about when it occurs next."""

    id: str
    spec: ScheduleSpec
    owner: str
    made_us: int
    changed_us: int
    next_us: int | None  # None = never again
    held: bool = False
    removed_us: int | None = None
    last_us: int | None = None  # of the last occurrence that was due
    last_outcome: Outcome | None = None
    sentence: str = ""
    job_ids: tuple[str, ...] = ()  # of the last occurrence that was submitted
    submitted: int = 0
    skipped: int = 0
    missed: int = 0
