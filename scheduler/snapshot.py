"""What a cycle sees: one frozen value, the instant included. ``decide`` reads nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.offers import Offer
from jobs.rows import AttemptRow, JobRow, NodeRow
from scheduler.budget_view import BudgetView
from scheduler.horizon import Horizon
from scheduler.windows import PriceWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAttempt:
    """An attempt that holds capacity, with its job."""

    job: JobRow
    attempt: AttemptRow


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A live node and what is free on it."""

    row: NodeRow
    free_milli: int
    free_cpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """The knobs of a policy; plain data, so that a plan can be replayed."""

    name: str = "lowtide"  # which policy decides; see scheduler.spot_policy.POLICIES
    margin_percent: int = 5  # error margin on a job's remaining work
    margin_ms: int = 0  # and a fixed one (reaction time of the loop and the agents)
    drain_grace_ms: int = 30_000  # grace of a preemption that we ask for
    cooldown_ms: int = 60_000  # back-off after a failed launch, doubled with each in a row
    retry_delay_ms: int = 1_000  # pause before a failed script is tried again
    horizon_ms: int = 0  # age at which the plan ahead is worked out anew; 0 = never any


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The world at ``now_us``.

    ``queued`` is in queue order (entry into the queue, id); held jobs and those with a cancel
    request are in it too, so that every waiting job leaves the cycle with a reason.
    """

    now_us: int
    queued: tuple[JobRow, ...]
    live: tuple[LiveAttempt, ...]
    nodes: tuple[NodeView, ...]
    offers: tuple[Offer, ...]
    windows: tuple[PriceWindow, ...] = ()
    budgets: tuple[BudgetView, ...] = ()  # those that somebody set, then the jobs' own
    predecessors: tuple[JobRow, ...] = ()  # that queued jobs come after, ended ones too
    egress_nanos_per_gb: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by regions
    homes: Mapping[str, str] = field(default_factory=dict)  # region of a job's restore point
    settings: PolicySettings = field(default_factory=PolicySettings)
    horizon: Horizon | None = None  # None = every job is decided for itself
