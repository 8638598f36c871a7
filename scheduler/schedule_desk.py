"""Schedules in the loop: what comes due becomes journaled events, and jobs.

A schedule's ``next_us`` is a wake-up of the plan; there is no timer beside it. So a simulation, or
a server that was away, goes through the same occurrences.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from itertools import islice
from typing import Any

from jobs import events as ev
from jobs import schedule_events as sev
from jobs.codec import to_data
from jobs.durations import US_PER_S, from_us
from jobs.errors import ConflictError, LowtideError, UnknownSubjectError
from jobs.recurrence import CatchUp, Outcome, Overlap, ScheduleRow, ScheduleSpec
from jobs.rows import JobRow
from jobs.spec import JobSpec
from jobs.state import State
from jobs.wants import After, When
from scheduler import commands as cmd
from scheduler import intake, recurring
from scheduler.feasibility import check_submit
from scheduler.ids import IdSource
from scheduler.sentences import show_instant
from scheduler.snapshot import Snapshot

LATE_US = 60 * US_PER_S
"""An occurrence that is taken up later than this was missed: no server was up."""
TAG = "lowtide-schedule"
MAX_SCHEDULES = 1_000
SHOWN = 5
"""Occurrences that are shown ahead."""
_MOST_COUNTED = 1_000
_SPANS_US = tuple(hours * 3_600 * US_PER_S for hours in (1, 24, 32 * 24, 400 * 24))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What becomes of an occurrence that is due."""

    outcome: Outcome
    sentence: str
    submitted: tuple[ev.JobSubmitted, ...] = ()
    cancels: tuple[JobRow, ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduleDesk:
    """Makes events of schedules; new ids come from ``ids``."""

    state: State
    ids: IdSource

    def next_due_us(self) -> int | None:
        """Give the first instant at which a schedule occurs."""
        times = (row.next_us for row in self.state.schedules.values() if not row.held)
        return min((at_us for at_us in times if at_us is not None), default=None)

    def due(self, seen: Snapshot) -> Iterator[ev.Event]:
        """Give the events of all occurrences up to the instant of a snapshot."""
        for row in list(self.state.schedules.values()):
            if row.next_us is not None and row.next_us <= seen.now_us and not row.held:
                yield from self._occurs(row, seen)

    def command(self, command: cmd.ScheduleCommand, *, now_us: int) -> Iterator[ev.Event]:
        """Give the events of a command about schedules, none when it changes nothing.

        Raises:
            SpecError: the schedule never occurs, or its cron expression is wrong.
            ConflictError: a schedule of that name exists, or there are too many.
            UnknownSubjectError: there is no such schedule.
        """
        if isinstance(command, cmd.MakeSchedule):
            yield self._made(command, now_us=now_us)
            return
        row = self._open(command.schedule_id)
        if isinstance(command, cmd.RemoveSchedule):
            yield sev.ScheduleRemoved(at_us=now_us, schedule_id=row.id)
        elif row.held != command.held:
            next_us = recurring.next_us(row.spec, now_us)
            yield sev.ScheduleHeld(
                at_us=now_us, schedule_id=row.id, held=command.held, next_us=next_us
            )

    def trial(self, spec: ScheduleSpec, *, now_us: int) -> ScheduleRow:
        """Give the row that a schedule would get.

        Raises:
            SpecError, ConflictError: as for the command.
        """
        self._check_new(spec)
        first_us = recurring.check(spec, now_us=now_us)
        return ScheduleRow(
            id=spec.name, spec=spec, owner="", made_us=now_us, changed_us=now_us, next_us=first_us
        )

    def _made(self, command: cmd.MakeSchedule, *, now_us: int) -> sev.ScheduleMade:
        self._check_new(command.spec)
        return sev.ScheduleMade(
            at_us=now_us,
            schedule_id=self.ids.new(command.spec.name),
            spec=command.spec,
            owner=command.owner,
            next_us=recurring.check(command.spec, now_us=now_us),
        )

    def _check_new(self, spec: ScheduleSpec) -> None:
        rows = [row for row in self.state.schedules.values() if row.removed_us is None]
        if len(rows) >= MAX_SCHEDULES:
            raise ConflictError(
                f"There are {len(rows)} schedules; there may be {MAX_SCHEDULES}.",
                remedy="Remove one: `lowtide schedules rm ID`.",
            )
        for row in rows:
            if row.spec.name == spec.name:
                raise ConflictError(
                    f"A schedule is called '{spec.name}' already: {row.id}.",
                    remedy=f"Remove it first (`lowtide schedules rm {row.id}`), or rename this.",
                )

    def _open(self, schedule_id: str) -> ScheduleRow:
        row = self.state.schedules.get(schedule_id)
        if row is None or row.removed_us is not None:
            raise UnknownSubjectError(
                f"There is no schedule '{schedule_id}'.", remedy="See `lowtide schedules ls`."
            )
        return row

    # -- occurrences ----------------------------------------------------------------------

    def _occurs(self, row: ScheduleRow, seen: Snapshot) -> Iterator[ev.Event]:
        """Take up the last occurrence that is due; those before it were missed."""
        assert row.next_us is not None, f"nothing is due: {row!r}"
        due_us, missed = _last_due(row, now_us=seen.now_us)
        verdict = self._verdict(row, due_us, seen)
        for job in verdict.cancels:
            yield ev.JobCancelRequested(at_us=seen.now_us, job_id=job.id)
        yield from verdict.submitted
        yield sev.OccurrenceDue(
            at_us=seen.now_us,
            schedule_id=row.id,
            due_us=due_us,
            outcome=verdict.outcome,
            sentence=verdict.sentence,
            next_us=recurring.next_us(row.spec, max(due_us, seen.now_us)),
            job_ids=tuple(one.job_id for one in verdict.submitted),
            missed=missed,
        )

    def _verdict(self, row: ScheduleRow, due_us: int, seen: Snapshot) -> _Verdict:
        late = seen.now_us - due_us > LATE_US
        if late and row.spec.catch_up is CatchUp.NONE:
            sentence = f"Missed {show_instant(due_us)}: no server was up then."
            return _Verdict(outcome=Outcome.MISSED, sentence=sentence)
        still = [job for job in map(self.state.jobs.__getitem__, row.job_ids) if not job.ended]
        overlap = row.spec.overlap
        waits = all(job.attempts == 0 for job in still)
        if still and (overlap is Overlap.SKIP or (overlap is Overlap.QUEUE and waits)):
            sentence = f"Skipped {show_instant(due_us)}: {still[0].id} is not over."
            return _Verdict(outcome=Outcome.SKIPPED, sentence=sentence)
        try:
            made = self._submitted(row, due_us, still, seen)
        except LowtideError as refusal:
            sentence = f"Refused at {show_instant(due_us)}: {refusal.cause}"
            return _Verdict(outcome=Outcome.REFUSED, sentence=sentence)
        gone = still if overlap is Overlap.REPLACE else []
        return _Verdict(
            outcome=Outcome.SUBMITTED,
            sentence=f"Submitted for {show_instant(due_us)}.",
            submitted=made,
            cancels=tuple(job for job in gone if not job.cancel_requested),
        )

    def _submitted(
        self, row: ScheduleRow, due_us: int, still: list[JobRow], seen: Snapshot
    ) -> tuple[ev.JobSubmitted, ...]:
        """Give the occurrence's jobs; they come after those of the last one that are not over."""
        spec = _of_occurrence(row, due_us, still)
        group = cmd.SubmitAll(specs=(spec,), owner=row.owner)
        asked = intake.read(group, jobs=self.state.jobs, ids=self.ids)
        events = intake.submissions(asked, group, now_us=seen.now_us, from_us=due_us)
        made = tuple(events)
        check_submit(intake.rows_of(made), snapshot=seen)
        return made


def _last_due(row: ScheduleRow, *, now_us: int) -> tuple[int, int]:
    """Give the last occurrence up to now, and how many before it nobody took up.

    After a very long absence the count stops at ``_MOST_COUNTED``.
    """
    assert row.next_us is not None, f"nothing is due: {row!r}"
    due = recurring.occurrences(row.spec, after_us=row.next_us - 1, until_us=now_us)
    listed = list(islice(due, _MOST_COUNTED))
    if len(listed) < _MOST_COUNTED:
        return listed[-1], len(listed) - 1
    for back_us in _SPANS_US:
        late = deque(
            recurring.occurrences(row.spec, after_us=now_us - back_us, until_us=now_us), maxlen=1
        )
        if late:
            return late[0], _MOST_COUNTED
    return listed[-1], _MOST_COUNTED


def schedule_view(row: ScheduleRow, *, now_us: int, ahead: int = SHOWN) -> dict[str, Any]:
    """Give a schedule as plain data with its next occurrences (none while it is held)."""
    shown: list[int] = []
    at_us = None if row.held else row.next_us
    while at_us is not None and len(shown) < ahead:
        shown.append(at_us)
        at_us = recurring.next_us(row.spec, max(at_us, now_us))
    return {"schedule": to_data(row), "next": shown}


def _of_occurrence(row: ScheduleRow, due_us: int, still: list[JobRow]) -> JobSpec:
    """Give the job of an occurrence, named with its instant."""
    at = from_us(due_us).astimezone(UTC)
    names = dict.fromkeys(job.array.id if job.array else job.id for job in still)
    return row.spec.job.model_copy(
        update={
            "name": f"{row.spec.name}-{at:%Y%m%dT%H%MZ}",
            "env": {**row.spec.job.env, "LOWTIDE_SCHEDULED_AT": at.isoformat()},
            "tags": {**row.spec.job.tags, TAG: row.id},
            "after": (
                *row.spec.job.after,
                *(After(job=name, when=When.ENDED) for name in names),
            ),
        }
    )
