"""What the world tells us. Notices are posted to an inbox; the next tick drains it.

``id`` makes a notice idempotent: an agent re-sends until it is acknowledged. ``at_us`` is when
it happened by the sender's clock; the reconciler never lets it run backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Outcome(StrEnum):
    """How an attempt's processes ended."""

    SUCCEEDED = "succeeded"  # every rank left with 0
    FAILED = "failed"  # the user's script failed
    DRAINED = "drained"  # it saved (or could not) and left because it was told to
    NODE_LOST = "node-lost"  # a node of the gang died
    HEARTBEAT_LOST = "heartbeat-lost"  # an attempt worker fell silent
    STOPPED = "stopped"  # we stopped it (cancel, surplus)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBooted:
    """The provider accepted the launch; billing runs from ``at_us``."""

    kind: Literal["node-booted"] = "node-booted"
    id: str
    at_us: int
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeJoined:
    """The node is up in its cluster. One that we did not ask for carries its flavor."""

    kind: Literal["node-joined"] = "node-joined"
    id: str
    at_us: int
    node_id: str
    address: str
    flavor: str = ""
    cluster: str = ""
    gpu_milli: int = 0  # with ``flavor``: what the unasked node has
    cpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchFailed:
    """The provider could not start the node."""

    kind: Literal["launch-failed"] = "launch-failed"
    id: str
    at_us: int
    node_id: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionNoticed:
    """The cloud will take the node at ``deadline_us``."""

    kind: Literal["eviction-noticed"] = "eviction-noticed"
    id: str
    at_us: int
    node_id: str
    deadline_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLost:
    """The node is gone; ``noticed`` when an eviction notice came before."""

    kind: Literal["node-lost"] = "node-lost"
    id: str
    at_us: int
    node_id: str
    noticed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReleased:
    """A node that we released is gone."""

    kind: Literal["node-released"] = "node-released"
    id: str
    at_us: int
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersUp:
    """The attempt workers run on every node of the gang; the children are being started."""

    kind: Literal["workers-up"] = "workers-up"
    id: str
    at_us: int
    attempt_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildOpened:
    """The script's imports are done at ``at_us``; its process began at ``process_us``."""

    kind: Literal["child-opened"] = "child-opened"
    id: str
    at_us: int
    attempt_id: str
    process_us: int
    standby: bool = False  # the process stood ready with torch imported


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreBegan:
    """The child began to load its restore point."""

    kind: Literal["restore-began"] = "restore-began"
    id: str
    at_us: int
    attempt_id: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBegan:
    """The first step of the attempt begins; ``step`` steps are done already."""

    kind: Literal["training-began"] = "training-began"
    id: str
    at_us: int
    attempt_id: str
    step: int
    total_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """``step`` of ``total_steps`` are completed."""

    kind: Literal["progressed"] = "progressed"
    id: str
    at_us: int
    attempt_id: str
    step: int
    total_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A checkpoint of ``step`` completed steps, taken at ``snapshot_us``, is durable."""

    kind: Literal["committed"] = "committed"
    id: str
    at_us: int
    attempt_id: str
    step: int
    snapshot_us: int
    stall_us: int
    size_bytes: int
    new_bytes: int
    manifest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSilent:
    """A worker's connection broke off: the first sign that its node may be gone."""

    kind: Literal["worker-silent"] = "worker-silent"
    id: str
    at_us: int
    attempt_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOver:
    """All processes of the attempt are gone. The last notice about it."""

    kind: Literal["attempt-over"] = "attempt-over"
    id: str
    at_us: int
    attempt_id: str
    outcome: Outcome
    exit_code: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacitySeen:
    """How many nodes of a flavor can be up now."""

    kind: Literal["capacity-seen"] = "capacity-seen"
    id: str
    at_us: int
    flavor: str
    limit: int


AttemptNotice = (
    WorkersUp
    | ChildOpened
    | RestoreBegan
    | TrainingBegan
    | Progressed
    | Committed
    | WorkerSilent
    | AttemptOver
)

Notice = (
    NodeBooted
    | NodeJoined
    | LaunchFailed
    | EvictionNoticed
    | NodeLost
    | NodeReleased
    | WorkersUp
    | ChildOpened
    | RestoreBegan
    | TrainingBegan
    | Progressed
    | Committed
    | WorkerSilent
    | AttemptOver
    | CapacitySeen
)
