"""Fluent builders: a test states what matters to it, and gets the rest.

``a_job().gpus(4).deadline("6h").build()`` is a row, ``.spec()`` the spec alone, ``.submitted()``
the event. ``History`` makes whole legal histories: records, state and batches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

from cluster.flavors import Flavor
from jobs import events as ev
from jobs.fold import apply
from jobs.ledger.accounts import CostClass, attempt_account, idle_account, provider_account
from jobs.ledger.entries import Entry, EntryKind, Posting, usage_id
from jobs.reasons import Reason
from jobs.rows import AttemptRow, FlavorRow, JobRow, NodeRow
from jobs.spec import NANOS_PER_USD, JobSpec, Market
from jobs.state import State
from jobs.states import AttemptState, JobState, NodeState
from jobs.store import Batch

START_US = 1_796_083_200_000_000  # 2026-12-01T00:00Z, where every history begins
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US


class JobBuilder:
    """A job that was just submitted: one GPU on one node, no deadline."""

    def __init__(self, job_id: str = "job-1") -> None:
        """Name the job."""
        self._spec: dict[str, Any] = {"script": "train.py"}
        self._row: dict[str, Any] = {
            "id": job_id,
            "state": JobState.QUEUED,
            "reason": Reason.NEW,
            "sentence": "Just submitted.",
            "submitted_us": START_US,
        }
        self._key = ""

    def gpus(self, gpus: float | str, *, nodes: int = 1) -> Self:
        """Ask for GPUs on each of some nodes."""
        self._spec |= {"gpus": str(gpus), "nodes": nodes}
        return self

    def work(self, work: str) -> Self:
        """Set the expected useful training time."""
        self._spec["work"] = work
        return self

    def deadline(self, deadline: str) -> Self:
        """Set a deadline; without ``work`` the job is expected to take an hour."""
        self._spec = {"work": "1h", **self._spec, "deadline": deadline}
        return self

    def team(self, team: str) -> Self:
        """Set the team."""
        self._spec["team"] = team
        return self

    def asking(self, **fields: object) -> Self:
        """Set any other fields of the spec."""
        self._spec |= fields
        return self

    def at(self, submitted_us: int) -> Self:
        """Set when it was submitted."""
        self._row["submitted_us"] = submitted_us
        return self

    def key(self, idempotency_key: str) -> Self:
        """Set the idempotency key of the submit."""
        self._key = idempotency_key
        return self

    def having(self, **fields: object) -> Self:
        """Set any fields of the row: ``state``, ``restore_point`` ..."""
        self._row |= fields
        return self

    def spec(self) -> JobSpec:
        """Give the spec alone."""
        return JobSpec(**self._spec)

    def build(self) -> JobRow:
        """Give the row."""
        spec, at_us = self.spec(), self._row["submitted_us"]
        defaults = {
            "spec": spec,
            "changed_us": at_us,
            "queued_us": at_us,
            "deadline_us": spec.deadline_us(submitted_us=at_us),
            "work_ms": spec.work or 0,
            "owner": "ada",
        }
        return JobRow(**(defaults | self._row))

    def submitted(self) -> ev.JobSubmitted:
        """Give the event that makes the row."""
        row = self.build()
        return ev.JobSubmitted(
            at_us=row.submitted_us,
            job_id=row.id,
            spec=row.spec,
            owner=row.owner,
            deadline_us=row.deadline_us,
            idempotency_key=self._key,
        )


def a_job(job_id: str = "job-1") -> JobBuilder:
    """Begin a job."""
    return JobBuilder(job_id)


def a_flavor(name: str = "a100-spot-eu", **fields: object) -> FlavorRow:
    """Give a flavor at 1 dollar an hour (2 on demand), ten nodes at most."""
    defaults: dict[str, Any] = {
        "usd_nanos_per_hour": NANOS_PER_USD,
        "list_usd_nanos_per_hour": 2 * NANOS_PER_USD,
        "price_source": "test",
        "priced_us": START_US,
        "limit": 10,
    }
    return FlavorRow(name=name, **(defaults | dict[str, Any](fields)))


def a_kind(name: str = "spot", **fields: object) -> Flavor:
    """Give a kind of spot node with one GPU and two cores, one of it at most."""
    defaults: dict[str, Any] = {
        "cluster": "here",
        "market": Market.SPOT,
        "accelerator": "t4",
        "region": "r",
        "zone": "z",
        "gpu_milli": 1_000,
        "cpus": 2,
        "max_nodes": 1,
    }
    return Flavor(name=name, **(defaults | dict[str, Any](fields)))


def a_node(node_id: str = "node-1", **fields: object) -> NodeRow:
    """Give a ready, idle node of eight GPUs and 64 cores."""
    defaults: dict[str, Any] = {
        "cluster": "main",
        "flavor": "a100-spot-eu",
        "state": NodeState.READY,
        "reason": Reason.FOR_ATTEMPT,
        "gpu_milli": 8_000,
        "cpus": 64,
        "requested_us": START_US,
        "changed_us": START_US,
        "booting_us": START_US,
        "ready_us": START_US,
        "idle_since_us": START_US,
        "address": f"address-of-{node_id}",
    }
    return NodeRow(id=node_id, **(defaults | dict[str, Any](fields)))


def an_attempt(job_id: str = "job-1", number: int = 1, **fields: object) -> AttemptRow:
    """Give an attempt that trains with one GPU of ``node-1``."""
    defaults: dict[str, Any] = {
        "state": AttemptState.TRAINING,
        "reason": Reason.CHEAPEST_NOW,
        "cluster": "main",
        "flavor": "a100-spot-eu",
        "node_ids": ("node-1",),
        "gpu_milli": 1_000,
        "lease_id": f"lease-{job_id}-{number}",
        "created_us": START_US,
        "started_us": START_US,
        "training_us": START_US,
    }
    return AttemptRow(
        id=f"{job_id}/{number}", job_id=job_id, number=number, **(defaults | dict[str, Any](fields))
    )


def an_entry(
    node_id: str = "node-1",
    *,
    hour: int = 0,
    usd_nanos: int = NANOS_PER_USD,
    shares: dict[str, int] | None = None,
    kind: EntryKind = EntryKind.USAGE,
) -> Entry:
    """Give the balanced entry of one hour of a node with eight GPUs.

    Args:
        node_id: the node.
        hour: which hour after ``START_US``.
        usd_nanos: what the hour cost.
        shares: nano-dollars by attempt; what they leave is idle.
        kind: why the entry is made.
    """
    shares = shares or {}
    start_us = START_US + hour * HOUR_US
    owed = [
        (attempt_account(name, CostClass.USEFUL), amount) for name, amount in shares.items()
    ] + [(idle_account("a100-spot-eu"), usd_nanos - sum(shares.values()))]
    legs = [_leg(provider_account(node_id), -usd_nanos), *(_leg(*pair) for pair in owed)]
    return Entry(
        id=usage_id(node_id, start_us=start_us, end_us=start_us + HOUR_US),
        kind=kind,
        posted_us=start_us + HOUR_US,
        start_us=start_us,
        end_us=start_us + HOUR_US,
        node_id=node_id,
        flavor="a100-spot-eu",
        usd_nanos_per_hour=usd_nanos,
        list_usd_nanos_per_hour=2 * usd_nanos,
        price_source="test",
        attempt_ids=tuple(shares),
        postings=tuple(legs),
    )


def _leg(account: str, usd_nanos: int) -> Posting:
    """Give a leg whose GPU time and list price are the same number as its money."""
    return Posting(account=account, usd_nanos=usd_nanos, gpu_ms=usd_nanos, list_usd_nanos=usd_nanos)


class History:
    """A legal history in the making: every step is a record, folded at once."""

    def __init__(self) -> None:
        """Begin with nothing, at ``START_US``."""
        self.state = State()
        self.records: list[ev.Record] = []
        self.now_us = START_US
        self._taken = 0

    def add(self, subject: str, event: ev.Event, *, cause: str = "test") -> Self:
        """Append any event; time moves on by a second."""
        record = ev.Record(seq=len(self.records) + 1, subject=subject, event=event, cause=cause)
        apply(self.state, record)
        self.records.append(record)
        self.now_us += 1_000_000
        return self

    def batch(self, *entries: Entry) -> Batch:
        """Give what came since the last batch, as one tick."""
        fresh = tuple(self.records[self._taken :])
        self._taken = len(self.records)
        changes = tuple(self.state.take_changes())
        return Batch(records=fresh, entries=entries, changes=changes, state=self.state)

    def submit(self, job: JobBuilder | str = "job-1") -> Self:
        """Submit a job now."""
        builder = a_job(job) if isinstance(job, str) else job
        event = builder.at(self.now_us).submitted()
        return self.add(event.job_id, event)

    def flavor(self, name: str = "a100-spot-eu", *, limit: int = 10) -> Self:
        """Price a flavor and limit it."""
        row = a_flavor(name)
        self.add(
            name,
            ev.FlavorPriced(
                at_us=self.now_us,
                flavor=name,
                usd_nanos_per_hour=row.usd_nanos_per_hour,
                list_usd_nanos_per_hour=row.list_usd_nanos_per_hour,
                price_source=row.price_source,
            ),
        )
        return self.add(name, ev.FlavorLimited(at_us=self.now_us, flavor=name, limit=limit))

    def request(self, node_id: str = "node-1", *, flavor: str = "a100-spot-eu") -> Self:
        """Request a node; an unknown flavor is priced first."""
        if flavor not in self.state.flavors:
            self.flavor(flavor)
        row = a_node(node_id)
        event = ev.NodeRequested(
            at_us=self.now_us,
            node_id=node_id,
            cluster=row.cluster,
            flavor=flavor,
            gpu_milli=row.gpu_milli,
            cpus=row.cpus,
            reason=Reason.FOR_ATTEMPT,
        )
        return self.add(node_id, event)

    def ready(self, node_id: str = "node-1", *, flavor: str = "a100-spot-eu") -> Self:
        """Bring a node up, from its request."""
        if node_id not in self.state.nodes:
            self.request(node_id, flavor=flavor)
        if self.state.nodes[node_id].state is NodeState.REQUESTED:
            self.add(node_id, ev.NodeBooting(at_us=self.now_us, node_id=node_id))
        address = f"address-of-{node_id}"
        return self.add(node_id, ev.NodeReady(at_us=self.now_us, node_id=node_id, address=address))

    def gone(self, node_id: str = "node-1", *, reason: Reason = Reason.IDLE) -> Self:
        """End a node."""
        return self.add(node_id, ev.NodeGone(at_us=self.now_us, node_id=node_id, reason=reason))

    def lease(self, job_id: str = "job-1", *node_ids: str) -> Self:
        """Place a job on nodes (``node-1`` unless told)."""
        job = self.state.jobs[job_id]
        number = job.attempts + 1
        row = replace(an_attempt(job_id, number), node_ids=node_ids or ("node-1",))
        event = ev.AttemptLeased(
            at_us=self.now_us,
            attempt_id=row.id,
            job_id=job_id,
            number=number,
            cluster=row.cluster,
            flavor=row.flavor,
            node_ids=row.node_ids,
            gpu_milli=job.spec.gpu_milli,
            cpus=job.spec.cpus,
            lease_id=row.lease_id,
            token=f"token-{row.id}",
            reason=row.reason,
            sentence="Started on the cheapest capacity.",
        )
        return self.add(job_id, event)

    def move(self, attempt_id: str, state: AttemptState, **fields: object) -> Self:
        """Move an attempt on."""
        event = ev.AttemptMoved(
            at_us=self.now_us,
            attempt_id=attempt_id,
            state=state,
            reason=Reason.CHEAPEST_NOW,
            **dict[str, Any](fields),
        )
        return self.add(attempt_id.rpartition("/")[0], event)

    def train(self, job_id: str = "job-1", *node_ids: str) -> Self:
        """Place a job and bring its attempt to training."""
        self.lease(job_id, *node_ids)
        attempt_id = self.state.jobs[job_id].attempt_id
        self.move(attempt_id, AttemptState.STARTING)
        return self.move(attempt_id, AttemptState.TRAINING, total_steps=100)

    def save(self, attempt_id: str = "job-1/1", *, step: int) -> Self:
        """Commit a checkpoint."""
        event = ev.CheckpointCommitted(
            at_us=self.now_us,
            attempt_id=attempt_id,
            step=step,
            snapshot_us=self.now_us,
            stall_us=1_000,
            size_bytes=1_000,
            new_bytes=100,
            manifest=f"manifest-{step}",
        )
        return self.add(attempt_id.rpartition("/")[0], event)

    def end(
        self, attempt_id: str, state: AttemptState, *, reason: Reason = Reason.FINISHED
    ) -> Self:
        """End an attempt."""
        event = ev.AttemptEnded(
            at_us=self.now_us, attempt_id=attempt_id, state=state, reason=reason
        )
        return self.add(attempt_id.rpartition("/")[0], event)

    def requeue(self, job_id: str = "job-1", *, reason: Reason = Reason.EVICTED) -> Self:
        """Put a job back into the queue."""
        event = ev.JobRequeued(
            at_us=self.now_us, job_id=job_id, reason=reason, sentence="Waits again."
        )
        return self.add(job_id, event)

    def finish(self, job_id: str = "job-1", state: JobState = JobState.SUCCEEDED) -> Self:
        """End a job, and its attempt with it."""
        attempt_id = self.state.jobs[job_id].attempt_id
        if attempt_id:
            self.end(attempt_id, AttemptState.SUCCEEDED)
        event = ev.JobEnded(
            at_us=self.now_us,
            job_id=job_id,
            state=state,
            reason=Reason.FINISHED,
            sentence="Done.",
        )
        return self.add(job_id, event)
