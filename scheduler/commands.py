"""What people ask of the controller, and the mailbox that carries it into the next tick."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from cluster.inbox import Inbox
from jobs.budget import BudgetChanges
from jobs.quotes import Quoted
from jobs.recurrence import ScheduleSpec
from jobs.spec import JobSpec
from scheduler.windows import PriceWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Accept a job. With ``dry_run`` it is only checked; the answer is the row it would get."""

    spec: JobSpec
    owner: str = ""
    idempotency_key: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitAll:
    """Accept jobs and arrays that may name each other, all or none; the answer is their rows.

    An array is one specification here and a row for each of its elements in the answer.
    """

    specs: tuple[JobSpec, ...]
    owner: str = ""
    idempotency_key: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """End a job, or every element of an array; a live attempt is stopped without a save."""

    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Hold a job, or every element of an array; a live attempt saves and leaves."""

    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Let a held job, or every element of an array, go on."""

    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evict:
    """A game day: a real eviction of a node with this notice (0 = none)."""

    node_id: str
    notice_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cordon:
    """Keep new attempts away from a node, or let them back."""

    node_id: str
    cordoned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepQuote:
    """Keep what a job was quoted at its submission; the first one counts."""

    job_id: str
    quoted: Quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyBudgets:
    """Make, change and remove budgets, all or none; the answer says what that does (plain data).

    With ``dry_run`` the answer is all that happens.
    """

    changes: BudgetChanges
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyWindows:
    """Let these price windows hold instead of the present ones; ``text`` is their file."""

    windows: tuple[PriceWindow, ...]
    text: str
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSchedule:
    """Submit a job again and again. With ``dry_run`` it is only checked."""

    spec: ScheduleSpec
    owner: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSchedule:
    """Let a schedule pause, or go on."""

    schedule_id: str
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSchedule:
    """End a schedule; jobs of earlier occurrences go on."""

    schedule_id: str


ScheduleCommand = MakeSchedule | HoldSchedule | RemoveSchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Barrier:
    """Nothing but the promise that all that was posted before is committed."""


Command = (
    Submit
    | SubmitAll
    | Cancel
    | Pause
    | Resume
    | Evict
    | Cordon
    | KeepQuote
    | ApplyBudgets
    | ApplyWindows
    | ScheduleCommand
    | Barrier
)


class Mailbox:
    """Commands on their way to the loop. Safe from any thread."""

    def __init__(self, inbox: Inbox) -> None:
        """Wake the loop through ``inbox``."""
        self._inbox = inbox
        self._waiting: deque[tuple[Command, Future[Any]]] = deque()

    def call(self, command: Command) -> Future[Any]:
        """Ask for a command.

        Returns:
            A future that is resolved after the tick that committed it: with the ``JobRow`` (a
            list of them for ``SubmitAll`` and for an array) or ``NodeRow`` (None for a barrier), or
            with the ``LowtideError`` that refused it.
        """
        future: Future[Any] = Future()
        self._waiting.append((command, future))
        self._inbox.wake()
        return future

    def drain(self) -> list[tuple[Command, Future[Any]]]:
        """Take all waiting commands in the order in which they came."""
        taken = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        return taken
