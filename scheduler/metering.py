"""Turn events into ledger entries: close node intervals, split them, move lost work.

``Meter.before`` is called with each event BEFORE it changes the rows: whatever the rows say was
true from the last event of the node up to this one, and that stretch is charged now. The meter
keeps two caches (how far each node is billed, and the charged time of live attempts that a
checkpoint has not made safe yet); both are rebuilt from the ledger after a restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from jobs import events as ev
from jobs.budget_events import BudgetRolled, BudgetSet
from jobs.ledger.accounts import (
    CostClass,
    attempt_account,
    idle_account,
    overhead_account,
    provider_account,
)
from jobs.ledger.entries import Entry, EntryKind, Posting, usage_id
from jobs.ledger.legs import Leg, legs_of, recast
from jobs.ledger.split import cost_between, gpu_ms_between, split
from jobs.rows import AttemptRow, JobRow, NodeRow
from jobs.state import State
from jobs.states import AttemptState, NodeState
from scheduler.spending import Spending

_SHIFTING = frozenset({CostClass.USEFUL, CostClass.DRAIN})
_USEFUL = frozenset({CostClass.USEFUL})
_DRAIN = frozenset({CostClass.DRAIN})


class Meter:
    """Charges node time to attempts, idle and overhead, in balanced entries."""

    def __init__(self, state: State) -> None:
        """Charge by the rows of ``state``, which the caller keeps folding."""
        self._state = state
        self._billed_us: dict[str, int] = {}
        self._legs: dict[str, list[Leg]] = {}  # live attempt -> legs not made safe yet
        self.spent_usd_nanos: dict[str, int] = {}  # by job that has not ended
        self.spending = Spending(state)

    def restore(self, *, billed_until: Mapping[str, int], entries: Iterable[Entry]) -> None:
        """Rebuild the caches from the ledger.

        Args:
            billed_until: end of the last usage entry of each live node.
            entries: those of every job that has not ended, in posting order.
        """
        self._billed_us = dict(billed_until)
        for entry in entries:
            if entry.kind is EntryKind.USAGE:
                self._remember(entry)
            elif entry.kind is EntryKind.RECLASS:
                self._replay_reclass(entry)
        for attempt_id in self._state.live_attempts:
            self._forget_before(attempt_id, self._state.attempts[attempt_id].last_snapshot_us)

    def floor_us(self, node_ids: Iterable[str]) -> int:
        """Give the latest instant up to which any of the nodes is billed."""
        return max((self._billed_us.get(node_id, 0) for node_id in node_ids), default=0)

    def before(self, event: ev.Event) -> list[Entry]:
        """Give the entries that an event causes; call it before the event is applied."""
        entries = [
            entry
            for node_id in _nodes_of(self._state, event)
            for entry in self._close(node_id, event.at_us)
        ]
        match event:
            case ev.CheckpointCommitted():
                entries += self._on_commit(event)
            case ev.AttemptEnded():
                entries += self._on_end(event)
            case ev.NodeGone():
                self._billed_us.pop(event.node_id, None)
            case ev.JobEnded():
                self.spent_usd_nanos.pop(event.job_id, None)
            case BudgetRolled():
                self.spending.roll(event.budget)
            case _:
                pass
        for entry in entries:
            entry.check()
        return entries

    # -- charging -------------------------------------------------------------------------

    def _close(self, node_id: str, at_us: int) -> Iterator[Entry]:
        node = self._state.nodes[node_id]
        if node.booting_us is None:
            return
        start_us = self._billed_us.get(node_id, node.booting_us)
        if at_us <= start_us:
            return
        self._billed_us[node_id] = at_us
        entry = _usage_entry(self._state, node, start_us=start_us, end_us=at_us)
        self._remember(entry)
        self.spending.add(entry)
        yield entry

    def spent(self, now_us: int) -> dict[str, int]:
        """Give what each budget's period cost up to now, entries that are still open included."""
        found = dict(self.spending.by_budget)
        rows = self._state.open_budgets
        for entry in self.unposted(now_us) if rows else ():
            for name, usd_nanos in self.spending.parts(entry, rows):
                found[name] = found.get(name, 0) + usd_nanos
        return found

    def spent_by_job(self, now_us: int) -> dict[str, int]:
        """Give what each job that has not ended cost up to now, in the same way."""
        found = dict(self.spent_usd_nanos)
        for entry in self.unposted(now_us):
            for leg in legs_of(entry):
                job_id = self._state.attempts[leg.attempt_id].job_id
                found[job_id] = found.get(job_id, 0) + leg.usd_nanos
        return found

    def unposted(self, now_us: int) -> Iterator[Entry]:
        """Give the entries that would be posted if every held node's interval ended now."""
        for node_id in self._state.live_nodes:
            node = self._state.nodes[node_id]
            if node.booting_us is not None and self._state.node_leases.get(node_id):
                start_us = self._billed_us.get(node_id, node.booting_us)
                if now_us > start_us:
                    yield _usage_entry(self._state, node, start_us=start_us, end_us=now_us)

    def _remember(self, entry: Entry) -> None:
        for leg in legs_of(entry):
            job_id = self._state.attempts[leg.attempt_id].job_id
            if not self._state.jobs[job_id].ended:
                spent = self.spent_usd_nanos.get(job_id, 0)
                self.spent_usd_nanos[job_id] = spent + leg.usd_nanos
            if leg.cost_class in _SHIFTING and leg.attempt_id in self._state.live_attempts:
                self._legs.setdefault(leg.attempt_id, []).append(leg)

    # -- moving ---------------------------------------------------------------------------

    def _on_commit(self, event: ev.CheckpointCommitted) -> list[Entry]:
        attempt = self._state.attempts[event.attempt_id]
        safe_us = event.snapshot_us
        entries: list[Entry] = []
        if attempt.draining_us is not None and safe_us > attempt.draining_us:
            window = (attempt.draining_us, safe_us)
            entries += self._recast(attempt, window, _DRAIN, CostClass.USEFUL, event.at_us)
        stall = (safe_us, safe_us + event.stall_us)
        entries += self._recast(attempt, stall, _SHIFTING, CostClass.CHECKPOINT, event.at_us)
        self._forget_before(event.attempt_id, safe_us)
        return entries

    def _on_end(self, event: ev.AttemptEnded) -> list[Entry]:
        attempt = self._state.attempts[event.attempt_id]
        everything = (0, event.at_us)
        entries: list[Entry] = []
        if event.state is AttemptState.SUCCEEDED:
            entries += self._recast(attempt, everything, _DRAIN, CostClass.USEFUL, event.at_us)
        else:
            entries += self._recast(attempt, everything, _USEFUL, CostClass.LOST, event.at_us)
            if _saved_in_drain(attempt):
                target = CostClass.CHECKPOINT  # waited for the save to become durable
                entries += self._recast(attempt, everything, _DRAIN, target, event.at_us)
        self._legs.pop(event.attempt_id, None)
        return entries

    def _recast(
        self,
        attempt: AttemptRow,
        window: tuple[int, int],
        from_classes: frozenset[CostClass],
        to_class: CostClass,
        posted_us: int,
    ) -> list[Entry]:
        legs, entries = recast(
            self._legs.get(attempt.id, ()),
            window=window,
            from_classes=from_classes,
            to_class=to_class,
            posted_us=posted_us,
        )
        self._legs[attempt.id] = legs
        return entries

    def _forget_before(self, attempt_id: str, safe_us: int | None) -> None:
        if safe_us is None or attempt_id not in self._legs:
            return
        kept: list[Leg] = []
        for leg in self._legs[attempt_id]:
            if leg.end_us <= safe_us:
                continue
            kept.append(leg.cut(safe_us)[1] if leg.start_us < safe_us else leg)
        self._legs[attempt_id] = kept

    def _replay_reclass(self, entry: Entry) -> None:
        (attempt_id,) = entry.attempt_ids
        moved = next(iter(legs_of(entry)))
        target = [leg for leg in legs_of(entry) if leg.usd_nanos > 0 or leg.gpu_ms > 0]
        if attempt_id not in self._state.live_attempts or not target:
            return
        others = [leg for leg in self._legs.get(attempt_id, []) if not _same_node(leg, entry)]
        mine = [leg for leg in self._legs.get(attempt_id, []) if _same_node(leg, entry)]
        recasted, _ = recast(
            mine,
            window=(entry.start_us, entry.end_us),
            from_classes=frozenset({moved.cost_class}),
            to_class=target[0].cost_class,
            posted_us=entry.posted_us,
        )
        self._legs[attempt_id] = others + recasted


def _same_node(leg: Leg, entry: Entry) -> bool:
    return leg.entry.node_id == entry.node_id


def _saved_in_drain(attempt: AttemptRow) -> bool:
    return (
        attempt.draining_us is not None
        and attempt.last_snapshot_us is not None
        and attempt.last_snapshot_us >= attempt.draining_us
    )


def _nodes_of(state: State, event: ev.Event) -> Iterable[str]:
    """Give the nodes whose holders, phase or price the event changes."""
    match event:
        case ev.AttemptLeased():
            return event.node_ids
        case ev.AttemptMoved() | ev.CheckpointCommitted() | ev.AttemptEnded():
            return state.attempts[event.attempt_id].node_ids
        case ev.NodeReady() | ev.NodeDraining() | ev.NodeGone():
            return (event.node_id,)
        case BudgetSet() | BudgetRolled():  # an entry belongs to one period
            return tuple(state.live_nodes)
        case ev.FlavorPriced():
            return tuple(
                node_id
                for node_id in state.live_nodes
                if state.nodes[node_id].flavor == event.flavor
            )
        case _:
            return ()


def class_of(attempt: AttemptRow, job: JobRow) -> CostClass:
    """Give the class of the time that the attempt holds in its present state.

    An earlier attempt whose nodes never launched held nothing: the first startup is still ahead.
    """
    match attempt.state:
        case AttemptState.LEASED | AttemptState.STARTING:
            again = job.failures + job.evictions + job.preemptions > 0
            return CostClass.REPEAT_STARTUP if again else CostClass.STARTUP
        case AttemptState.RESTORING:
            return CostClass.RESTORE
        case AttemptState.TRAINING:
            return CostClass.USEFUL
        case AttemptState.DRAINING:
            return CostClass.DRAIN
        case _:
            msg = f"an ended attempt holds nothing: {attempt!r}"
            raise AssertionError(msg)


def _usage_entry(state: State, node: NodeRow, *, start_us: int, end_us: int) -> Entry:
    assert node.booting_us is not None
    flavor = state.flavors[node.flavor]
    holders = state.holders(node.id)
    weights, accounts = _shares(state, node, holders)
    since_us = min(start_us, max(node.booting_us, flavor.priced_us))
    paid = cost_between(
        start_us, end_us, since_us=since_us, usd_nanos_per_hour=flavor.usd_nanos_per_hour
    )
    listed = cost_between(
        start_us, end_us, since_us=since_us, usd_nanos_per_hour=flavor.list_usd_nanos_per_hour
    )
    gpu_ms = gpu_ms_between(start_us, end_us, since_us=node.booting_us, gpu_milli=node.gpu_milli)
    origin = Posting(
        account=provider_account(node.id),
        usd_nanos=-paid,
        gpu_ms=-gpu_ms,
        list_usd_nanos=-listed,
    )
    debits = (
        Posting(account=account, usd_nanos=usd, gpu_ms=ms, list_usd_nanos=listed_part)
        for account, usd, ms, listed_part in zip(
            accounts,
            split(paid, weights=weights),
            split(gpu_ms, weights=weights),
            split(listed, weights=weights),
            strict=True,
        )
    )
    return Entry(
        id=usage_id(node.id, start_us=start_us, end_us=end_us),
        kind=EntryKind.USAGE,
        posted_us=end_us,
        start_us=start_us,
        end_us=end_us,
        node_id=node.id,
        flavor=node.flavor,
        usd_nanos_per_hour=flavor.usd_nanos_per_hour,
        list_usd_nanos_per_hour=flavor.list_usd_nanos_per_hour,
        price_source=flavor.price_source,
        attempt_ids=tuple(holder.id for holder in holders),
        postings=(origin, *debits),
    )


def _shares(state: State, node: NodeRow, holders: list[AttemptRow]) -> tuple[list[int], list[str]]:
    """Give weights and accounts: the holders', then what nobody held (a CPU node: by cores)."""
    by_gpu = node.gpu_milli > 0
    capacity = node.gpu_milli if by_gpu else node.cpus
    leases = [state.leases[holder.lease_id] for holder in holders]
    weights = [lease.gpu_milli if by_gpu else lease.cpus for lease in leases]
    accounts = [
        attempt_account(holder.id, class_of(holder, state.jobs[holder.job_id]))
        for holder in holders
    ]
    free = capacity - sum(weights)
    assert free >= 0, f"negative idle on {node!r}: {weights} of {capacity}"
    if free:
        usable = node.state is NodeState.READY
        account = idle_account(node.flavor) if usable else overhead_account(node.flavor)
        return [*weights, free], [*accounts, account]
    return weights, accounts
