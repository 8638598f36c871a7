"""Everything that can happen, as frozen facts. The journal is a list of these.

An event says what is true from ``at_us`` on; it is applied exactly once by ``jobs.state``.
``kind`` is its stable name on the wire and in the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs import budget_events as budgets
from jobs import schedule_events as schedules
from jobs.quotes import Quoted
from jobs.reasons import Reason
from jobs.spec import JobSpec
from jobs.states import AttemptState, JobState
from jobs.wants import ArrayPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmitted:
    """A user asked for a job."""

    kind: Literal["job-submitted"] = "job-submitted"
    at_us: int
    job_id: str
    spec: JobSpec
    owner: str
    deadline_us: int | None
    idempotency_key: str = ""
    array: ArrayPlace | None = None
    group: tuple[str, ...] = ()  # of the first job of a submit of several: all their ids


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuoted:
    """What it was expected to cost and when it was to end, as of its submission."""

    kind: Literal["job-quoted"] = "job-quoted"
    at_us: int
    job_id: str
    quoted: Quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDeferred:
    """A cycle left the job waiting, or makes its attempt leave; why, and what that costs."""

    kind: Literal["job-deferred"] = "job-deferred"
    at_us: int
    job_id: str
    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHeld:
    """Its owner paused (``held``) or resumed it."""

    kind: Literal["job-held"] = "job-held"
    at_us: int
    job_id: str
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCancelRequested:
    """Its owner wants it gone; a live attempt is stopped first."""

    kind: Literal["job-cancel-requested"] = "job-cancel-requested"
    at_us: int
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequeued:
    """Its attempt is over and it waits again, from its restore point."""

    kind: Literal["job-requeued"] = "job-requeued"
    at_us: int
    job_id: str
    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded:
    """Nothing more will happen to it."""

    kind: Literal["job-ended"] = "job-ended"
    at_us: int
    job_id: str
    state: JobState
    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLeased:
    """A plan placed the job: attempt and lease exist; nodes may still boot."""

    kind: Literal["attempt-leased"] = "attempt-leased"
    at_us: int
    attempt_id: str
    job_id: str
    number: int
    cluster: str
    flavor: str
    node_ids: tuple[str, ...]
    gpu_milli: int
    cpus: int
    lease_id: str
    token: str
    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptMoved:
    """The attempt reached ``starting``, ``restoring``, ``training`` or ``draining``."""

    kind: Literal["attempt-moved"] = "attempt-moved"
    at_us: int
    attempt_id: str
    state: AttemptState
    reason: Reason
    step: int = 0  # first step, with ``training``
    total_steps: int = 0
    deadline_us: int | None = None  # end of the grace period, with ``draining``


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOpened:
    """Its script's imports were done at ``opened_us``; its process began at ``process_us``."""

    kind: Literal["attempt-opened"] = "attempt-opened"
    at_us: int
    attempt_id: str
    process_us: int
    opened_us: int
    standby: bool  # the process stood ready with its imports done


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSilent:
    """Its worker's connection broke off at ``silent_us``: the first sign of a lost node."""

    kind: Literal["attempt-silent"] = "attempt-silent"
    at_us: int
    attempt_id: str
    silent_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptProgressed:
    """Steps were completed; ``work_ms`` is the new estimate of the whole useful time."""

    kind: Literal["attempt-progressed"] = "attempt-progressed"
    at_us: int
    attempt_id: str
    step: int
    total_steps: int
    work_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCommitted:
    """A checkpoint became durable: the job has a new restore point."""

    kind: Literal["checkpoint-committed"] = "checkpoint-committed"
    at_us: int
    attempt_id: str
    step: int
    snapshot_us: int
    stall_us: int
    size_bytes: int
    new_bytes: int
    manifest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded:
    """The attempt is over and its lease is released."""

    kind: Literal["attempt-ended"] = "attempt-ended"
    at_us: int
    attempt_id: str
    state: AttemptState
    reason: Reason
    exit_code: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRequested:
    """A plan wants a node of this flavor."""

    kind: Literal["node-requested"] = "node-requested"
    at_us: int
    node_id: str
    cluster: str
    flavor: str
    gpu_milli: int
    cpus: int
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBooting:
    """The provider accepted the launch: billing starts."""

    kind: Literal["node-booting"] = "node-booting"
    at_us: int
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReady:
    """It joined its cluster."""

    kind: Literal["node-ready"] = "node-ready"
    at_us: int
    node_id: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDraining:
    """It is about to go: the cloud gave notice (``noticed``) or we release it."""

    kind: Literal["node-draining"] = "node-draining"
    at_us: int
    node_id: str
    reason: Reason
    noticed: bool
    deadline_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGone:
    """It is no more; billing ends."""

    kind: Literal["node-gone"] = "node-gone"
    at_us: int
    node_id: str
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCordoned:
    """An operator keeps new attempts away from it (or lets them back)."""

    kind: Literal["node-cordoned"] = "node-cordoned"
    at_us: int
    node_id: str
    cordoned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionRequested:
    """An operator wants a real eviction of the node (a game day)."""

    kind: Literal["eviction-requested"] = "eviction-requested"
    at_us: int
    node_id: str
    notice_ms: int  # 0 = without notice


@dataclass(frozen=True, slots=True, kw_only=True)
class FlavorPriced:
    """A flavor's price from ``at_us`` on, windows applied."""

    kind: Literal["flavor-priced"] = "flavor-priced"
    at_us: int
    flavor: str
    usd_nanos_per_hour: int
    list_usd_nanos_per_hour: int
    price_source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlavorLimited:
    """How many nodes of a flavor can be up now."""

    kind: Literal["flavor-limited"] = "flavor-limited"
    at_us: int
    flavor: str
    limit: int
    observed: bool = True  # False = from the configuration; any observation is newer


WINDOWS_SUBJECT = "price-windows"
"""The part of the journal that is about price windows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsSet:
    """Other price windows hold from now on; ``text`` is the file that says which."""

    kind: Literal["windows-set"] = "windows-set"
    at_us: int
    windows: Literal["price-windows"] = "price-windows"  # its part of the journal
    text: str
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchBackedOff:
    """A launch of the flavor failed; it is left alone until then."""

    kind: Literal["launch-backed-off"] = "launch-backed-off"
    at_us: int
    flavor: str
    until_us: int


Event = (
    JobSubmitted
    | JobQuoted
    | JobDeferred
    | JobHeld
    | JobCancelRequested
    | JobRequeued
    | JobEnded
    | AttemptLeased
    | AttemptMoved
    | AttemptOpened
    | AttemptSilent
    | AttemptProgressed
    | CheckpointCommitted
    | AttemptEnded
    | NodeRequested
    | NodeBooting
    | NodeReady
    | NodeDraining
    | NodeGone
    | NodeCordoned
    | EvictionRequested
    | FlavorPriced
    | FlavorLimited
    | LaunchBackedOff
    | WindowsSet
    | budgets.MoneyReserved
    | budgets.BudgetSet
    | budgets.BudgetRemoved
    | budgets.BudgetRolled
    | budgets.BudgetCrossed
    | schedules.ScheduleEvent
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of the journal: event ``seq``, about ``subject``, because of ``cause``."""

    seq: int
    subject: str
    event: Event
    cause: str  # "plan", "notice:<id>", "command:<name>"
