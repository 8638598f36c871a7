"""Collect one tick: every event is metered, folded into the rows and kept for the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from jobs import events as ev
from jobs.budget_events import (
    BudgetCrossed,
    BudgetRemoved,
    BudgetRolled,
    BudgetSet,
    MoneyReserved,
)
from jobs.fold import apply
from jobs.ledger.entries import Entry
from jobs.schedule_events import OccurrenceDue, ScheduleHeld, ScheduleMade, ScheduleRemoved
from jobs.state import State
from jobs.store import Batch
from scheduler.metering import Meter


class Recorder:
    """The only way in which a tick changes anything.

    Time never runs backwards for a subject: an event that claims to be older than what is
    known (clock skew between nodes, a late notice) is moved up to the last known instant, and
    one from the future down to now.
    """

    def __init__(self, state: State, *, meter: Meter) -> None:
        """Record into ``state``, charge through ``meter``."""
        self.state = state
        self._meter = meter
        self._now_us = 0
        self._records: list[ev.Record] = []
        self._entries: list[Entry] = []

    def begin(self, now_us: int) -> None:
        """Start a tick."""
        assert not self._records, "the last tick was not taken"
        self._now_us = now_us

    def emit(self, event: ev.Event, *, cause: str) -> None:
        """Meter, fold and keep an event."""
        at_us = max(min(event.at_us, self._now_us), self._floor_us(event))
        if at_us != event.at_us:
            event = replace(event, at_us=at_us)
        self._entries += self._meter.before(event)
        record = ev.Record(
            seq=self.state.seq + 1, subject=subject_of(event), event=event, cause=cause
        )
        apply(self.state, record)
        self._records.append(record)

    @property
    def entries(self) -> list[Entry]:
        """The entries of this tick so far."""
        return list(self._entries)

    def take(self) -> Batch:
        """Give what the tick recorded and start afresh."""
        batch = Batch(
            records=tuple(self._records),
            entries=tuple(self._entries),
            changes=tuple(self.state.take_changes()),
            state=self.state,
        )
        self._records, self._entries = [], []
        return batch

    def _floor_us(self, event: ev.Event) -> int:
        match event:
            case (
                ev.AttemptMoved()
                | ev.AttemptOpened()
                | ev.AttemptSilent()
                | ev.AttemptProgressed()
                | ev.CheckpointCommitted()
                | ev.AttemptEnded()
                | MoneyReserved()
            ):
                return self._attempt_floor_us(event.attempt_id)
            case ev.AttemptLeased():
                return max(self.state.jobs[event.job_id].changed_us, self._nodes_us(event.node_ids))
            case ev.FlavorPriced():
                return self._nodes_us(tuple(self._nodes_of_flavor(event.flavor)))
            case BudgetSet() | BudgetRemoved() | BudgetRolled() | BudgetCrossed():
                return self._nodes_us(tuple(self.state.live_nodes))
            case (
                ev.NodeRequested()
                | ev.FlavorLimited()
                | ev.LaunchBackedOff()
                | ev.WindowsSet()
                | ev.JobSubmitted()
                | ScheduleMade()
                | ScheduleHeld()
                | ScheduleRemoved()
                | OccurrenceDue()
            ):
                return 0
            case ev.NodeBooting() | ev.NodeReady():  # billing never begins before its price
                priced_us = self.state.flavors[self.state.nodes[event.node_id].flavor].priced_us
                return max(priced_us, self._nodes_us((event.node_id,)))
            case ev.NodeDraining() | ev.NodeGone() | ev.NodeCordoned() | ev.EvictionRequested():
                return self._nodes_us((event.node_id,))
            case _:
                return self.state.jobs[event.job_id].changed_us

    def _attempt_floor_us(self, attempt_id: str) -> int:
        attempt = self.state.attempts[attempt_id]
        known = (
            attempt.created_us,
            attempt.started_us,
            attempt.training_us,
            attempt.draining_us,
            self.state.jobs[attempt.job_id].changed_us,
            self._meter.floor_us(attempt.node_ids),
        )
        return max(at_us for at_us in known if at_us is not None)

    def _nodes_of_flavor(self, flavor: str) -> Iterator[str]:
        for node_id in self.state.live_nodes:
            if self.state.nodes[node_id].flavor == flavor:
                yield node_id

    def _nodes_us(self, node_ids: tuple[str, ...]) -> int:
        nodes = (self.state.nodes[node_id] for node_id in node_ids)
        changed = max((node.changed_us for node in nodes), default=0)
        return max(changed, self._meter.floor_us(node_ids))


def subject_of(event: ev.Event) -> str:
    """Name what an event is about: the attempt, else the job, node, flavor and so on."""
    for field in ("attempt_id", "job_id", "node_id", "flavor", "budget", "schedule_id", "windows"):
        subject = getattr(event, field, None)
        if subject is not None:
            return str(subject)
    msg = f"an event about nothing: {event!r}"
    raise AssertionError(msg)
