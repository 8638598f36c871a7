"""Simulated attempts: set-up, restore, training at rate 1, saves, and every way to end.

One step is one millisecond of useful work, so ``total_steps`` is the job's ``work`` in
milliseconds. Saves follow ``spec.checkpoint_interval``:

- 0: saved continuously. Whatever ends the attempt finds everything saved, at no cost;
- more: training stops for ``spec.save`` after each interval of useful work;
- absent: the rule of real trainings (``checkpointing.cadence``) with what the scheduler said of
  evictions and notice, each stretch of training anew; requests are free in this world. A save that
  costs nothing is made continuously.

A drain saves and leaves at once. The cloud's notice is used up: training goes on if the rest of
the work fits into it, or if saving is free; else it saves at once if that fits, else it is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from checkpointing.cadence import Cadence, interval_us, is_due
from checkpointing.hazard_posterior import HazardPosterior, Risk
from cluster.intents import StartAttempt
from cluster.notices import (
    AttemptOver,
    Committed,
    Outcome,
    RestoreBegan,
    TrainingBegan,
    WorkersUp,
)
from cluster.sim_world import Agenda, Outbox
from jobs.durations import US_PER_MS
from jobs.spec import JobSpec, Market

_CALM = Risk(exposure_ms=10_000 * 3_600_000)
"""One failure of a node that nobody takes back every 10,000 hours, where nobody said better."""
_BYTES_PER_GB = 10**9
_EXIT_CODES = {Outcome.SUCCEEDED: 0, Outcome.FAILED: 1}


class Phase(Enum):
    """What the processes of an attempt do now."""

    SETUP = auto()
    RESTORE = auto()
    TRAIN = auto()
    SAVE = auto()


@dataclass(slots=True)
class Attempt:
    """A living attempt. ``done_us`` of useful work were done when the phase began."""

    start: StartAttempt
    risk: Risk
    begun_us: int
    cadence: Cadence  # of the present stretch of training
    phase: Phase
    since_us: int
    done_us: int
    saved_us: int
    turn: int = 0  # grows with each phase: events set before are void
    drain_until_us: int | None = None

    @property
    def continuous(self) -> bool:
        """Whether it is always saved, at no cost."""
        interval, save = self.start.spec.checkpoint_interval, self.start.spec.save
        return interval == 0 or (interval is None and not save)

    @property
    def save_us(self) -> int:
        """What a save costs."""
        return 0 if self.continuous else self.start.spec.save * US_PER_MS

    @property
    def total_us(self) -> int:
        """The whole useful work."""
        return (self.start.spec.work or 0) * US_PER_MS

    def progress_us(self, at_us: int) -> int:
        """Useful work done by then."""
        return self.done_us + (at_us - self.since_us if self.phase is Phase.TRAIN else 0)

    def rest_us(self, at_us: int) -> int:
        """Useful work still to be done then."""
        return max(0, self.total_us - self.progress_us(at_us))


class TrainingFloor:
    """All living attempts of the simulated world."""

    def __init__(self, agenda: Agenda, outbox: Outbox) -> None:
        """Set events on ``agenda`` and tell ``outbox``."""
        self._agenda = agenda
        self._outbox = outbox
        self._attempts: dict[str, Attempt] = {}

    def on_node(self, node_id: str) -> list[str]:
        """Give the attempts that have a worker on a node, oldest first."""
        return [
            attempt_id
            for attempt_id, attempt in self._attempts.items()
            if node_id in attempt.start.node_ids
        ]

    @property
    def living(self) -> tuple[str, ...]:
        """The attempts that are not over, oldest first."""
        return tuple(self._attempts)

    def begin(self, start: StartAttempt, *, market: Market, at_us: int) -> None:
        """Start the gang's workers; set-up begins at once."""
        done_us = start.step * US_PER_MS
        risk = start.risk or (Risk() if market is Market.SPOT else _CALM)
        attempt = Attempt(
            start=start,
            risk=risk,
            begun_us=at_us,
            cadence=cadence(start.spec, risk=risk, lived_us=0),
            phase=Phase.SETUP,
            since_us=at_us,
            done_us=done_us,
            saved_us=done_us,
        )
        self._attempts[start.attempt_id] = attempt
        self._outbox.post(WorkersUp(id="", at_us=at_us, attempt_id=start.attempt_id))
        self._enter(attempt, Phase.SETUP, at_us=at_us)

    def drain(self, attempt_id: str, *, until_us: int, by_cloud: bool, at_us: int) -> None:
        """Make an attempt save and leave before ``until_us``; see the module docstring."""
        attempt = self._attempts.get(attempt_id)
        if attempt is None:
            self._say_over(attempt_id, Outcome.DRAINED, at_us=at_us)
            return
        if attempt.drain_until_us is not None and attempt.drain_until_us <= until_us:
            return
        attempt.drain_until_us = until_us
        if attempt.phase in {Phase.SETUP, Phase.RESTORE}:
            self.leave(attempt_id, Outcome.DRAINED, at_us=at_us)
        elif attempt.phase is Phase.SAVE:
            if attempt.since_us + attempt.save_us > until_us and not by_cloud:
                self.leave(attempt_id, Outcome.DRAINED, at_us=at_us)
        else:
            self._drain_training(attempt, by_cloud=by_cloud, at_us=at_us)

    def leave(self, attempt_id: str, outcome: Outcome, *, at_us: int) -> None:
        """End an attempt now; one that saves continuously has saved (unless it is stopped)."""
        attempt = self._attempts.pop(attempt_id, None)
        if attempt is not None and outcome not in {Outcome.STOPPED, Outcome.SUCCEEDED}:
            saving = attempt.continuous and attempt.phase is Phase.TRAIN
            if saving and attempt.progress_us(at_us) > attempt.saved_us:
                self._commit(attempt, step_us=attempt.progress_us(at_us), at_us=at_us)
        self._say_over(attempt_id, outcome, at_us=at_us)

    # -- phases ---------------------------------------------------------------------------

    def _enter(self, attempt: Attempt, phase: Phase, *, at_us: int) -> None:
        """Begin a phase and set its end."""
        attempt.done_us = attempt.progress_us(at_us)
        attempt.phase, attempt.since_us = phase, at_us
        attempt.turn += 1
        spec = attempt.start.spec
        if phase is Phase.SETUP:
            self._end_phase_at(attempt, at_us + spec.setup * US_PER_MS)
        elif phase is Phase.RESTORE:
            self._end_phase_at(attempt, at_us + spec.restore * US_PER_MS)
        elif phase is Phase.SAVE:
            self._end_phase_at(attempt, at_us + attempt.save_us)
        else:
            attempt.cadence = cadence(spec, risk=attempt.risk, lived_us=at_us - attempt.begun_us)
            self._end_phase_at(attempt, at_us + _stretch_us(attempt))

    def _end_phase_at(self, attempt: Attempt, at_us: int) -> None:
        turn = attempt.turn

        def end(due_us: int) -> None:
            if self._attempts.get(attempt.start.attempt_id) is attempt and attempt.turn == turn:
                self._phase_ended(attempt, at_us=due_us)

        self._agenda.at(at_us, end)

    def _phase_ended(self, attempt: Attempt, *, at_us: int) -> None:
        start = attempt.start
        if attempt.phase is Phase.SETUP and start.epoch > 1 and start.spec.restore:
            self._outbox.post(
                RestoreBegan(id="", at_us=at_us, attempt_id=start.attempt_id, step=start.step)
            )
            self._enter(attempt, Phase.RESTORE, at_us=at_us)
        elif attempt.phase in {Phase.SETUP, Phase.RESTORE}:
            self._say_training(attempt, at_us=at_us)
            self._enter(attempt, Phase.TRAIN, at_us=at_us)
        elif attempt.phase is Phase.TRAIN:
            self._training_ended(attempt, at_us=at_us)
        else:
            self._saved(attempt, at_us=at_us)

    def _training_ended(self, attempt: Attempt, *, at_us: int) -> None:
        if attempt.rest_us(at_us) == 0:
            self.leave(attempt.start.attempt_id, Outcome.SUCCEEDED, at_us=at_us)
        elif not attempt.continuous:
            self._enter(attempt, Phase.SAVE, at_us=at_us)
        else:  # the end of a notice that it could use up
            self.leave(attempt.start.attempt_id, Outcome.DRAINED, at_us=at_us)

    def _saved(self, attempt: Attempt, *, at_us: int) -> None:
        self._commit(attempt, step_us=attempt.done_us, at_us=at_us)
        attempt.saved_us = attempt.done_us
        if attempt.drain_until_us is not None:
            self.leave(attempt.start.attempt_id, Outcome.DRAINED, at_us=at_us)
        else:
            self._enter(attempt, Phase.TRAIN, at_us=at_us)

    def _drain_training(self, attempt: Attempt, *, by_cloud: bool, at_us: int) -> None:
        until_us = attempt.drain_until_us
        assert until_us is not None, f"draining without an end: {attempt!r}"
        attempt_id = attempt.start.attempt_id
        patience_us = until_us - at_us if by_cloud else min(attempt.save_us, until_us - at_us)
        if attempt.rest_us(at_us) <= patience_us or (by_cloud and attempt.continuous):
            self._enter(attempt, Phase.TRAIN, at_us=at_us)
        elif not attempt.continuous and at_us + attempt.save_us <= until_us:
            self._enter(attempt, Phase.SAVE, at_us=at_us)
        elif not by_cloud:
            self.leave(attempt_id, Outcome.DRAINED, at_us=at_us)

    # -- news -----------------------------------------------------------------------------

    def _say_training(self, attempt: Attempt, *, at_us: int) -> None:
        self._outbox.post(
            TrainingBegan(
                id="",
                at_us=at_us,
                attempt_id=attempt.start.attempt_id,
                step=attempt.start.step,
                total_steps=attempt.total_us // US_PER_MS,
            )
        )

    def _commit(self, attempt: Attempt, *, step_us: int, at_us: int) -> None:
        size = int(attempt.start.spec.checkpoint_gb * _BYTES_PER_GB)
        self._outbox.post(
            Committed(
                id="",
                at_us=at_us,
                attempt_id=attempt.start.attempt_id,
                step=step_us // US_PER_MS,
                snapshot_us=at_us - attempt.save_us,
                stall_us=attempt.save_us,
                size_bytes=size,
                new_bytes=size,
                manifest="",
            )
        )

    def _say_over(self, attempt_id: str, outcome: Outcome, *, at_us: int) -> None:
        code = _EXIT_CODES.get(outcome)
        self._outbox.post(
            AttemptOver(id="", at_us=at_us, attempt_id=attempt_id, outcome=outcome, exit_code=code)
        )


def _stretch_us(attempt: Attempt) -> int:
    """How long training goes on from the start of the phase: to a save, the end, the grace's."""
    rest_us = attempt.rest_us(attempt.since_us)
    if attempt.drain_until_us is not None:
        return min(rest_us, max(0, attempt.drain_until_us - attempt.since_us))
    if attempt.continuous:
        return rest_us
    unsaved_us = attempt.done_us - attempt.saved_us
    stretch_us = min(rest_us, max(0, interval_us(attempt.cadence) - unsaved_us))
    due = is_due(attempt.cadence, unsaved_us=unsaved_us + stretch_us, rest_us=rest_us - stretch_us)
    return stretch_us if due else rest_us


def cadence(spec: JobSpec, *, risk: Risk, lived_us: int) -> Cadence:
    """Give the inputs of the rule of an attempt that has lived for so long.

    In this world a save's duration is known, and all of it is stall: it fits a notice or not.
    """
    save_us = spec.save * US_PER_MS
    fits = save_us <= risk.notice_ms * US_PER_MS
    return Cadence(
        interval_us=(spec.checkpoint_interval or 0) * US_PER_MS,
        hazard_ppb_per_s=HazardPosterior.of(risk).lived(lived_us).hazard_ppb_per_s,
        notice_ppm=risk.noticed_ppm if fits else 0,
        cost_us=save_us,
    )
