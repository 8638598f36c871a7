"""The present as a fold of the past: ``apply(state, record)`` makes new rows from old ones.

This is the only code that changes rows. It is deterministic and total over legal histories, so
the journal alone rebuilds every row (``replay``), which ``lowtide audit`` checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from jobs import budget_fold, schedule_fold
from jobs import events as ev
from jobs.reasons import Reason
from jobs.rows import KEPT_LEVELS, AttemptRow, FlavorRow, JobRow, LeaseRow, NodeRow, RestorePoint
from jobs.state import State
from jobs.states import AttemptState, JobState, NodeState, check_move

_COUNTERS = {
    AttemptState.EVICTED: "evictions",
    AttemptState.LOST: "evictions",
    AttemptState.PREEMPTED: "preemptions",
    AttemptState.FAILED: "failures",
}

_CAUSES = {
    Reason.LAUNCH_FAILED: "launch_failures",  # that is nobody's eviction
    Reason.HEARTBEAT_LOST: "lost",  # nor is that: the node may be as well as ever
}


def replay(records: Iterable[ev.Record]) -> State:
    """Rebuild the state from a whole journal."""
    state = State()
    for record in records:
        apply(state, record)
    return state


def apply(state: State, record: ev.Record) -> None:
    """Fold one record in.

    Raises:
        AssertionError: the event is not legal now (a bug of ours); the message tells the
            subject's story.
    """
    assert record.seq == state.seq + 1, f"record {record.seq} after {state.seq}"
    state.seq = record.seq
    _HANDLERS[type(record.event)](state, record.event)


def _move_job(row: JobRow, to: JobState, **changes: object) -> JobRow:
    check_move(row.state, to, story=row)
    at_us = changes["changed_us"]
    assert isinstance(at_us, int)
    if row.state is JobState.QUEUED:
        waited = max(0, at_us - row.queued_us) // 1_000
        changes["waited_ms"] = row.waited_ms + waited
    return replace(row, state=to, **changes)  # type: ignore[arg-type]


def _on_submitted(state: State, e: ev.JobSubmitted) -> None:
    assert e.job_id not in state.jobs, f"job {e.job_id} submitted twice"
    row = JobRow(
        id=e.job_id,
        spec=e.spec,
        owner=e.owner,
        state=JobState.QUEUED,
        reason=Reason.NEW,
        sentence="Just submitted.",
        submitted_us=e.at_us,
        queued_us=e.at_us,
        changed_us=e.at_us,
        deadline_us=e.deadline_us,
        work_ms=e.spec.work or 0,
        array=e.array,
        group=e.group,
    )
    state.put_job(row)


def _on_quoted(state: State, e: ev.JobQuoted) -> None:
    """Change nothing: a quote is for whoever reads the journal."""
    assert e.job_id in state.jobs, f"a quote for no job: {e!r}"


def _on_deferred(state: State, e: ev.JobDeferred) -> None:
    state.put_job(replace(state.jobs[e.job_id], reason=e.reason, sentence=e.sentence))


def _on_held(state: State, e: ev.JobHeld) -> None:
    state.put_job(replace(state.jobs[e.job_id], held=e.held))


def _on_cancel_requested(state: State, e: ev.JobCancelRequested) -> None:
    state.put_job(replace(state.jobs[e.job_id], cancel_requested=True))


def _on_requeued(state: State, e: ev.JobRequeued) -> None:
    row = state.jobs[e.job_id]
    moved = _move_job(row, JobState.QUEUED, changed_us=e.at_us, queued_us=e.at_us)
    step = row.restore_point.step if row.restore_point else 0
    state.put_job(replace(moved, reason=e.reason, sentence=e.sentence, attempt_id="", step=step))


def _on_job_ended(state: State, e: ev.JobEnded) -> None:
    row = _move_job(state.jobs[e.job_id], e.state, changed_us=e.at_us)
    state.put_job(
        replace(row, reason=e.reason, sentence=e.sentence, attempt_id="", ended_us=e.at_us)
    )


def _on_leased(state: State, e: ev.AttemptLeased) -> None:
    job = state.jobs[e.job_id]
    assert e.number == job.attempts + 1, f"attempt {e.attempt_id} out of turn: {job!r}"
    state.put_lease(
        LeaseRow(
            id=e.lease_id,
            attempt_id=e.attempt_id,
            node_ids=e.node_ids,
            gpu_milli=e.gpu_milli,
            cpus=e.cpus,
            token=e.token,
            granted_us=e.at_us,
        )
    )
    before = state.attempts.get(f"{e.job_id}/{e.number - 1}")
    reached = max(before.step, before.reached) if before else 0
    state.put_attempt(replace(_leased_attempt(e), reached=reached))
    for node_id in e.node_ids:
        _touch_idle(state, node_id, at_us=e.at_us)
    moved = _move_job(job, JobState.ADMITTED, changed_us=e.at_us)
    net = job.on_safety_net or e.reason is Reason.SAFETY_NET
    state.put_job(
        replace(
            moved,
            attempts=e.number,
            attempt_id=e.attempt_id,
            reason=e.reason,
            sentence=e.sentence,
            on_safety_net=net,
        )
    )


def _on_attempt_moved(state: State, e: ev.AttemptMoved) -> None:
    row = state.attempts[e.attempt_id]
    check_move(row.state, e.state, story=row)
    job = state.jobs[row.job_id]
    match e.state:
        case AttemptState.STARTING:
            row = replace(row, started_us=e.at_us)
            state.put_job(_move_job(job, JobState.RUNNING, changed_us=e.at_us))
        case AttemptState.TRAINING:
            row = replace(row, training_us=e.at_us, first_step=e.step, step=e.step)
            row = _caught_up(row, at_us=e.at_us)
            total = e.total_steps or job.total_steps
            state.put_job(replace(job, step=e.step, total_steps=total))
        case AttemptState.DRAINING:
            row = replace(row, draining_us=e.at_us, drain_deadline_us=e.deadline_us)
        case _:
            pass
    state.put_attempt(replace(row, state=e.state, reason=e.reason))


def _on_opened(state: State, e: ev.AttemptOpened) -> None:
    row = state.attempts[e.attempt_id]
    state.put_attempt(
        replace(row, process_us=e.process_us, opened_us=e.opened_us, standby=e.standby)
    )


def _on_silent(state: State, e: ev.AttemptSilent) -> None:
    state.put_attempt(replace(state.attempts[e.attempt_id], silent_us=e.silent_us))


def _caught_up(row: AttemptRow, *, at_us: int) -> AttemptRow:
    """Note when the attempt is where the one before it had been."""
    if row.caught_up_us is not None or row.step < row.reached:
        return row
    return replace(row, caught_up_us=at_us)


def _on_progressed(state: State, e: ev.AttemptProgressed) -> None:
    row = replace(state.attempts[e.attempt_id], step=e.step)
    state.put_attempt(_caught_up(row, at_us=e.at_us))
    job = state.jobs[row.job_id]
    state.put_job(
        replace(job, step=e.step, total_steps=e.total_steps, work_ms=e.work_ms or job.work_ms)
    )


def _on_committed(state: State, e: ev.CheckpointCommitted) -> None:
    row = state.attempts[e.attempt_id]
    state.put_attempt(
        replace(
            row,
            last_snapshot_us=e.snapshot_us,
            stall_us=row.stall_us + e.stall_us,
            saves=row.saves + 1,
        )
    )
    point = RestorePoint(
        step=e.step,
        snapshot_us=e.snapshot_us,
        committed_us=e.at_us,
        manifest=e.manifest,
        epoch=row.number,
    )
    state.put_job(replace(state.jobs[row.job_id], restore_point=point))


def _on_attempt_ended(state: State, e: ev.AttemptEnded) -> None:
    row = state.attempts[e.attempt_id]
    check_move(row.state, e.state, story=row)
    state.put_attempt(
        replace(
            row,
            state=e.state,
            reason=e.reason,
            ended_us=e.at_us,
            exit_code=e.exit_code,
            detail=e.detail,
        )
    )
    state.put_lease(replace(state.leases[row.lease_id], released_us=e.at_us))
    for node_id in row.node_ids:
        _touch_idle(state, node_id, at_us=e.at_us)
    state.put_job(_counted(state.jobs[row.job_id], row, e))


def _counted(job: JobRow, attempt: AttemptRow, e: ev.AttemptEnded) -> JobRow:
    """Count an attempt's end against its own cause, and its time on capacity."""
    lasted_us = 0 if attempt.started_us is None else max(0, e.at_us - attempt.started_us)
    job = replace(job, runtime_ms=job.runtime_ms + lasted_us // 1_000)
    if e.state is AttemptState.FAILED:
        job = replace(job, last_error=e.detail or job.last_error)
    counter = _CAUSES.get(e.reason) or _COUNTERS.get(e.state)
    return replace(job, **{counter: getattr(job, counter) + 1}) if counter else job


def _on_node_requested(state: State, e: ev.NodeRequested) -> None:
    assert e.node_id not in state.nodes, f"node {e.node_id} requested twice"
    state.put_node(
        NodeRow(
            id=e.node_id,
            cluster=e.cluster,
            flavor=e.flavor,
            state=NodeState.REQUESTED,
            reason=e.reason,
            gpu_milli=e.gpu_milli,
            cpus=e.cpus,
            requested_us=e.at_us,
            changed_us=e.at_us,
        )
    )


def _on_node_booting(state: State, e: ev.NodeBooting) -> None:
    row = _moved_node(state, e.node_id, NodeState.BOOTING, at_us=e.at_us)
    state.put_node(replace(row, booting_us=e.at_us))


def _on_node_ready(state: State, e: ev.NodeReady) -> None:
    row = _moved_node(state, e.node_id, NodeState.READY, at_us=e.at_us)
    booting = row.booting_us if row.booting_us is not None else e.at_us
    state.put_node(replace(row, ready_us=e.at_us, booting_us=booting, address=e.address))
    _touch_idle(state, e.node_id, at_us=e.at_us)
    flavor = state.flavors[row.flavor]
    if flavor.launch_failures:
        state.put_flavor(replace(flavor, launch_failures=0, backoff_until_us=0))


def _on_node_draining(state: State, e: ev.NodeDraining) -> None:
    row = _moved_node(state, e.node_id, NodeState.DRAINING, at_us=e.at_us)
    state.put_node(
        replace(row, reason=e.reason, noticed=e.noticed, drain_deadline_us=e.deadline_us)
    )


def _on_node_gone(state: State, e: ev.NodeGone) -> None:
    assert not state.node_leases.get(e.node_id), f"node {e.node_id} went with open leases"
    row = _moved_node(state, e.node_id, NodeState.GONE, at_us=e.at_us)
    state.put_node(replace(row, reason=e.reason, gone_us=e.at_us, idle_since_us=None))
    flavor = state.flavors[row.flavor]
    up_us = e.at_us - row.ready_us if row.ready_us is not None else 0
    taken = int(e.reason in {Reason.EVICTED, Reason.NODE_LOST} and row.ready_us is not None)
    state.put_flavor(
        replace(
            flavor,
            exposure_ms=flavor.exposure_ms + max(0, up_us) // 1_000,
            evictions=flavor.evictions + taken,
            noticed=flavor.noticed + (taken if e.reason is Reason.EVICTED else 0),
        )
    )


def _on_node_cordoned(state: State, e: ev.NodeCordoned) -> None:
    state.put_node(replace(state.nodes[e.node_id], cordoned=e.cordoned))


def _on_eviction_requested(state: State, e: ev.EvictionRequested) -> None:
    state.put_node(replace(state.nodes[e.node_id], evict_notice_ms=e.notice_ms))


def _moved_node(state: State, node_id: str, to: NodeState, *, at_us: int) -> NodeRow:
    row = state.nodes[node_id]
    check_move(row.state, to, story=row)
    return replace(row, state=to, changed_us=at_us)


def _touch_idle(state: State, node_id: str, *, at_us: int) -> None:
    row = state.nodes[node_id]
    idle = row.state is NodeState.READY and not state.node_leases.get(node_id)
    state.put_node(replace(row, idle_since_us=at_us if idle else None))


def _on_priced(state: State, e: ev.FlavorPriced) -> None:
    old = state.flavors.get(e.flavor)
    row = FlavorRow(
        name=e.flavor,
        usd_nanos_per_hour=e.usd_nanos_per_hour,
        list_usd_nanos_per_hour=e.list_usd_nanos_per_hour,
        price_source=e.price_source,
        priced_us=e.at_us,
        limit=0,
    )
    if old is not None:
        row = replace(
            old,
            usd_nanos_per_hour=e.usd_nanos_per_hour,
            list_usd_nanos_per_hour=e.list_usd_nanos_per_hour,
            price_source=e.price_source,
            priced_us=e.at_us,
        )
    state.put_flavor(row)


def _on_limited(state: State, e: ev.FlavorLimited) -> None:
    row = state.flavors[e.flavor]
    observed_us = e.at_us if e.observed else row.limited_us
    levels = row.levels
    if e.observed and (not levels or levels[-1][1] != e.limit):
        levels = (*levels, (e.at_us, e.limit))[-KEPT_LEVELS:]
    state.put_flavor(replace(row, limit=e.limit, limited_us=observed_us, levels=levels))


def _on_backed_off(state: State, e: ev.LaunchBackedOff) -> None:
    row = state.flavors[e.flavor]
    state.put_flavor(
        replace(row, backoff_until_us=e.until_us, launch_failures=row.launch_failures + 1)
    )


def _leased_attempt(e: ev.AttemptLeased) -> AttemptRow:
    return AttemptRow(
        id=e.attempt_id,
        job_id=e.job_id,
        number=e.number,
        state=AttemptState.LEASED,
        reason=e.reason,
        cluster=e.cluster,
        flavor=e.flavor,
        node_ids=e.node_ids,
        gpu_milli=e.gpu_milli,
        lease_id=e.lease_id,
        created_us=e.at_us,
    )


_HANDLERS: dict[type, Callable[[State, Any], None]] = {
    ev.JobSubmitted: _on_submitted,
    ev.JobQuoted: _on_quoted,
    ev.WindowsSet: lambda _state, _event: None,  # prices follow as events of their own
    ev.JobDeferred: _on_deferred,
    ev.JobHeld: _on_held,
    ev.JobCancelRequested: _on_cancel_requested,
    ev.JobRequeued: _on_requeued,
    ev.JobEnded: _on_job_ended,
    ev.AttemptLeased: _on_leased,
    ev.AttemptMoved: _on_attempt_moved,
    ev.AttemptOpened: _on_opened,
    ev.AttemptSilent: _on_silent,
    ev.AttemptProgressed: _on_progressed,
    ev.CheckpointCommitted: _on_committed,
    ev.AttemptEnded: _on_attempt_ended,
    ev.NodeRequested: _on_node_requested,
    ev.NodeBooting: _on_node_booting,
    ev.NodeReady: _on_node_ready,
    ev.NodeDraining: _on_node_draining,
    ev.NodeGone: _on_node_gone,
    ev.NodeCordoned: _on_node_cordoned,
    ev.EvictionRequested: _on_eviction_requested,
    ev.FlavorPriced: _on_priced,
    ev.FlavorLimited: _on_limited,
    ev.LaunchBackedOff: _on_backed_off,
    **budget_fold.HANDLERS,
    **schedule_fold.HANDLERS,
}
