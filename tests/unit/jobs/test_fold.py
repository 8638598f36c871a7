"""The fold from events to rows: any legal history replays, anything illegal is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import events as ev
from jobs.codec import decode, encode
from jobs.events import Record
from jobs.fold import apply, replay
from jobs.memory_store import MemoryStore
from jobs.reasons import Reason
from jobs.state import State
from jobs.states import ATTEMPT_EDGES, ATTEMPT_ENDS, AttemptState, JobState, NodeState
from tests.builders import START_US, History, a_job

Step = Callable[[], object]
TABLES = ("jobs", "attempts", "leases", "nodes", "flavors", "seq")


def job_steps(history: History, job_id: str) -> list[Step]:
    """What may happen to a job now."""
    row, state = history.state.jobs[job_id], history.state
    deferred = ev.JobDeferred(
        at_us=history.now_us, job_id=job_id, reason=Reason.WAITS_FOR_SPOT, sentence="Waits."
    )
    held = ev.JobHeld(at_us=history.now_us, job_id=job_id, held=not row.held)
    if row.ended:
        return []
    if row.state is JobState.QUEUED:
        usable = [name for name, node in state.nodes.items() if node.usable]
        steps: list[Step] = [partial(history.lease, job_id, name) for name in usable]
        cancel = partial(history.finish, job_id, JobState.CANCELLED)
        return [*steps, cancel, partial(history.add, job_id, deferred)]
    return [*attempt_steps(history, row.attempt_id), partial(history.add, job_id, held)]


def attempt_steps(history: History, attempt_id: str) -> list[Step]:
    """What may happen to a live attempt now, up to its end with the job's requeue or end."""
    row = history.state.attempts[attempt_id]
    follow = [to for old, to in sorted(ATTEMPT_EDGES) if old is row.state]
    steps: list[Step] = [
        partial(history.move, attempt_id, to) for to in follow if to not in ATTEMPT_ENDS
    ]
    steps += [partial(end, history, attempt_id, to) for to in follow if to in ATTEMPT_ENDS]
    if row.state is AttemptState.TRAINING:
        steps.append(partial(history.save, attempt_id, step=row.step + 1))
    return steps


def end(history: History, attempt_id: str, to: AttemptState) -> None:
    """End an attempt and what follows from it for the job."""
    job_id = attempt_id.rpartition("/")[0]
    if to is AttemptState.SUCCEEDED:
        history.finish(job_id)
    else:
        history.end(attempt_id, to, reason=Reason.EVICTED).requeue(job_id)


def node_steps(history: History, node_id: str) -> list[Step]:
    """What may happen to a node now."""
    row, at_us = history.state.nodes[node_id], history.now_us
    cordon = ev.NodeCordoned(at_us=at_us, node_id=node_id, cordoned=not row.cordoned)
    draining = ev.NodeDraining(
        at_us=at_us, node_id=node_id, reason=Reason.EVICTED, noticed=True, deadline_us=at_us
    )
    steps: list[Step] = []
    if row.state in {NodeState.REQUESTED, NodeState.BOOTING}:
        steps.append(partial(history.ready, node_id))
    if row.state is NodeState.READY:
        steps += [partial(history.add, node_id, event) for event in (cordon, draining)]
    if row.state is not NodeState.GONE and not history.state.holders(node_id):
        steps.append(partial(history.gone, node_id, reason=Reason.EVICTED))
    return steps


def a_random_history(draw: Callable[[st.SearchStrategy[Step]], Step], length: int) -> History:
    """Take legal steps."""
    history = History().ready("node-0")
    for _ in range(length):
        state = history.state
        steps: list[Step] = [
            partial(history.submit, f"job-{len(state.jobs)}"),
            partial(history.request, f"node-{len(state.nodes)}"),
        ]
        for job_id in state.jobs:
            steps += job_steps(history, job_id)
        for node_id in state.nodes:
            steps += node_steps(history, node_id)
        draw(st.sampled_from(steps))()
    return history


def check_indexes(state: State) -> None:
    """The invariants that `jobs.state` states."""
    assert set(state.queued) == {k for k, r in state.jobs.items() if r.state is JobState.QUEUED}
    assert set(state.live_attempts) == {k for k, r in state.attempts.items() if not r.ended}
    assert set(state.live_nodes) == {
        k for k, r in state.nodes.items() if r.state is not NodeState.GONE
    }
    for row in state.jobs.values():
        busy = row.state in {JobState.ADMITTED, JobState.RUNNING}
        assert bool(row.attempt_id) == busy
        assert row.attempts == sum(1 for a in state.attempts.values() if a.job_id == row.id)
    for lease in state.leases.values():
        assert (lease.released_us is None) == (lease.attempt_id in state.live_attempts)
    for node_id, held in state.node_leases.items():
        still = [k for k in held if state.leases[k].released_us is None]
        assert list(held) == still
        assert state.nodes[node_id].state is not NodeState.GONE or not held


@settings(max_examples=60)
@given(st.data(), st.integers(1, 60))
def test_any_legal_history_replays_to_the_same_rows(data: st.DataObject, length: int) -> None:
    """Rows follow from the journal alone, also after it was written and read as JSON."""
    history = a_random_history(data.draw, length)
    again = [decode(encode(record), into=Record) for record in history.records]
    assert again == history.records
    replayed = replay(again)
    for name in TABLES:
        assert getattr(replayed, name) == getattr(history.state, name), name
    check_indexes(history.state)


@settings(max_examples=40)
@given(st.data(), st.integers(1, 40), st.integers(1, 7))
def test_a_stored_history_loads_as_it_was(data: st.DataObject, length: int, tick: int) -> None:
    """Cut into ticks anyhow, what changed is all that the store needs to be told."""
    store, history = MemoryStore(), a_random_history(data.draw, length)
    epoch = store.acquire_leadership("a", now_us=0, ttl_us=1)
    assert epoch is not None
    told = History()
    for number, record in enumerate(history.records):
        told.add(record.subject, record.event)
        if number % tick == 0:
            store.commit(told.batch(), epoch=epoch)
    store.commit(told.batch(), epoch=epoch)
    loaded = store.load()
    for name in TABLES:
        assert getattr(loaded, name) == getattr(history.state, name), name
    check_indexes(loaded)
    assert not loaded.take_changes()


@pytest.mark.parametrize("to", AttemptState)
@pytest.mark.parametrize("old", [AttemptState.LEASED, AttemptState.TRAINING, *sorted(ATTEMPT_ENDS)])
def test_illegal_moves_of_attempts_are_bugs(old: AttemptState, to: AttemptState) -> None:
    """Every pair outside the table raises with the attempt's story, every pair inside does not."""
    history = History().submit().ready().lease()
    row = history.state.attempts["job-1/1"]
    history.state.put_attempt(replace(row, state=old))

    def act() -> None:
        if to in ATTEMPT_ENDS:
            history.end("job-1/1", to)
        else:
            history.move("job-1/1", to)

    if (old, to) in ATTEMPT_EDGES:
        act()
        assert history.state.attempts["job-1/1"].state is to
    else:
        with pytest.raises(AssertionError, match=r"illegal move.*job-1/1"):
            act()


@pytest.mark.parametrize(
    ("step", "subject"),
    [
        (History.submit, "job-1"),
        (History.request, "node-1"),
        (History.lease, "job-1"),
        (History.gone, "node-1"),
        (History.requeue, "job-2"),
        (History.finish, "job-3"),
        (History.ready, "node-1"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_cannot_happen_is_a_bug(step: Callable[..., object], subject: str) -> None:
    """Twice submitted, twice requested, placed while running, gone while held, ended twice ..."""
    history = History().ready("node-1").submit("job-1").train("job-1").submit("job-2")
    history.submit("job-3").finish("job-3", JobState.CANCELLED)
    with pytest.raises(AssertionError):
        step(history, subject)


def test_a_record_out_of_turn_is_a_bug() -> None:
    """The journal has no gaps and nothing twice."""
    first, second = History().submit("a").submit("b").records
    for wrong in ([second], [first, first], [first, replace(second, seq=3)]):
        with pytest.raises(AssertionError, match="after"):
            replay(wrong)


def test_the_users_errors_and_the_clouds_are_counted_apart() -> None:
    """Only failures count against max_failures; a launch that failed counts as nothing."""
    history = History().submit().ready()
    ends = [
        (AttemptState.EVICTED, Reason.EVICTED),
        (AttemptState.LOST, Reason.NODE_LOST),
        (AttemptState.LOST, Reason.LAUNCH_FAILED),
        (AttemptState.PREEMPTED, Reason.PREEMPTED),
        (AttemptState.FAILED, Reason.USER_ERROR),
    ]
    for number, (state, reason) in enumerate(ends, start=1):
        history.lease().end(f"job-1/{number}", state, reason=reason).requeue()
    row = history.state.jobs["job-1"]
    assert (row.failures, row.evictions, row.preemptions, row.attempts) == (1, 2, 1, 5)


def test_a_requeued_job_stands_at_its_restore_point() -> None:
    """Steps after the newest commit are lost with the attempt; waiting adds up."""
    history = History().submit().ready().train().save(step=40)
    progress = ev.AttemptProgressed(
        at_us=history.now_us, attempt_id="job-1/1", step=70, total_steps=100, work_ms=1_000
    )
    history.add("job-1", progress)
    assert history.state.jobs["job-1"].step == 70
    history.end("job-1/1", AttemptState.LOST, reason=Reason.NODE_LOST).requeue()
    row = history.state.jobs["job-1"]
    assert (row.step, row.remaining_ms(), row.attempt_id) == (40, 600, "")
    queued_us = history.now_us - 1_000_000
    assert row.queued_us == queued_us
    waited = row.waited_ms
    history.lease()
    assert history.state.jobs["job-1"].waited_ms == waited + 1_000


def test_a_node_is_idle_while_nobody_holds_it() -> None:
    """Idle time begins with readiness and with each release, and ends with a lease."""
    history = History().ready().submit()

    def idle_since_us() -> int | None:
        return history.state.nodes["node-1"].idle_since_us

    assert idle_since_us() == history.now_us - 2_000_000
    history.lease()
    assert idle_since_us() is None
    history.end("job-1/1", AttemptState.LOST)
    assert idle_since_us() == history.now_us - 1_000_000


def test_what_a_gang_holds() -> None:
    """A lease holds its share on each of its nodes, until it is released."""
    history = History().ready("node-1").ready("node-2")
    history.submit(a_job().gpus(2, nodes=2).asking(cpus=3)).lease("job-1", "node-1", "node-2")
    state = history.state
    assert [state.held_milli(name) for name in state.nodes] == [2_000, 2_000]
    assert [state.held_cpus(name) for name in state.nodes] == [3, 3]
    assert [row.id for row in state.holders("node-2")] == ["job-1/1"]
    history.end("job-1/1", AttemptState.LOST)
    assert not any(state.held_milli(name) for name in state.nodes)


def test_changes_are_named_once_and_in_order() -> None:
    """A tick writes each row that changed, and only those."""
    history = History().submit().ready()
    history.state.take_changes()
    history.lease().move("job-1/1", AttemptState.STARTING)
    changed = history.state.take_changes()
    assert len(changed) == len(set(changed))
    assert {table for table, _ in changed} == {"jobs", "attempts", "leases", "nodes"}
    assert history.state.take_changes() == []


def test_a_price_changes_nothing_else_of_a_flavor() -> None:
    """Limits and the record of launches and evictions stay."""
    history = History().flavor("f", limit=4)
    backed = ev.LaunchBackedOff(at_us=START_US, flavor="f", until_us=START_US + 5)
    history.add("f", backed)
    priced = ev.FlavorPriced(
        at_us=history.now_us,
        flavor="f",
        usd_nanos_per_hour=7,
        list_usd_nanos_per_hour=8,
        price_source="later",
    )
    history.add("f", priced)
    row = history.state.flavors["f"]
    assert (row.usd_nanos_per_hour, row.list_usd_nanos_per_hour, row.limit) == (7, 8, 4)
    assert (row.backoff_until_us, row.launch_failures) == (START_US + 5, 1)


def test_every_event_has_a_handler() -> None:
    """An event that is added must be folded."""
    from jobs.fold import _HANDLERS

    assert set(_HANDLERS) == set(ev.Event.__args__)
    assert apply.__doc__
