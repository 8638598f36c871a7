"""Saves of one rank: when, how long training stood still for them, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from checkpointing.cadence import Cadence, is_due, measured
from checkpointing.clock import monotonic_us, now_us
from checkpointing.errors import CheckpointError
from checkpointing.publish import Published
from checkpointing.restore import RestorePoint
from checkpointing.staging import Arena
from checkpointing.state_tree import flatten
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

    def __init__(self, uploader: Uploader, *, cadence: Cadence) -> None:
        """Snapshots go to `uploader` when `cadence` says so."""
        self.stats = Stats()
        self.last_duration_us: int | None = None
        """How long the newest successful save took from snapshot to commit."""
        self._uploader = uploader
        self._cadence = cadence
        self._arena = Arena()
        self._in_flight: _InFlight | None = None
        self._mark_us = monotonic_us()

    @property
    def busy(self) -> bool:
        """Whether a save is in flight."""
        return self._uploader.busy

    def set_interval(self, interval_us: int) -> None:
        """Use a fixed interval; 0 returns to the automatic cadence."""
        self._cadence = replace(self._cadence, interval_us=interval_us)

    def restart_clock(self) -> None:
        """Count unsaved time from now: the state is as saved."""
        self._mark_us = monotonic_us()

    def is_due(self) -> bool:
        """Say whether a save should start at this step boundary."""
        return is_due(self._cadence, unsaved_us=monotonic_us() - self._mark_us)

    def save(self, state: object, *, step: int) -> SaveReport | None:
        """Snapshot `state` and start publishing; return the previous save's report, if waited for.

        Raises `UnsupportedState` with the path of what cannot be saved.
        """
        started_us = monotonic_us()
        waited = self._wait_for_previous()
        snapshot = self._arena.take(flatten(state), step=step, at_us=now_us())
        self._uploader.submit(snapshot, descriptor=self._arena.descriptor)
        stall_us = monotonic_us() - started_us
        self._in_flight = _InFlight(step, snapshot.at_us, started_us, stall_us)
        self._mark_us = monotonic_us()
        self.stats = replace(self.stats, stall_us=self.stats.stall_us + stall_us)
        return waited

    def collect(self, *, timeout_s: float = 0) -> SaveReport | None:
        """Return the report of the save in flight if it ends within `timeout_s`."""
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
        self._uploader.close()
        self._arena.close()

    def _wait_for_previous(self) -> SaveReport | None:
        if not self._uploader.busy:
            return None
        report = self.collect()
        if report is None:
            self.stats = replace(self.stats, waits=self.stats.waits + 1)
            while report is None:
                report = self.collect(timeout_s=1)
        return report

    def _report(self, outcome: Outcome) -> SaveReport:
        ended = self._in_flight
        assert ended is not None, "an outcome without a save"
        self._in_flight = None
        if outcome.published is None:
            self.stats = replace(self.stats, failures=self.stats.failures + 1)
        else:
            self._succeeded(ended, outcome.published)
        return SaveReport(
            ended.step, ended.snapshot_us, ended.stall_us, outcome.published, outcome.error
        )

    def _succeeded(self, ended: _InFlight, published: Published) -> None:
        duration_us = max(0, published.at_us - ended.snapshot_us)
        self.last_duration_us = duration_us + ended.stall_us
        self._cadence = measured(self._cadence, stall_us=ended.stall_us, upload_us=duration_us)
        self.stats = replace(
            self.stats,
            saves=self.stats.saves + 1,
            new_bytes=self.stats.new_bytes + published.new_bytes,
        )
