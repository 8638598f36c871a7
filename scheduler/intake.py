"""From what was asked for to the jobs that are made: arrays, names, dependencies, all or nothing.

A submit may hold several jobs that name each other in ``after``. Everything is checked before the
first event exists, so what is wrong with one element leaves nothing behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from jobs import events as ev
from jobs.arrays import element_id, elements, members
from jobs.errors import ConflictError, DependencyError, SpecError, UnknownSubjectError
from jobs.fold import apply
from jobs.rows import JobRow
from jobs.spec import JobSpec
from jobs.state import State
from jobs.states import JobState
from jobs.wants import MAX_ELEMENTS, After, ArrayPlace, OnFailure, When
from scheduler.commands import Submit, SubmitAll
from scheduler.ids import IdSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One specification of a submit and the id that its job (or array) gets."""

    id: str
    spec: JobSpec
    after: tuple[str, ...] = field(default=())  # ids of the same submit that it comes after


def as_group(command: Submit | SubmitAll) -> SubmitAll:
    """Give a submit of one as a submit of several."""
    if isinstance(command, SubmitAll):
        return command
    return SubmitAll(
        specs=(command.spec,),
        owner=command.owner,
        idempotency_key=command.idempotency_key,
        dry_run=command.dry_run,
    )


def read(command: SubmitAll, *, jobs: Mapping[str, JobRow], ids: IdSource) -> list[Asked]:
    """Give ids to the specifications of a submit, with predecessors by id.

    Raises:
        SpecError: there are too many jobs, or none; two that are named have one name.
        DependencyError: they wait for each other in a circle.
        UnknownSubjectError: a predecessor is neither in the submit nor known.
        ConflictError: a predecessor has failed already, so that the job would never start.
    """
    size = sum(spec.array.size if spec.array else 1 for spec in command.specs)
    if not 1 <= size <= MAX_ELEMENTS:
        raise SpecError(
            f"One submit holds {size} jobs; it may hold 1 to {MAX_ELEMENTS}.",
            remedy="Split it into several submits.",
        )
    made = [Asked(id=ids.new(slug(spec)), spec=spec) for spec in command.specs]
    names = _names(made)
    resolved = [_resolved(one, names, jobs) for one in made]
    _check_acyclic(resolved)
    return resolved


def submissions(
    asked: Iterable[Asked], command: SubmitAll, *, now_us: int, from_us: int | None = None
) -> Iterator[ev.JobSubmitted]:
    """Give the events that accept the jobs; the first carries the idempotency key.

    Deadlines that are durations count from ``from_us`` (default: now).

    Raises:
        SpecError: an element of an array would not be a valid job.
    """
    listed = list(asked)
    key = command.idempotency_key
    group = tuple(one.id for one in listed) if len(listed) > 1 else ()
    for job_id, place, spec in _single(listed):
        yield ev.JobSubmitted(
            at_us=now_us,
            job_id=job_id,
            spec=spec,
            owner=command.owner,
            deadline_us=spec.deadline_us(submitted_us=now_us if from_us is None else from_us),
            idempotency_key=key,
            array=place,
            group=group,
        )
        key, group = "", ()


def rows_of(events: Iterable[ev.JobSubmitted]) -> list[JobRow]:
    """Give the rows that events would make."""
    trial = State()
    for seq, event in enumerate(events, start=1):
        apply(trial, ev.Record(seq=seq, subject=event.job_id, event=event, cause="trial"))
    return list(trial.jobs.values())


def submitted_with(first: JobRow, jobs: Mapping[str, JobRow]) -> list[str]:
    """Give the ids of all jobs of the submit whose first job this is."""
    names = first.group or (first.array.id if first.array else first.id,)
    return [row.id for name in names for row in members(jobs, name)]


def slug(spec: JobSpec) -> str:
    """Give the readable beginning of a job's id."""
    made = re.sub(r"[^a-z0-9]+", "-", spec.label.lower()).strip("-")
    return made[:24].rstrip("-") or "job"


def _single(asked: Iterable[Asked]) -> Iterator[tuple[str, ArrayPlace | None, JobSpec]]:
    for one in asked:
        if one.spec.array is None:
            yield one.id, None, one.spec
            continue
        for place, spec in elements(one.spec, array_id=one.id):
            yield element_id(one.id, place.index), place, spec


def _names(made: Iterable[Asked]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for one in made:
        names.setdefault(one.spec.label, []).append(one.id)
    return names


def _resolved(one: Asked, names: Mapping[str, list[str]], jobs: Mapping[str, JobRow]) -> Asked:
    after: list[After] = []
    inside: list[str] = []
    for before in one.spec.after:
        ids = names.get(before.job, [])
        if len(ids) > 1:
            raise SpecError(
                f"'{one.spec.label}' comes after '{before.job}', but two jobs are called that.",
                remedy="Give each a name of its own.",
            )
        if not ids:
            _check_known(one, before, jobs)
        inside += ids
        after.append(before.model_copy(update={"job": ids[0]}) if ids else before)
    spec = one.spec.model_copy(update={"after": tuple(after)})
    return Asked(id=one.id, spec=spec, after=tuple(inside))


def _check_known(one: Asked, before: After, jobs: Mapping[str, JobRow]) -> None:
    rows = members(jobs, before.job)
    if not rows:
        raise UnknownSubjectError(
            f"'{one.spec.label}' comes after '{before.job}', which is no job.",
            remedy="Name a job's id (`lowtide ls`), or the name of a job of the same submit.",
        )
    must = before.when is When.SUCCEEDED and one.spec.on_failure is OnFailure.CANCEL
    for row in rows:
        if must and row.ended and row.state is not JobState.SUCCEEDED:
            raise ConflictError(
                f"'{one.spec.label}' comes after {row.id}, which is {row.state}: it would never "
                "start.",
                remedy=f"Submit {row.id} again first, or write `after: {row.id}:ended`.",
            )


def _check_acyclic(asked: Iterable[Asked]) -> None:
    listed = list(asked)
    labels = {one.id: one.spec.label for one in listed}
    try:
        TopologicalSorter({one.id: one.after for one in listed}).prepare()
    except CycleError as error:
        circle = " -> ".join(labels[job_id] for job_id in reversed(error.args[1]))
        raise DependencyError(
            f"The jobs wait for each other in a circle: {circle}.",
            remedy="Take one of these out of an `after`.",
        ) from error
