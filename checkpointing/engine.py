"""The step loop of a session that saves: restore, train, save, drain, finish.

All ranks of a gang take the same turns: whatever one of them decides alone (a save is due, somebody
was asked to drain, a commit went through) is agreed upon at the step boundary before it is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

from checkpointing.archive import Archive
from checkpointing.clock import monotonic_us, now_us
from checkpointing.collection import collection_paused
from checkpointing.control import (
    DRAINED_EXIT_CODE,
    Committed,
    Drained,
    Finished,
    Restored,
    Restoring,
    SaveFailed,
    Saving,
    Step,
    Training,
)
from checkpointing.control_client import Control
from checkpointing.drain import DrainWatch
from checkpointing.errors import CheckpointError, FencedOut
from checkpointing.gang import Gang
from checkpointing.hazard_posterior import Risk
from checkpointing.notice_budget import MARGIN_US
from checkpointing.publish import Published
from checkpointing.restore import RestorePoint
from checkpointing.resume import resume
from checkpointing.saver import Saver, SaveReport
from checkpointing.state_tree import flatten
from checkpointing.subjects import Subjects

PROGRESS_EVERY_US: Final = 200_000
_FLUSH_S: Final = 2.0
_CLOSE_S: Final = 30.0
_HOPELESS_S: Final = 2.0
_FOREVER_US: Final = 2**62
_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Agreed:
    """What all ranks know at a step boundary."""

    save: bool
    budget_us: int | None
    committed: int
    fenced: bool


class Engine:
    """Runs one session's steps. `archive` and `saver` are None where nothing is to be saved."""

    def __init__(
        self,
        subjects: Subjects,
        *,
        gang: Gang,
        control: Control,
        archive: Archive | None,
        saver: Saver | None,
    ) -> None:
        """Nothing happens before `start`."""
        self.saver = saver
        self._subjects = subjects
        self._gang = gang
        self._control = control
        self._archive = archive
        self._watch = DrainWatch(control)
        self._restored: RestorePoint | None = None
        self.skipped: tuple[str, ...] = ()
        """Why newer commits were passed over at the start, one sentence each."""
        self._first = 0
        self._total = 0
        self._completed = 0
        self._saved = 0
        self._interval_ms: int | None = None
        self._risk: Risk | None = None
        self._hurries = 0
        self._failed: tuple[int, CheckpointError] | None = None
        self._committed = -1
        self._pending: int | None = None
        self._fenced: CheckpointError | None = None
        self._told_us = 0

    @property
    def restored_step(self) -> int:
        """Steps that the restore point had completed; 0 for a fresh start."""
        return self._first

    def start(self) -> None:
        """Claim the job, restore the newest commit that verifies on every rank."""
        flatten(self._subjects.capture(rank=self._gang.rank))  # refuse now, not at the first save
        if self._archive is None:
            return
        started_us = monotonic_us()
        found = resume(
            self._archive, gang=self._gang, tell=self._restoring, place=self._subjects.place
        )
        self.skipped = found.skipped
        if found.point is not None:
            self._take_up(found.point)
        self._control.send(
            Restored(
                step=self.restored_step,
                at_us=now_us(),
                bytes=0 if found.point is None else found.point.length,
                restore_us=monotonic_us() - started_us,
                skipped=found.skipped,
            )
        )

    def steps(self, total: int) -> Iterator[int]:
        """Yield the steps that remain, saving at their boundaries; end by draining or finishing."""
        first = self.begin(total)
        for step in range(first, total):
            yield step
            self.completed(step + 1)
        self.finish(max(first, total))

    def begin(self, total: int) -> int:
        """Set what must be exact when the first step draws its first random number; return it."""
        self._total = total
        self._begin()
        self._control.send(Training(step=self._first, total_steps=total, at_us=now_us()))
        return self._first

    def close(self, *, broken: bool = False) -> None:
        """Let an upload in flight end, and hang up; `broken` says that an error ends us."""
        if self.saver is not None and self.saver.busy:
            # A broken gang's save hardly ends well: its parts will not all come.
            hopeless = broken and self._gang.world_size > 1
            self._note(self.saver.collect(timeout_s=_HOPELESS_S if hopeless else _CLOSE_S))
        if self.saver is not None:
            self.saver.close()
        self._watch.close()
        self._control.close(flush_s=_FLUSH_S)

    def _begin(self) -> None:
        """Set what must be exact when the first step draws its first random number."""
        if self._restored is not None:
            self._subjects.apply_rng(self._restored)
            self._restored = None  # its tensors are in use no more
        if self.saver is not None:
            self.saver.restart_clock()
            self.saver.step_began()

    def _take_up(self, point: RestorePoint) -> None:
        self._subjects.apply(point)
        self._restored = point
        self._first = self._committed = self._saved = point.record.step
        if self.saver is not None:
            self.saver.adopt(point)

    def _restoring(self, step: int) -> None:
        self._control.send(Restoring(step=step, at_us=now_us()))

    # ------------------------------------------------------------------ step boundary

    def completed(self, steps: int) -> None:
        """Between two steps: tell, agree, and save or leave if that was agreed.

        May be called again for the same step (in a long evaluation): the state is as it was.
        """
        ends = steps == self._total != self._completed  # `finish` follows at once
        if self.saver is not None and steps == self._completed + 1:
            self.saver.step_ended()
        self._completed = steps
        self._tell_progress(steps, self._total)
        agreed = self._agree(last=ends)
        if agreed.fenced:
            raise self._fenced or _gang_fenced()
        self._settle(agreed.committed)
        if agreed.budget_us is not None and not ends:
            self._drain(steps, agreed.budget_us)
        if agreed.save and steps > self._saved:
            self._save(steps)
        if self.saver is not None:
            self.saver.step_began()

    def poll(self) -> bool:
        """In the middle of a step: hear of a save that ended; say whether we were asked to leave.

        Nothing is saved here: a state in the middle of a step is none to go on from.
        """
        if self.saver is not None:
            self._note(self.saver.collect())
        return self._watch.budget_us() is not None

    def _agree(self, *, last: bool) -> _Agreed:
        if self.saver is not None:
            self._follow_worker(self.saver)
            self._note(self.saver.collect())
        due = not last and self._gang.rank == 0 and self._is_due()
        budget_us = self._watch.budget_us()
        save, hurry, committed, out = self._gang.agree(
            [
                int(due),
                0 if budget_us is None else _FOREVER_US - budget_us,  # the shortest one wins
                self._committed + 1 if self._gang.rank == 0 else 0,
                int(self._fenced is not None),
            ]
        )
        budget = _FOREVER_US - hurry if hurry else None
        return _Agreed(bool(save), budget, committed - 1, bool(out))

    def _follow_worker(self, saver: Saver) -> None:
        wanted_ms = self._control.interval_ms
        if wanted_ms is not None and wanted_ms != self._interval_ms:
            self._interval_ms = wanted_ms
            saver.set_interval(wanted_ms * 1000)
        risk = self._control.risk
        if risk is not None and risk != self._risk:
            self._risk = risk
            saver.heed(risk)
        if self._control.hurries != self._hurries:
            self._hurries = self._control.hurries
            saver.hurry()

    def _is_due(self) -> bool:
        left = self._total - self._completed if self._total else None  # 0: nobody knows
        return self.saver is not None and self.saver.is_due(steps_left=left)

    def _settle(self, committed: int) -> None:
        """As a rank other than 0: learn that our part of `committed` counts."""
        if self._gang.rank and self.saver is not None and self._pending == committed:
            self._committed = committed
            self.saver.settle(committed)
            self._pending = None

    def _tell_progress(self, completed: int, total: int) -> None:
        at_us = monotonic_us()
        if at_us - self._told_us >= PROGRESS_EVERY_US or completed == total:
            self._told_us = at_us
            self._control.send(Step(step=completed, total_steps=total, at_us=now_us()))

    # ------------------------------------------------------------------ save

    def _save(self, step: int) -> None:
        assert self.saver is not None, "agreed on a save without a store"
        self._saved = step
        if self._gang.rank == 0:
            self._control.send(Saving(step=step, at_us=now_us()))
        with collection_paused():
            state = self._subjects.capture(rank=self._gang.rank)
            waited = self.saver.save(state, step=step, frozen=self._subjects.frozen())
        self._note(waited)

    def _note(self, report: SaveReport | None) -> None:
        """Take in how a save ended, and tell."""
        if report is None:
            return
        if report.published is None:
            self._note_failure(report)
        elif self._gang.rank:
            self._pending = report.step
        else:
            self._note_commit(report, report.published)

    def _note_failure(self, report: SaveReport) -> None:
        error = report.error
        assert error is not None, report
        self._failed = (report.step, error)
        if isinstance(error, FencedOut):
            self._fenced = error
        self._control.send(SaveFailed(step=report.step, code=error.code, cause=error.cause))

    def _note_commit(self, report: SaveReport, published: Published) -> None:
        self._committed = report.step
        self._control.send(
            Committed(
                step=report.step,
                snapshot_us=report.snapshot_us,
                committed_us=published.at_us,
                stall_us=report.stall_us,
                bytes=published.length,
                new_bytes=published.new_bytes,
                manifest=published.manifest,
            )
        )

    # ------------------------------------------------------------------ the two ends

    def _drain(self, completed: int, budget_us: int) -> NoReturn:
        """Use the budget: end the save in flight, take a fresh one if it fits, and leave."""
        budget_us = max(0, budget_us - MARGIN_US)  # the last word must get out in time
        until_us = monotonic_us() + budget_us
        if self.saver is not None:
            self._note(self.saver.collect(timeout_s=budget_us / _US))
            if self._wants_save(completed, until_us - monotonic_us()):
                self._save(completed)
                self._note(self.saver.collect(timeout_s=max(0, until_us - monotonic_us()) / _US))
            self._settle(self._rank_zero(self._committed))
        self._control.send(Drained(step=max(0, self._committed), reached=completed, at_us=now_us()))
        raise SystemExit(DRAINED_EXIT_CODE)

    def _wants_save(self, completed: int, budget_us: int) -> bool:
        """Let rank 0 say whether a fresh save makes sense and fits."""
        assert self.saver is not None, completed
        stale = self._committed < completed and self._fenced is None
        idle = not self.saver.busy  # still busy: the store did not answer within the budget
        wanted = self._gang.rank == 0 and stale and self.saver.fits(budget_us)
        cannot, wants = self._gang.agree([int(not idle), int(wanted)])
        return bool(wants and not cannot)

    def finish(self, total: int) -> None:
        """Commit the final state, of `total` steps; raise the error if that cannot be done."""
        if self.saver is not None:
            self._await_save(self.saver)
            if self._rank_zero(self._committed) < total:
                self._save(total)
                self._await_save(self.saver)
                if self._rank_zero(self._committed) < total:
                    raise self._failure(total)
        self._control.send(Finished(step=total, at_us=now_us()))

    def _failure(self, step: int) -> CheckpointError:
        if self._failed is not None and self._failed[0] == step:
            return self._failed[1]
        return _gang_failed()

    def _rank_zero(self, mine: int) -> int:
        """Return, on every rank, what rank 0 holds; at least -1."""
        (shared,) = self._gang.agree([mine + 1 if self._gang.rank == 0 else 0])
        return shared - 1

    def _await_save(self, saver: Saver) -> None:
        while saver.busy:
            self._note(saver.collect(timeout_s=1))


def _gang_fenced() -> FencedOut:
    return FencedOut(
        "fenced-out",
        cause="Rank 0 of this training may not commit any more: a newer attempt has taken over.",
        remedy="Nothing is lost: the newer attempt goes on. This process should end.",
    )


def _gang_failed() -> CheckpointError:
    return CheckpointError(
        "gang-failed",
        cause="Rank 0 could not commit the final state.",
        remedy="See rank 0's message; the job goes on from its restore point.",
    )
