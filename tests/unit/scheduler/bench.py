"""A work bench for rows and ledger without a cluster: notices in, events and entries out."""

from __future__ import annotations

from typing import Any

from cluster import notices as nt
from jobs import events as ev
from jobs.ledger.entries import Entry
from jobs.reasons import Reason
from jobs.spec import parse_spec
from jobs.state import State
from scheduler.endings import upkeep
from scheduler.metering import Meter
from scheduler.reconcile import reconcile
from scheduler.recorder import Recorder

S = 1_000_000  # microseconds in a second
HOUR = 3_600 * S


class Bench:
    """Keeps a state, its journal and its ledger; time is given with every call, in seconds."""

    def __init__(self, *, price: int = 3_600_000_000, list_price: int = 7_200_000_000) -> None:
        """Know one spot flavor; the default price is one milli-dollar per node-second."""
        self.state = State()
        self.meter = Meter(self.state)
        self.recorder = Recorder(self.state, meter=self.meter)
        self.records: list[ev.Record] = []
        self.entries: list[Entry] = []
        self._notices = 0
        self.price(0, price, list_price=list_price)
        self.emit(0, ev.FlavorLimited(at_us=0, flavor="spot", limit=10, observed=False))

    def emit(self, now_s: float, *events: ev.Event) -> None:
        """Record events of one tick."""
        self.recorder.begin(round(now_s * S))
        for event in events:
            self.recorder.emit(event, cause="test")
        self._take()

    def _take(self) -> None:
        batch = self.recorder.take()
        self.records += batch.records
        self.entries += batch.entries

    def notice(
        self, now_s: float, kind: type, /, *, at_s: float | None = None, **facts: Any
    ) -> int:
        """Let a notice arrive and give the number of events that it made."""
        self._notices += 1
        at_us = round((now_s if at_s is None else at_s) * S)
        notice = kind(id=f"n{self._notices}", at_us=at_us, **facts)
        return self.post(now_s, notice)

    def post(self, now_s: float, notice: nt.Notice) -> int:
        """Reconcile one notice."""
        before = len(self.records)
        self.recorder.begin(round(now_s * S))
        for event in reconcile(self.state, notice, cooldown_ms=1_000):
            self.recorder.emit(event, cause=notice.id)
        self._take()
        return len(self.records) - before

    def upkeep(self, now_s: float) -> None:
        """Let time and owners' wishes take effect."""
        self.recorder.begin(round(now_s * S))
        for event in upkeep(self.state, now_us=round(now_s * S)):
            self.recorder.emit(event, cause="upkeep")
        self._take()

    def price(self, now_s: float, nanos: int, *, list_price: int = 7_200_000_000) -> None:
        """Set the flavor's price per hour."""
        event = ev.FlavorPriced(
            at_us=round(now_s * S),
            flavor="spot",
            usd_nanos_per_hour=nanos,
            list_usd_nanos_per_hour=list_price,
            price_source="test",
        )
        self.emit(now_s, event)

    def job(self, now_s: float, job_id: str = "a", **spec: object) -> None:
        """Submit a job."""
        submitted = ev.JobSubmitted(
            at_us=round(now_s * S),
            job_id=job_id,
            spec=parse_spec({"script": "t.py", **spec}),
            owner="",
            deadline_us=None,
        )
        self.emit(now_s, submitted)

    def node(self, now_s: float, node_id: str = "n1", *, gpu_milli: int = 1_000) -> None:
        """Ask for a node and let it boot at once (it still has to join)."""
        requested = ev.NodeRequested(
            at_us=round(now_s * S),
            node_id=node_id,
            cluster="c",
            flavor="spot",
            gpu_milli=gpu_milli,
            cpus=8,
            reason=Reason.FOR_ATTEMPT,
        )
        self.emit(now_s, requested)
        self.notice(now_s, nt.NodeBooted, node_id=node_id)

    def lease(self, now_s: float, job_id: str = "a", nodes: tuple[str, ...] = ("n1",)) -> str:
        """Place the job on nodes and give the attempt's id."""
        job = self.state.jobs[job_id]
        number = job.attempts + 1
        leased = ev.AttemptLeased(
            at_us=round(now_s * S),
            attempt_id=f"{job_id}/{number}",
            job_id=job_id,
            number=number,
            cluster="c",
            flavor="spot",
            node_ids=nodes,
            gpu_milli=job.spec.gpu_milli,
            cpus=1,
            lease_id=f"l-{job_id}-{number}",
            token="t",
            reason=Reason.CHEAPEST_NOW,
            sentence="",
        )
        self.emit(now_s, leased)
        return leased.attempt_id

    def trains(self, now_s: float, job_id: str = "a", *, ready_s: float, train_s: float) -> str:
        """Submit, launch, lease and start training on one new node; give the attempt's id."""
        self.job(now_s, job_id)
        self.node(now_s)
        attempt = self.lease(now_s, job_id)
        self.notice(ready_s, nt.NodeJoined, node_id="n1", address="x")
        self.notice(ready_s, nt.WorkersUp, attempt_id=attempt)
        self.notice(train_s, nt.TrainingBegan, attempt_id=attempt, step=0, total_steps=100)
        return attempt

    def committed(
        self, now_s: float, attempt: str, *, step: int, snap_s: float, stall_s: float = 0
    ) -> int:
        """Let a checkpoint become durable."""
        return self.notice(
            now_s,
            nt.Committed,
            attempt_id=attempt,
            step=step,
            snapshot_us=round(snap_s * S),
            stall_us=round(stall_s * S),
            size_bytes=1,
            new_bytes=1,
            manifest=f"m{step}",
        )

    def over(self, now_s: float, attempt: str, outcome: nt.Outcome, **facts: Any) -> int:
        """Let all processes of an attempt be gone."""
        return self.notice(now_s, nt.AttemptOver, attempt_id=attempt, outcome=outcome, **facts)
