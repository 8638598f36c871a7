"""What a cycle decides: a frozen value that the controller enacts. Nothing in it is done yet."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNode:
    """A node to be launched; ``ref`` names it inside this plan only (``new-1`` ...)."""

    ref: str
    flavor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Money for an attempt: so much for each hour, until an instant by which it must have left."""

    usd_nanos_per_hour: int
    until_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Start an attempt of the job on these nodes, ids or refs in rank order."""

    job_id: str
    flavor: str
    nodes: tuple[str, ...]
    reason: Reason
    sentence: str
    reservation: Reservation | None = None  # of its hard budgets


@dataclass(frozen=True, slots=True, kw_only=True)
class Defer:
    """Leave the job waiting. The sentence must not change unless the facts do."""

    job_id: str
    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempt:
    """Make a live attempt save and leave within ``grace_ms``."""

    attempt_id: str
    reason: Reason
    sentence: str
    grace_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Terminate an idle node."""

    node_id: str
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the rest of all planned work comes to, as things are expected; see ``horizon_gap``."""

    cost_usd_nanos: int  # under this plan
    bound_usd_nanos: int  # at the least

    @property
    def ratio(self) -> float:
        """Cost / bound; 1 when nothing is left to pay."""
        return self.cost_usd_nanos / self.bound_usd_nanos if self.bound_usd_nanos else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All decisions of a cycle. ``wake_at_us`` None = only a notice can change anything."""

    new_nodes: tuple[NewNode, ...] = ()
    places: tuple[Place, ...] = ()
    defers: tuple[Defer, ...] = ()
    preempts: tuple[Preempt, ...] = ()
    releases: tuple[Release, ...] = ()
    reservations: tuple[tuple[str, Reservation], ...] = ()  # of live attempts, replaced
    wake_at_us: int | None = None
    expected: Expected | None = None  # None without a plan ahead
