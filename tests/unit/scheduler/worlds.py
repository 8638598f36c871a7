"""Builders of offers, nodes, jobs and snapshots for tests of decisions. Times are in seconds."""

from __future__ import annotations

from typing import Any

from cluster.flavors import Flavor
from cluster.offers import Offer
from jobs.reasons import Reason
from jobs.rows import AttemptRow, JobRow, NodeRow, RestorePoint
from jobs.spec import JobSpec, Market
from jobs.states import AttemptState, JobState, NodeState
from scheduler.snapshot import LiveAttempt, NodeView, PolicySettings, Snapshot

S = 1_000_000
HOUR = 3_600 * S
USD = 1_000_000_000
EXACT = PolicySettings(margin_percent=0, drain_grace_ms=0)
"""No margins: every boundary falls on the instant that the arithmetic says."""


def a_flavor(name: str, *, usd: float = 1, boot_s: int = 60, **facts: Any) -> Flavor:
    """Give a flavor of one GPU a node; spot if its name begins so, else on-demand."""
    market = Market.SPOT if name.startswith("spot") else Market.ON_DEMAND
    known: dict[str, Any] = {
        "cluster": "east",
        "market": market,
        "accelerator": "V100",
        "region": "east",
        "zone": "east-1",
        "gpu_milli": 1_000,
        "cpus": 8,
        "max_nodes": 4,
        "usd_nanos_per_hour": round(usd * USD),
        "list_usd_nanos_per_hour": round(usd * USD),
        "boot_ms": boot_s * 1_000,
    }
    return Flavor(name=name, **{**known, **facts})


def an_offer(flavor: Flavor, *, room: int | None = None, **facts: Any) -> Offer:
    """Give an offer with room for ``room`` launches (default: the flavor's limit)."""
    known: dict[str, Any] = {
        "usd_nanos_per_hour": flavor.usd_nanos_per_hour,
        "list_usd_nanos_per_hour": flavor.list_usd_nanos_per_hour,
        "launchable": flavor.max_nodes if room is None else room,
        "limit": flavor.max_nodes,
        "backoff_until_us": 0,
        "hazard_per_million_hours": 0,
    }
    return Offer(flavor=flavor, **{**known, **facts})


def a_job(
    job_id: str, *, submitted_s: int = 0, row: dict[str, Any] | None = None, **spec: Any
) -> JobRow:
    """Give a queued job with this spec; ``row`` changes fields of the row."""
    asked = JobSpec(script="train.py", **spec)
    known: dict[str, Any] = {
        "state": JobState.QUEUED,
        "reason": Reason.NEW,
        "sentence": "",
        "submitted_us": submitted_s * S,
        "queued_us": submitted_s * S,
        "changed_us": submitted_s * S,
        "deadline_us": asked.deadline_us(submitted_us=submitted_s * S),
        "work_ms": asked.work or 0,
    }
    return JobRow(id=job_id, spec=asked, **{**known, **(row or {})})


def a_node(node_id: str, flavor: Flavor, *, free: int | None = None, **row: Any) -> NodeView:
    """Give a ready, idle node of a flavor; ``free`` is in thousandths of a GPU."""
    known: dict[str, Any] = {
        "state": NodeState.READY,
        "reason": Reason.FOR_ATTEMPT,
        "requested_us": 0,
        "changed_us": 0,
        "ready_us": 0,
        "idle_since_us": 0 if free is None else None,
    }
    node = NodeRow(
        id=node_id,
        cluster=flavor.cluster,
        flavor=flavor.name,
        gpu_milli=flavor.gpu_milli,
        cpus=flavor.cpus,
        **{**known, **row},
    )
    return NodeView(
        row=node, free_milli=flavor.gpu_milli if free is None else free, free_cpus=flavor.cpus
    )


def an_attempt(
    job: JobRow, flavor: Flavor, *, training_s: int | None = None, **row: Any
) -> LiveAttempt:
    """Give a live attempt of a job: training since then, or still without its nodes."""
    state = AttemptState.LEASED if training_s is None else AttemptState.TRAINING
    known: dict[str, Any] = {
        "number": 1,
        "state": state,
        "reason": Reason.CHEAPEST_NOW,
        "created_us": 0,
        "training_us": None if training_s is None else training_s * S,
    }
    attempt = AttemptRow(
        id=f"{job.id}/1",
        job_id=job.id,
        cluster=flavor.cluster,
        flavor=flavor.name,
        node_ids=("n1",),
        gpu_milli=job.spec.gpu_milli,
        lease_id="l1",
        **{**known, **row},
    )
    return LiveAttempt(job=job, attempt=attempt)


def a_point(step: int, *, at_s: int, epoch: int = 1) -> RestorePoint:
    """Give a restore point that was taken and committed at an instant."""
    return RestorePoint(
        step=step, snapshot_us=at_s * S, committed_us=at_s * S, manifest="", epoch=epoch
    )


def a_world(*queued: JobRow, now_s: int = 0, offers: tuple[Offer, ...], **facts: Any) -> Snapshot:
    """Give a snapshot; settings are exact unless told otherwise."""
    known: dict[str, Any] = {"live": (), "nodes": (), "settings": EXACT}
    return Snapshot(now_us=now_s * S, queued=queued, offers=offers, **{**known, **facts})
