"""The rows of today by id, with the indexes that a cycle needs.

``jobs.fold`` is the only code that puts rows here. Invariants (checked by tests and auditor):

- a job has ``attempt_id`` exactly while it is admitted or running;
- a lease is open exactly while its attempt is live; a node's held GPUs never exceed its own;
- ``queued``, ``live_attempts`` and ``live_nodes`` hold just the ids that their names say.
"""

from __future__ import annotations

from collections.abc import Iterable

from jobs.recurrence import ScheduleRow
from jobs.rows import AttemptRow, BudgetRow, FlavorRow, JobRow, LeaseRow, NodeRow
from jobs.states import JobState, NodeState


class State:
    """All rows by id, the indexes that a cycle needs, and what changed since ``take_changes``."""

    def __init__(self) -> None:
        """Start empty."""
        self.jobs: dict[str, JobRow] = {}
        self.attempts: dict[str, AttemptRow] = {}
        self.leases: dict[str, LeaseRow] = {}
        self.nodes: dict[str, NodeRow] = {}
        self.flavors: dict[str, FlavorRow] = {}
        self.budgets: dict[str, BudgetRow] = {}  # removed ones, too
        self.schedules: dict[str, ScheduleRow] = {}  # removed ones, too
        self.queued: dict[str, None] = {}  # insertion-ordered id sets
        self.live_attempts: dict[str, None] = {}
        self.live_nodes: dict[str, None] = {}
        self.node_leases: dict[str, dict[str, None]] = {}  # node id -> open lease ids
        self.seq = 0  # of the last record applied
        self._changed: dict[tuple[str, str], None] = {}

    @classmethod
    def from_rows(
        cls,
        *,
        jobs: Iterable[JobRow],
        attempts: Iterable[AttemptRow],
        leases: Iterable[LeaseRow],
        nodes: Iterable[NodeRow],
        flavors: Iterable[FlavorRow],
        budgets: Iterable[BudgetRow] = (),
        schedules: Iterable[ScheduleRow] = (),
        seq: int,
    ) -> State:
        """Load rows that a store kept; ``seq`` is that of its last record."""
        state = cls()
        state.seq = seq
        for job in sorted(jobs, key=lambda row: (row.queued_us, row.id)):
            state.put_job(job)
        for attempt in attempts:
            state.put_attempt(attempt)
        for node in sorted(nodes, key=lambda row: (row.requested_us, row.id)):
            state.put_node(node)
        for lease in leases:
            state.put_lease(lease)
        for flavor in flavors:
            state.put_flavor(flavor)
        for budget in budgets:
            state.put_budget(budget)
        for schedule in schedules:
            state.put_schedule(schedule)
        state._changed.clear()
        return state

    def take_changes(self) -> list[tuple[str, str]]:
        """Give (table, id) of every row changed since the last call, in order."""
        changes = list(self._changed)
        self._changed.clear()
        return changes

    def held_milli(self, node_id: str) -> int:
        """Thousandths of GPUs held on a node by open leases."""
        return sum(self.leases[lease].gpu_milli for lease in self.node_leases.get(node_id, ()))

    def held_cpus(self, node_id: str) -> int:
        """CPU cores held on a node by open leases."""
        return sum(self.leases[lease].cpus for lease in self.node_leases.get(node_id, ()))

    def holders(self, node_id: str) -> list[AttemptRow]:
        """Give the attempts that hold part of a node, oldest lease first."""
        leases = self.node_leases.get(node_id, {})
        return [self.attempts[self.leases[lease].attempt_id] for lease in leases]

    def put_job(self, row: JobRow) -> None:
        """Keep a job's row and the queue."""
        self.jobs[row.id] = row
        self._changed["jobs", row.id] = None
        if row.state is JobState.QUEUED:
            self.queued.setdefault(row.id)
        else:
            self.queued.pop(row.id, None)

    def put_attempt(self, row: AttemptRow) -> None:
        """Keep an attempt's row and the live ones."""
        self.attempts[row.id] = row
        self._changed["attempts", row.id] = None
        if row.ended:
            self.live_attempts.pop(row.id, None)
        else:
            self.live_attempts.setdefault(row.id)

    def put_lease(self, row: LeaseRow) -> None:
        """Keep a lease's row and who holds which node."""
        self.leases[row.id] = row
        self._changed["leases", row.id] = None
        for node_id in row.node_ids:
            held = self.node_leases.setdefault(node_id, {})
            if row.released_us is None:
                held.setdefault(row.id)
            else:
                held.pop(row.id, None)

    def put_node(self, row: NodeRow) -> None:
        """Keep a node's row and the live ones."""
        self.nodes[row.id] = row
        self._changed["nodes", row.id] = None
        if row.state is NodeState.GONE:
            self.live_nodes.pop(row.id, None)
        else:
            self.live_nodes.setdefault(row.id)

    def put_flavor(self, row: FlavorRow) -> None:
        """Keep a flavor's row."""
        self.flavors[row.name] = row
        self._changed["flavors", row.name] = None

    def put_budget(self, row: BudgetRow) -> None:
        """Keep a budget's row."""
        self.budgets[row.name] = row
        self._changed["budgets", row.name] = None

    def put_schedule(self, row: ScheduleRow) -> None:
        """Keep a schedule's row."""
        self.schedules[row.id] = row
        self._changed["schedules", row.id] = None

    @property
    def open_budgets(self) -> list[BudgetRow]:
        """The budgets that were not removed, by name."""
        return [row for _, row in sorted(self.budgets.items()) if row.removed_us is None]
