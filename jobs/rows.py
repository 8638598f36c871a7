"""The present: frozen rows for jobs, attempts, leases, nodes and flavors.

Rows are values. Only ``jobs.state`` makes new ones, by folding events, so folding the journal
from the beginning always gives the rows of today.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobs.budget import Budget
from jobs.reasons import Reason
from jobs.spec import JobSpec
from jobs.states import ATTEMPT_ENDS, JOB_ENDS, AttemptState, JobState, NodeState
from jobs.wants import ArrayPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePoint:
    """The newest committed checkpoint of a job."""

    step: int  # completed steps that it holds
    snapshot_us: int  # when the state was taken; work after it is lost with the attempt
    committed_us: int  # when it became durable
    manifest: str  # key of the manifest in the job's checkpoint store; "" in a simulation
    epoch: int  # fencing epoch (= attempt number) that committed it


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job now. ``sentence`` is what a user is shown beside the reason."""

    id: str
    spec: JobSpec
    state: JobState
    reason: Reason
    sentence: str
    submitted_us: int
    deadline_us: int | None
    changed_us: int
    queued_us: int  # since when it waits (last entry into ``queued``)
    owner: str = ""
    held: bool = False  # paused by its owner
    cancel_requested: bool = False
    attempts: int = 0  # attempts made so far; the last attempt's number and fencing epoch
    failures: int = 0  # the user's errors, counted against spec.max_failures
    evictions: int = 0  # the cloud's doing, never counted against max_failures
    preemptions: int = 0
    lost: int = 0  # attempts whose worker fell silent, counted against spec.max_lost
    launch_failures: int = 0  # attempts whose nodes did not start
    runtime_ms: int = 0  # time on capacity over all attempts that ended
    last_error: str = ""  # what the last attempt that failed said
    array: ArrayPlace | None = None
    group: tuple[str, ...] = ()  # of the first job of a submit of several: all their ids
    ahead_us: int = 0  # set inside a cycle only: due so long before its deadline, for others' sake
    step: int = 0  # completed steps, as last reported (may be beyond the restore point)
    total_steps: int = 0  # 0 = not known yet
    work_ms: int = 0  # estimate of the whole useful training time; 0 = not known
    waited_ms: int = 0  # time in ``queued`` over all stays
    ended_us: int | None = None
    attempt_id: str = ""  # the attempt that is live now, "" when none
    on_safety_net: bool = False  # moved to the surest capacity; it stays there
    restore_point: RestorePoint | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self.state in JOB_ENDS

    def remaining_ms(self, *, step: int | None = None) -> int:
        """Useful training time still to be done from ``step`` (default: the restore point).

        Without a known total the whole estimate remains.
        """
        if step is None:
            step = self.restore_point.step if self.restore_point else 0
        if not self.total_steps:
            return self.work_ms
        return self.work_ms * max(0, self.total_steps - step) // self.total_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One try at a job on one lease."""

    id: str  # "<job id>/<number>"
    job_id: str
    number: int  # 1, 2, ...; also the fencing epoch of its commits
    state: AttemptState
    reason: Reason
    cluster: str
    flavor: str
    node_ids: tuple[str, ...]  # rank order
    gpu_milli: int  # per node
    lease_id: str
    created_us: int
    first_step: int = 0  # where its training began
    step: int = 0
    started_us: int | None = None  # worker up
    training_us: int | None = None  # first step began
    draining_us: int | None = None
    drain_deadline_us: int | None = None
    ended_us: int | None = None
    exit_code: int | None = None
    detail: str = ""  # one line for people: the error, the node that died
    last_snapshot_us: int | None = None  # of its newest commit
    stall_us: int = 0  # blocking part of its saves
    saves: int = 0
    process_us: int | None = None  # rank 0's process was started, or a ready one taken
    opened_us: int | None = None  # its imports were done
    standby: bool = False  # its process stood ready with its imports done
    silent_us: int | None = None  # a worker's connection broke off
    reached: int = 0  # step that the attempt before it had reached
    caught_up_us: int | None = None  # when it was there again
    reserved_usd_nanos_per_hour: int = 0  # most that it may cost, of the money of its budgets
    reserved_until_us: int | None = None  # and for how long: it must have left by then

    @property
    def ended(self) -> bool:
        """Whether the attempt is over."""
        return self.state in ATTEMPT_ENDS


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """The right of one attempt to named nodes, with a token and an end."""

    id: str
    attempt_id: str
    node_ids: tuple[str, ...]
    gpu_milli: int  # held on each node
    cpus: int  # held on each node
    token: str
    granted_us: int
    released_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A machine that we pay for. Billing runs from ``booting_us`` to ``gone_us``."""

    id: str
    cluster: str
    flavor: str
    state: NodeState
    reason: Reason
    gpu_milli: int
    cpus: int
    requested_us: int
    changed_us: int
    address: str = ""  # how the cluster names it (Ray node id), "" until it joined
    booting_us: int | None = None
    ready_us: int | None = None
    drain_deadline_us: int | None = None
    noticed: bool = False  # the CLOUD takes it (an eviction notice came)
    gone_us: int | None = None
    idle_since_us: int | None = None  # ready and held by nobody since then
    cordoned: bool = False  # takes no new attempts
    evict_notice_ms: int | None = None  # a game day was asked for: notice to give, 0 = none

    @property
    def usable(self) -> bool:
        """Whether a new attempt may be placed on it."""
        return self.state is NodeState.READY and not self.cordoned and not self.noticed


KEPT_LEVELS = 96
"""How many changes of a flavor's limit are remembered: some days of a lively spot market."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlavorRow:
    """What is known now about a kind of capacity."""

    name: str
    usd_nanos_per_hour: int  # per node, with windows applied
    list_usd_nanos_per_hour: int  # on-demand price of the same node at the same hour
    price_source: str
    priced_us: int
    limit: int  # nodes that can be up now, as far as is known
    limited_us: int = 0  # when that was observed; 0 = configured, nothing was observed yet
    backoff_until_us: int = 0  # after a failed launch
    launch_failures: int = 0  # in a row
    evictions: int = 0
    noticed: int = 0  # of them, those that gave notice
    exposure_ms: int = 0  # node-time under hazard, for the hazard estimate
    levels: tuple[tuple[int, int], ...] = ()  # (since_us, limit): the last changes observed


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRow:
    """A budget and where its period stands. What is spent is in the ledger, never twice.

    What is reserved is on the attempts: each may cost its cap for every hour until it must have
    left, and that binds all budgets that pay for it.
    """

    name: str
    terms: Budget
    source: str  # who set it: "file" or "apply"
    since_us: int  # when it was set first
    changed_us: int
    from_us: int  # the present period
    until_us: int | None  # its end; None = for ever
    carried_usd_nanos: int = 0  # brought into the present period
    crossed_percent: int = 0  # highest threshold that was crossed in it
    last_spent_usd_nanos: int = 0  # in the period before
    removed_us: int | None = None

    @property
    def limit_usd_nanos(self) -> int:
        """What may be spent in the present period."""
        return self.terms.limit_usd_nanos + self.carried_usd_nanos
