"""What we want of the world. Intents follow from rows, so re-issuing one is harmless.

``node_intents`` and ``attempt_intents`` derive what is open from the present rows: after a crash
the same rows give the same intents again, and each is idempotent by its ``id``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from checkpointing.hazard_posterior import Risk
from jobs.reasons import Reason
from jobs.rows import AttemptRow, NodeRow
from jobs.spec import JobSpec
from jobs.state import State
from jobs.states import AttemptState, NodeState

STOP_REASONS = frozenset({Reason.USER_CANCELLED, Reason.MAX_RUNTIME})
CLOUD_REASONS = frozenset({Reason.EVICTED, Reason.NODE_LOST})

RiskOf = Callable[[State, AttemptRow], Risk | None]
"""Gives what is known of an attempt's evictions and price; a function of the rows alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchNode:
    """Start a node of the flavor under this id."""

    kind: Literal["launch-node"] = "launch-node"
    id: str
    cluster: str
    node_id: str
    flavor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseNode:
    """Terminate the node; nothing runs on it any more."""

    kind: Literal["release-node"] = "release-node"
    id: str
    cluster: str
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictNode:
    """A game day: make the provider evict the node with this notice (0 = none)."""

    kind: Literal["evict-node"] = "evict-node"
    id: str
    cluster: str
    node_id: str
    notice_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartAttempt:
    """Start the gang's workers on these nodes (rank order) and the training in them."""

    kind: Literal["start-attempt"] = "start-attempt"
    id: str
    cluster: str
    attempt_id: str
    job_id: str
    epoch: int
    spec: JobSpec
    node_ids: tuple[str, ...]
    addresses: tuple[str, ...]
    token: str
    step: int  # restore point, 0 = from the beginning
    total_steps: int  # as far as known, 0 = not
    flavor: str = ""  # of its nodes
    risk: Risk | None = None  # what was known of evictions and price when it was leased


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainAttempt:
    """Save if it fits before ``deadline_us``, then leave."""

    kind: Literal["drain-attempt"] = "drain-attempt"
    id: str
    cluster: str
    attempt_id: str
    deadline_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAttempt:
    """Kill the attempt's processes; nothing is saved."""

    kind: Literal["stop-attempt"] = "stop-attempt"
    id: str
    cluster: str
    attempt_id: str


Intent = LaunchNode | ReleaseNode | EvictNode | StartAttempt | DrainAttempt | StopAttempt


def node_intents(state: State, node: NodeRow) -> Iterator[Intent]:
    """Give what one node's row calls for."""
    if node.state is NodeState.REQUESTED:
        yield LaunchNode(
            id=f"launch|{node.id}", cluster=node.cluster, node_id=node.id, flavor=node.flavor
        )
    held = bool(state.node_leases.get(node.id))
    if node.state is NodeState.DRAINING and not node.noticed and not held:
        yield ReleaseNode(id=f"release|{node.id}", cluster=node.cluster, node_id=node.id)
    if node.evict_notice_ms is not None and node.state is NodeState.READY:
        yield EvictNode(
            id=f"evict|{node.id}",
            cluster=node.cluster,
            node_id=node.id,
            notice_ms=node.evict_notice_ms,
        )


def attempt_intents(state: State, attempt: AttemptRow, *, risk_of: RiskOf) -> Iterator[Intent]:
    """Give what one attempt's row calls for."""
    nodes = [state.nodes[node_id] for node_id in attempt.node_ids]
    if attempt.state is AttemptState.LEASED:
        if all(node.state is NodeState.READY for node in nodes):
            risk = risk_of(state, attempt)
            yield _start(state, attempt, tuple(node.address for node in nodes), risk)
    elif attempt.state is AttemptState.DRAINING and attempt.reason in STOP_REASONS:
        yield StopAttempt(id=f"stop|{attempt.id}", cluster=attempt.cluster, attempt_id=attempt.id)
    elif attempt.state is AttemptState.DRAINING and attempt.reason not in CLOUD_REASONS:
        yield DrainAttempt(
            id=f"drain|{attempt.id}",
            cluster=attempt.cluster,
            attempt_id=attempt.id,
            deadline_us=attempt.drain_deadline_us or 0,
        )


def _start(
    state: State, attempt: AttemptRow, addresses: tuple[str, ...], risk: Risk | None
) -> StartAttempt:
    job = state.jobs[attempt.job_id]
    return StartAttempt(
        id=f"start|{attempt.id}",
        cluster=attempt.cluster,
        attempt_id=attempt.id,
        job_id=job.id,
        epoch=attempt.number,
        spec=job.spec,
        node_ids=attempt.node_ids,
        addresses=addresses,
        token=state.leases[attempt.lease_id].token,
        step=job.restore_point.step if job.restore_point else 0,
        total_steps=job.total_steps,
        flavor=attempt.flavor,
        risk=risk,
    )
