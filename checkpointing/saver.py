"""Saves of one rank: when, how long training stood still for them, and what became of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial

from checkpointing.cadence import Cadence, Tariff
from checkpointing.clock import monotonic_us, now_us
from checkpointing.errors import CheckpointError
from checkpointing.gate import StepGate
from checkpointing.hazard_posterior import Risk
from checkpointing.notice_budget import DrainPlan, SaveSample
from checkpointing.pacer import Pacer
from checkpointing.publish import Published
from checkpointing.restore import RestorePoint
from checkpointing.snapshot import Snapshot
from checkpointing.staging import Arena
from checkpointing.state_tree import FlatState, flatten
from checkpointing.uploader import Outcome, Uploader


@dataclass(frozen=True, slots=True)
class Stats:
    """Totals of a session's saves."""

    saves: int = 0
    failures: int = 0
    waits: int = 0
    """Saves that had to wait for the previous upload (back-pressure)."""
    stall_us: int = 0
    """Time for which training stood still."""
    new_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SaveReport:
    """What became of one save."""

    step: int
    snapshot_us: int
    stall_us: int
    published: Published | None
    error: CheckpointError | None


@dataclass(frozen=True, slots=True)
class _InFlight:
    step: int
    snapshot_us: int
    started_us: int
    stall_us: int


class Saver:
    """Takes snapshots and has them published in the background, one at a time."""

    def __init__(
        self,
        uploader: Uploader,
        *,
        cadence: Cadence,
        tariff: Tariff | None = None,
        gate: StepGate | None = None,
    ) -> None:
        """Snapshots go to `uploader` when `cadence` says so; `tariff` is what its store charges.

        With a `gate`, what only optimizer steps change is copied while training goes on.
        """
        self.stats = Stats()
        self._uploader = uploader
        self._pacer = Pacer(cadence, tariff=tariff or Tariff(), at_us=monotonic_us())
        self._arena = Arena()
        self._gate = gate
        self._in_flight: _InFlight | None = None
        self._step_began_us: int | None = None
        self._step_began_busy = False

    @property
    def busy(self) -> bool:
        """Whether a save is in flight."""
        return self._in_flight is not None

    def set_interval(self, interval_us: int) -> None:
        """Use a fixed interval; 0 returns to the automatic cadence."""
        self._pacer.set_interval(interval_us)

    def heed(self, risk: Risk) -> None:
        """Pace the saves by what the scheduler knows of evictions and price."""
        self._pacer.heed(risk, at_us=monotonic_us())

    def hurry(self) -> None:
        """An eviction is near: make the next step boundary due."""
        self._pacer.hurry()

    def restart_clock(self) -> None:
        """Count unsaved time from now: the state is as saved."""
        self._pacer.restart_clock(monotonic_us())

    def step_began(self) -> None:
        """A step begins: what it takes says how much an upload slows training."""
        self._step_began_us, self._step_began_busy = monotonic_us(), self.busy

    def step_ended(self) -> None:
        """The step is over; one in which an upload ended says nothing."""
        if self._step_began_us is not None and self._step_began_busy == self.busy:
            self._pacer.stepped(monotonic_us() - self._step_began_us, uploading=self.busy)
        self._step_began_us = None

    def is_due(self, *, steps_left: int | None = None) -> bool:
        """Say whether a save should start at this step boundary, `steps_left` before the end.

        By the rule, none is while an upload is in flight: training would have to wait for it.
        """
        if self.busy and self._pacer.automatic:
            return False
        return self._pacer.is_due(monotonic_us(), steps_left=steps_left)

    def fits(self, budget_us: int) -> bool:
        """Say whether a fresh save, begun now, is expected to be committed within the budget."""
        plan = self._pacer.plan_drain(budget_us, in_flight_since_us=None, at_us=monotonic_us())
        return plan is DrainPlan.FRESH

    def save(self, state: object, *, step: int, frozen: Collection[int] = ()) -> SaveReport | None:
        """Snapshot `state` and start publishing; return the previous save's report, if waited for.

        `frozen` has the addresses of tensors that are not being trained. Raises `UnsupportedState`
        with the path of what cannot be saved.
        """
        started_us = monotonic_us()
        waited = self._wait_for_previous()
        snapshot = self._staged(flatten(state, frozen=frozen), step=step)
        stall_us = monotonic_us() - started_us
        self._in_flight = _InFlight(step, snapshot.at_us, started_us, stall_us)
        self._pacer.began(monotonic_us())
        self.stats = replace(self.stats, stall_us=self.stats.stall_us + stall_us)
        return waited

    def collect(self, *, timeout_s: float = 0) -> SaveReport | None:
        """Return the report of the save in flight if it ends within `timeout_s`."""
        if self._in_flight is None or not self._copied(timeout_s):
            return None
        torn = None if self._gate is None else self._gate.take_error()
        if torn is not None:
            return self._report(Outcome(self._in_flight.step, error=torn))
        outcome = self._uploader.collect(timeout_s)
        return None if outcome is None else self._report(outcome)

    def adopt(self, point: RestorePoint) -> None:
        """Build on a restore point: its chunks are there, and stay until we have commits."""
        self._uploader.adopt(point.record.manifest, chunks=point.own.chunks)

    def settle(self, step: int) -> None:
        """As a rank other than 0: our part of `step` counts, its chunks need not be sent again."""
        self._uploader.settle(step)

    def close(self) -> None:
        """Give the memory back; a save in flight may still end."""
        if self._gate is not None:
            self._gate.close()
        self._uploader.close()
        self._arena.close()

    def _staged(self, flat: FlatState, *, step: int) -> Snapshot:
        """Copy what must be copied now, and see to the rest and to the upload."""
        if self._gate is None:
            snapshot = self._arena.take(flat, step=step, at_us=now_us())
            self._uploader.submit(snapshot, descriptor=self._arena.descriptor)
            return snapshot
        snapshot, copies = self._arena.begin(
            flat, step=step, at_us=now_us(), later=self._gate.holds()
        )
        submit = partial(self._uploader.submit, snapshot, descriptor=self._arena.descriptor)
        self._gate.start(copies, then=submit)
        return snapshot

    def _copied(self, timeout_s: float) -> bool:
        return self._gate is None or self._gate.finished(timeout_s)

    def _wait_for_previous(self) -> SaveReport | None:
        if not self.busy:
            return None
        report = self.collect()
        if report is None:
            self.stats = replace(self.stats, waits=self.stats.waits + 1)
            while report is None:
                report = self.collect(timeout_s=1)
        return report

    def _report(self, outcome: Outcome) -> SaveReport:
        assert self._in_flight is not None, "an outcome without a save"
        ended, self._in_flight = self._with_waiting(self._in_flight), None
        if outcome.published is None:
            self._pacer.failed(monotonic_us())
            self.stats = replace(self.stats, failures=self.stats.failures + 1)
        else:
            self._succeeded(ended, outcome.published)
        return SaveReport(
            ended.step, ended.snapshot_us, ended.stall_us, outcome.published, outcome.error
        )

    def _with_waiting(self, ended: _InFlight) -> _InFlight:
        """Add what an optimizer's step stood at the gate."""
        waited_us = 0 if self._gate is None else self._gate.waited_us
        self.stats = replace(self.stats, stall_us=self.stats.stall_us + waited_us)
        return replace(ended, stall_us=ended.stall_us + waited_us)

    def _succeeded(self, ended: _InFlight, published: Published) -> None:
        self._pacer.succeeded(
            SaveSample(
                stall_us=ended.stall_us,
                upload_us=max(0, published.at_us - ended.snapshot_us),
                state_bytes=published.length,
                new_bytes=published.new_bytes,
            )
        )
        self.stats = replace(
            self.stats,
            saves=self.stats.saves + 1,
            new_bytes=self.stats.new_bytes + published.new_bytes,
        )
