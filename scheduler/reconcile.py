"""Turn observations into events. It never acts, and never decides anything that costs money.

Each function is a generator: the caller applies an event before it asks for the next one, so
later events are made from rows that already hold the earlier ones. A notice that tells nothing
new (a repetition, or about something that is over) gives no event, so a notice may come any
number of times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from cluster import notices as nt
from jobs import events as ev
from jobs.reasons import Reason
from jobs.rows import AttemptRow, FlavorRow, JobRow, NodeRow
from jobs.state import State
from jobs.states import AttemptState, NodeState
from scheduler.endings import end_attempt, is_started

_MIN_STEPS_FOR_RATE = 5
_BEFORE_TRAINING = frozenset({AttemptState.STARTING, AttemptState.RESTORING})


def reconcile(state: State, notice: nt.Notice, *, cooldown_ms: int) -> Iterator[ev.Event]:
    """Give the events that a notice means for the present rows."""
    match notice:
        case nt.NodeBooted() | nt.NodeJoined() | nt.LaunchFailed():
            yield from _node_came(state, notice, cooldown_ms=cooldown_ms)
        case nt.EvictionNoticed() | nt.NodeLost() | nt.NodeReleased():
            yield from _node_goes(state, notice)
        case nt.CapacitySeen():
            flavor = state.flavors.get(notice.flavor)
            if flavor is not None and _is_news(flavor, notice):
                yield ev.FlavorLimited(at_us=notice.at_us, flavor=notice.flavor, limit=notice.limit)
        case (
            nt.WorkersUp()
            | nt.ChildOpened()
            | nt.RestoreBegan()
            | nt.TrainingBegan()
            | nt.Progressed()
            | nt.Committed()
            | nt.WorkerSilent()
            | nt.AttemptOver()
        ):
            attempt = state.attempts.get(notice.attempt_id)
            if attempt is not None and not attempt.ended:
                yield from _attempt_news(state, attempt, notice)
        case _:
            assert_never(notice)


def _is_news(flavor: FlavorRow, notice: nt.CapacitySeen) -> bool:
    """Whether a level was seen after the one that is known: an old one says nothing."""
    if notice.at_us == flavor.limited_us:
        return notice.limit != flavor.limit
    return notice.at_us > flavor.limited_us


# -- nodes ----------------------------------------------------------------------------------


def _node_came(
    state: State, notice: nt.NodeBooted | nt.NodeJoined | nt.LaunchFailed, *, cooldown_ms: int
) -> Iterator[ev.Event]:
    node = state.nodes.get(notice.node_id)
    if node is None:
        if isinstance(notice, nt.NodeJoined) and notice.flavor in state.flavors:
            yield from _unasked(notice)
        return
    young = node.state in {NodeState.REQUESTED, NodeState.BOOTING}
    if isinstance(notice, nt.NodeBooted):
        if node.state is NodeState.REQUESTED:
            yield ev.NodeBooting(at_us=notice.at_us, node_id=node.id)
    elif isinstance(notice, nt.NodeJoined):
        if young:
            yield ev.NodeReady(at_us=notice.at_us, node_id=node.id, address=notice.address)
    elif young:
        yield from _launch_failed(state, node, notice, cooldown_ms=cooldown_ms)


def _unasked(notice: nt.NodeJoined) -> Iterator[ev.Event]:
    """A node that somebody else runs joined by itself."""
    yield ev.NodeRequested(
        at_us=notice.at_us,
        node_id=notice.node_id,
        cluster=notice.cluster,
        flavor=notice.flavor,
        gpu_milli=notice.gpu_milli,
        cpus=notice.cpus,
        reason=Reason.JOINED,
    )
    yield ev.NodeReady(at_us=notice.at_us, node_id=notice.node_id, address=notice.address)


def _launch_failed(
    state: State, node: NodeRow, notice: nt.LaunchFailed, *, cooldown_ms: int
) -> Iterator[ev.Event]:
    flavor = state.flavors[node.flavor]
    if flavor.backoff_until_us <= notice.at_us:  # launches that fail together count once
        pause_us = (cooldown_ms << min(flavor.launch_failures, 6)) * 1_000
        yield ev.LaunchBackedOff(
            at_us=notice.at_us, flavor=node.flavor, until_us=notice.at_us + pause_us
        )
    for attempt in state.holders(node.id):
        yield from end_attempt(
            state,
            attempt,
            at_us=notice.at_us,
            outcome=AttemptState.LOST,
            reason=Reason.LAUNCH_FAILED,
            detail=notice.detail,
        )
    yield ev.NodeGone(
        at_us=notice.at_us, node_id=node.id, reason=Reason.LAUNCH_FAILED, detail=notice.detail
    )


def _node_goes(
    state: State, notice: nt.EvictionNoticed | nt.NodeLost | nt.NodeReleased
) -> Iterator[ev.Event]:
    node = state.nodes.get(notice.node_id)
    if node is None or node.state is NodeState.GONE:
        return
    if isinstance(notice, nt.EvictionNoticed):
        yield from _eviction_noticed(state, node, notice)
    elif isinstance(notice, nt.NodeLost):
        noticed = notice.noticed or node.noticed
        yield from _gone(
            state,
            node,
            at_us=notice.at_us,
            reason=Reason.EVICTED if noticed else Reason.NODE_LOST,
            detail=notice.detail,
        )
    else:
        ours = node.state is NodeState.DRAINING and not node.noticed
        reason = node.reason if ours else Reason.NODE_LOST
        yield from _gone(state, node, at_us=notice.at_us, reason=reason, detail="")


def _eviction_noticed(
    state: State, node: NodeRow, notice: nt.EvictionNoticed
) -> Iterator[ev.Event]:
    if node.state is NodeState.DRAINING or node.state is NodeState.REQUESTED:
        return
    holders = state.holders(node.id)
    issued = {attempt.id for attempt in holders if is_started(state, attempt)}
    yield ev.NodeDraining(
        at_us=notice.at_us,
        node_id=node.id,
        reason=Reason.EVICTED,
        noticed=True,
        deadline_us=notice.deadline_us,
    )
    for attempt in holders:
        if attempt.state is AttemptState.DRAINING:
            continue
        if attempt.id in issued:
            yield ev.AttemptMoved(
                at_us=notice.at_us,
                attempt_id=attempt.id,
                state=AttemptState.DRAINING,
                reason=Reason.EVICTED,
                deadline_us=notice.deadline_us,
            )
        else:  # it only waited for the gang's other nodes
            yield from end_attempt(
                state,
                attempt,
                at_us=notice.at_us,
                outcome=AttemptState.EVICTED,
                reason=Reason.EVICTED,
            )


def _gone(
    state: State, node: NodeRow, *, at_us: int, reason: Reason, detail: str
) -> Iterator[ev.Event]:
    outcome = AttemptState.EVICTED if reason is Reason.EVICTED else AttemptState.LOST
    for attempt in state.holders(node.id):
        yield from end_attempt(
            state, attempt, at_us=at_us, outcome=outcome, reason=reason, detail=detail
        )
    yield ev.NodeGone(at_us=at_us, node_id=node.id, reason=reason, detail=detail)


# -- attempts -------------------------------------------------------------------------------


def _attempt_news(
    state: State, attempt: AttemptRow, notice: nt.AttemptNotice
) -> Iterator[ev.Event]:
    if isinstance(notice, nt.AttemptOver):
        yield from _attempt_over(state, attempt, notice)
        return
    if isinstance(notice, nt.WorkerSilent):
        yield from _silent(attempt, notice)
        return
    if attempt.state is AttemptState.LEASED:
        yield _moved(attempt, AttemptState.STARTING, at_us=notice.at_us)
        attempt = state.attempts[attempt.id]
    match notice:
        case nt.ChildOpened():
            yield from _opened(attempt, notice)
        case nt.RestoreBegan() | nt.TrainingBegan():
            yield from _began(attempt, notice)
        case nt.Progressed():
            yield from _progressed(state, attempt, notice)
        case nt.Committed():
            yield from _committed(state, attempt, notice)
        case _:
            pass


def _began(
    attempt: AttemptRow, notice: nt.RestoreBegan | nt.TrainingBegan
) -> Iterator[ev.AttemptMoved]:
    if isinstance(notice, nt.TrainingBegan):
        if attempt.state in _BEFORE_TRAINING:
            yield _training(attempt, notice)
    elif attempt.state is AttemptState.STARTING:
        yield _moved(attempt, AttemptState.RESTORING, at_us=notice.at_us)


def _moved(attempt: AttemptRow, to: AttemptState, *, at_us: int) -> ev.AttemptMoved:
    return ev.AttemptMoved(at_us=at_us, attempt_id=attempt.id, state=to, reason=attempt.reason)


def _silent(attempt: AttemptRow, notice: nt.WorkerSilent) -> Iterator[ev.AttemptSilent]:
    at_us = notice.at_us
    if attempt.silent_us is None or attempt.silent_us < at_us:
        yield ev.AttemptSilent(at_us=at_us, attempt_id=attempt.id, silent_us=at_us)


def _opened(attempt: AttemptRow, notice: nt.ChildOpened) -> Iterator[ev.AttemptOpened]:
    if attempt.opened_us is None:
        yield ev.AttemptOpened(
            at_us=notice.at_us,
            attempt_id=attempt.id,
            process_us=notice.process_us,
            opened_us=notice.at_us,
            standby=notice.standby,
        )


def _training(attempt: AttemptRow, notice: nt.TrainingBegan) -> ev.AttemptMoved:
    return ev.AttemptMoved(
        at_us=notice.at_us,
        attempt_id=attempt.id,
        state=AttemptState.TRAINING,
        reason=attempt.reason,
        step=notice.step,
        total_steps=notice.total_steps,
    )


def _progressed(state: State, attempt: AttemptRow, notice: nt.Progressed) -> Iterator[ev.Event]:
    if notice.step <= attempt.step or attempt.training_us is None:
        return
    job = state.jobs[attempt.job_id]
    yield ev.AttemptProgressed(
        at_us=notice.at_us,
        attempt_id=attempt.id,
        step=notice.step,
        total_steps=notice.total_steps or job.total_steps,
        work_ms=_estimate_work_ms(job, attempt, notice),
    )


def _estimate_work_ms(job: JobRow, attempt: AttemptRow, notice: nt.Progressed) -> int:
    """Whole useful time = time per step in this attempt x total; the user's word until then."""
    steps = notice.step - attempt.first_step
    assert attempt.training_us is not None
    trained_us = notice.at_us - attempt.training_us - attempt.stall_us
    if steps < _MIN_STEPS_FOR_RATE or trained_us <= 0 or not notice.total_steps:
        return job.work_ms
    return max(1, trained_us * notice.total_steps // steps // 1_000)


def _committed(state: State, attempt: AttemptRow, notice: nt.Committed) -> Iterator[ev.Event]:
    point = state.jobs[attempt.job_id].restore_point
    known = point is not None and (point.epoch, point.step, point.snapshot_us) >= (
        attempt.number,
        notice.step,
        notice.snapshot_us,
    )
    if known:
        return
    began_us = attempt.training_us or attempt.started_us or attempt.created_us
    yield ev.CheckpointCommitted(
        at_us=notice.at_us,
        attempt_id=attempt.id,
        step=notice.step,
        snapshot_us=min(max(notice.snapshot_us, began_us), notice.at_us),
        stall_us=notice.stall_us,
        size_bytes=notice.size_bytes,
        new_bytes=notice.new_bytes,
        manifest=notice.manifest,
    )


def _attempt_over(state: State, attempt: AttemptRow, notice: nt.AttemptOver) -> Iterator[ev.Event]:
    outcome, reason = _verdict(state, attempt, notice)
    if attempt.state is AttemptState.LEASED and outcome is AttemptState.SUCCEEDED:
        yield _moved(attempt, AttemptState.STARTING, at_us=notice.at_us)
        attempt = state.attempts[attempt.id]
    yield from end_attempt(
        state,
        attempt,
        at_us=notice.at_us,
        outcome=outcome,
        reason=reason,
        exit_code=notice.exit_code,
        detail=notice.detail,
    )


def _verdict(
    state: State, attempt: AttemptRow, notice: nt.AttemptOver
) -> tuple[AttemptState, Reason]:
    """Say whose doing the end was: the cloud's and ours are never charged to the user."""
    noticed = any(state.nodes[node_id].noticed for node_id in attempt.node_ids)
    match notice.outcome:
        case nt.Outcome.SUCCEEDED:
            return AttemptState.SUCCEEDED, Reason.FINISHED
        case nt.Outcome.NODE_LOST if not noticed:
            return AttemptState.LOST, Reason.NODE_LOST
        case nt.Outcome.HEARTBEAT_LOST if not noticed:
            return AttemptState.LOST, Reason.HEARTBEAT_LOST
        case nt.Outcome.FAILED if attempt.state is not AttemptState.DRAINING:
            return AttemptState.FAILED, Reason.USER_ERROR
        case _ if noticed:
            return AttemptState.EVICTED, Reason.EVICTED
        case _ if attempt.state is not AttemptState.DRAINING:
            return AttemptState.PREEMPTED, Reason.OPERATOR  # not the cloud, and not us either
        case _:
            return AttemptState.PREEMPTED, attempt.reason
