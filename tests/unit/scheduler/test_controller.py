"""The controller: one transaction a tick, intents after it, and a restart that loses nothing."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from cluster import notices as nt
from cluster.inbox import Inbox
from cluster.intents import Intent, StartAttempt
from cluster.prices import FlatPrices
from jobs.errors import ConflictError, FencedError, LowtideError, UnknownSubjectError
from jobs.fold import replay
from jobs.memory_store import MemoryStore
from jobs.reasons import Reason
from jobs.spec import parse_spec
from jobs.states import AttemptState, JobState, NodeState
from scheduler import commands as cmd
from scheduler.catalog import Catalog
from scheduler.clock import ManualClock
from scheduler.controller import LEADER_TTL_US, Controller
from scheduler.ids import CountedIds
from scheduler.price_book import PriceBook
from scheduler.snapshot import PolicySettings
from tests.builders import a_kind

S = 1_000_000


class RecordingDriver:
    """A driver that only remembers what it was asked for, and when."""

    def __init__(self, store: MemoryStore) -> None:
        """Watch a store, to see what was committed at the time of each intent."""
        self.intents: list[Intent] = []
        self.seqs: list[int] = []
        self._store = store

    def submit(self, intent: Intent) -> None:
        """Remember the intent and the last committed record."""
        self.intents.append(intent)
        self.seqs.append(max((record.seq for record in self._store.records()), default=0))

    def close(self) -> None:
        """Nothing to let go of."""


FLAVORS = {
    flavor.name: flavor
    for flavor in (
        a_kind(
            cluster="c",
            cpus=4,
            usd_nanos_per_hour=1_000_000_000,
            list_usd_nanos_per_hour=3_000_000_000,
            max_nodes=2,
            idle_release_ms=10_000,
        ),
    )
}


class World:
    """A controller over a memory store with a clock that is set by hand."""

    def __init__(
        self, store: MemoryStore | None = None, *, holder: str = "one", at_s: int = 0
    ) -> None:
        """Start leading at ``at_s`` seconds."""
        self.store = store or MemoryStore()
        self.driver = RecordingDriver(self.store)
        self.inbox = Inbox()
        self.mailbox = cmd.Mailbox(self.inbox)
        self.clock = ManualClock(at_s * S)
        self.controller = Controller(
            store=self.store,
            driver=self.driver,
            inbox=self.inbox,
            mailbox=self.mailbox,
            clock=self.clock,
            ids=CountedIds(),
            catalog=Catalog(
                flavors=FLAVORS, prices=PriceBook(FlatPrices(FLAVORS.values()), FLAVORS.values())
            ),
            settings=PolicySettings(),
            holder=holder,
        )
        self.leads = self.controller.start()

    def ask(self, command: cmd.Command) -> Any:
        """Send a command, tick, and give its answer."""
        future = self.mailbox.call(command)
        self.controller.tick()
        return future.result(timeout=0)

    def submit(self, **spec: object) -> str:
        """Submit a job and give its id."""
        job = self.ask(cmd.Submit(spec=parse_spec({"script": "t.py", **spec})))
        return str(job.id)

    def notice(self, kind: type, at_s: float, **facts: object) -> None:
        """Let a notice arrive at an instant and tick."""
        self.clock.advance_to(round(at_s * S))
        number = len(list(self.store.records()))
        self.inbox.post(kind(id=f"n{number}", at_us=round(at_s * S), **facts))
        self.controller.tick()

    def kinds(self) -> list[str]:
        """Give the kinds of the intents so far."""
        return [intent.kind for intent in self.driver.intents]


def started() -> tuple[World, str]:
    """Give a world with one job in training."""
    world = World()
    job_id = world.submit()
    (node_id,) = world.controller.state.live_nodes
    world.notice(nt.NodeBooted, 1, node_id=node_id)
    world.notice(nt.NodeJoined, 5, node_id=node_id, address="x")
    world.notice(nt.TrainingBegan, 7, attempt_id=f"{job_id}/1", step=0, total_steps=10)
    return world, job_id


def test_a_submitted_job_goes_the_whole_way() -> None:
    """Submit, launch, start, train, end, release: each intent follows from committed rows."""
    world, job_id = started()
    world.notice(
        nt.AttemptOver, 20, attempt_id=f"{job_id}/1", outcome=nt.Outcome.SUCCEEDED, exit_code=0
    )
    assert world.controller.state.jobs[job_id].state is JobState.SUCCEEDED
    world.clock.advance_to(36 * S)
    world.controller.tick()
    assert world.kinds() == ["launch-node", "start-attempt", "release-node"]
    assert all(seq > 0 for seq in world.driver.seqs), "an intent went out before its commit"


def test_the_journal_rebuilds_the_rows() -> None:
    """Folding the records gives the very rows that the controller works with."""
    world, _ = started()
    again = replay(world.store.records())
    now = world.controller.state
    assert (again.jobs, again.attempts, again.nodes) == (now.jobs, now.attempts, now.nodes)


def test_a_restart_issues_every_open_intent_again() -> None:
    """A crash between commit and act loses nothing: the same intents come out of the rows."""
    world = World()
    world.submit()
    later = World(world.store, holder="two", at_s=60)
    assert [intent.id for intent in later.driver.intents] == [
        intent.id for intent in world.driver.intents
    ]


def test_open_intents_follow_the_rows() -> None:
    """An agent is shown what is open now, and nothing that is done."""
    world = World()
    job_id = world.submit()
    (launch,) = world.controller.open_intents["c"]
    assert launch.kind == "launch-node"
    (node_id,) = world.controller.state.live_nodes
    world.notice(nt.NodeJoined, 5, node_id=node_id, address="x")
    (start,) = world.controller.open_intents["c"]
    assert isinstance(start, StartAttempt)
    assert start.flavor
    assert start.risk is not None
    world.notice(nt.WorkersUp, 6, attempt_id=f"{job_id}/1")
    assert not world.controller.open_intents.get("c")


def test_the_same_key_gives_the_same_job() -> None:
    """Also within one tick, and after a restart."""
    world = World()
    spec = parse_spec({"script": "t.py"})
    both = [world.mailbox.call(cmd.Submit(spec=spec, idempotency_key="k")) for _ in range(2)]
    world.controller.tick()
    first, second = (future.result(timeout=0) for future in both)
    assert first.id == second.id
    later = World(world.store, holder="two", at_s=60)
    assert later.ask(cmd.Submit(spec=spec, idempotency_key="k")).id == first.id


def test_a_dry_run_leaves_no_trace() -> None:
    """A checked job is shown, not kept."""
    world = World()
    before = len(list(world.store.records()))
    row = world.ask(cmd.Submit(spec=parse_spec({"script": "t.py"}), dry_run=True))
    world.controller.tick()
    assert row.state is JobState.QUEUED
    assert not world.controller.state.jobs
    assert len(list(world.store.records())) - before <= 2, "only the flavors were recorded"


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (cmd.Cancel(job_id="nobody"), UnknownSubjectError),
        (cmd.Evict(node_id="nowhere", notice_ms=0), UnknownSubjectError),
        (cmd.Submit(spec=parse_spec({"script": "t.py", "gpus": 64})), LowtideError),
    ],
)
def test_a_refused_command_says_why_and_changes_nothing(
    command: cmd.Command, error: type[LowtideError]
) -> None:
    """The refusal reaches the caller with its remedy; the loop goes on."""
    world = World()
    with pytest.raises(error) as refusal:
        world.ask(command)
    assert refusal.value.remedy
    assert not world.controller.state.jobs
    assert world.submit()


def test_an_ended_job_refuses_commands() -> None:
    """Cancelling what is over is a conflict, not a crash."""
    world, job_id = started()
    world.notice(nt.AttemptOver, 20, attempt_id=f"{job_id}/1", outcome=nt.Outcome.SUCCEEDED)
    with pytest.raises(ConflictError):
        world.ask(cmd.Cancel(job_id=job_id))


def test_evicting_a_booting_node_is_refused_and_a_ready_one_is_evicted() -> None:
    """A game day needs a node that is up."""
    world = World()
    world.submit()
    (node_id,) = world.controller.state.live_nodes
    with pytest.raises(ConflictError):
        world.ask(cmd.Evict(node_id=node_id, notice_ms=5_000))
    world.notice(nt.NodeJoined, 5, node_id=node_id, address="x")
    world.ask(cmd.Evict(node_id=node_id, notice_ms=5_000))
    assert world.kinds()[-1] == "evict-node"


def test_two_servers_cannot_both_write() -> None:
    """A follower waits; once it leads, the old leader's next write is refused."""
    old = World()
    assert not World(old.store, holder="two", at_s=1).leads
    new = World(old.store, holder="two", at_s=LEADER_TTL_US // S + 1)
    assert new.leads
    with pytest.raises(FencedError):
        old.submit()
    assert new.submit()


def test_a_barrier_is_resolved_after_the_commit_of_earlier_notices() -> None:
    """An agent may forget a notice only when it is safe in the store."""
    world = World()
    world.submit()
    (node_id,) = world.controller.state.live_nodes
    world.inbox.post(nt.NodeJoined(id="x", at_us=0, node_id=node_id, address="x"))
    future = world.mailbox.call(cmd.Barrier())
    assert not future.done()
    world.controller.tick()
    assert future.done()
    assert [node.state for node in world.store.nodes()] == [NodeState.READY]


def test_a_cancel_while_booting_frees_the_node() -> None:
    """Nothing has started, so nothing is waited for; the node is released when idle."""
    world = World()
    job_id = world.submit()
    (node_id,) = world.controller.state.live_nodes
    world.notice(nt.NodeBooted, 1, node_id=node_id)
    job = world.ask(cmd.Cancel(job_id=job_id))
    assert job.state is JobState.CANCELLED
    attempt = world.controller.state.attempts[f"{job_id}/1"]
    assert attempt.state is AttemptState.PREEMPTED
    world.notice(nt.NodeJoined, 5, node_id=node_id, address="x")
    world.clock.advance_to(60 * S)
    world.controller.tick()
    assert world.kinds()[-1] == "release-node"


def test_a_budget_remembers_what_was_spent_also_after_a_restart() -> None:
    """A job that used its budget up waits for money instead of starting over."""
    world = World()
    job_id = world.submit(budget_usd="0.5", work="20m")
    (node_id,) = world.controller.state.live_nodes
    world.notice(nt.NodeJoined, 0, node_id=node_id, address="x")
    world.notice(nt.TrainingBegan, 0, attempt_id=f"{job_id}/1", step=0, total_steps=100)
    world.notice(nt.NodeLost, 1_700, node_id=node_id, noticed=False)
    assert world.controller.state.jobs[job_id].reason is Reason.WAITS_FOR_BUDGET
    later = World(world.store, holder="two", at_s=1_800)
    later.controller.tick()
    assert later.controller.state.jobs[job_id].reason is Reason.WAITS_FOR_BUDGET


def test_a_silent_worker_is_not_replaced_at_once() -> None:
    """What fell silent may fall silent again: the next try waits, longer each time."""
    world, job_id = started()
    lost = nt.Outcome.HEARTBEAT_LOST
    world.notice(nt.AttemptOver, 20, attempt_id=f"{job_id}/1", outcome=lost)
    assert world.controller.state.jobs[job_id].state is JobState.QUEUED
    world.clock.advance_to(21 * S)
    world.controller.tick()
    assert world.controller.state.jobs[job_id].state is JobState.ADMITTED


def test_the_loop_publishes_what_live_attempts_risk() -> None:
    """Agents ask from other threads; what they get is of this very attempt, at its price."""
    world, job_id = started()
    stop = threading.Event()
    loop = threading.Thread(target=world.controller.run, args=(stop,))
    loop.start()
    world.mailbox.call(cmd.Barrier()).result(timeout=20)
    world.mailbox.call(cmd.Barrier()).result(timeout=20)  # the first tick is wholly over now
    stop.set()
    world.mailbox.call(cmd.Barrier())  # wakes the loop
    loop.join(20)
    assert not loop.is_alive()
    risk = world.controller.risks["c"][f"{job_id}/1"]
    assert risk.exposure_ms > 0
    assert risk.usd_nanos_per_hour > 0


def test_a_group_is_submitted_whole_and_once() -> None:
    """One key gives the same rows again; the journal rebuilds them, elements and all."""
    world = World()
    specs = tuple(
        parse_spec({"script": "t.py", "name": name, **fields})
        for name, fields in (("sweep", {"array": 3}), ("best", {"after": ["sweep"]}))
    )
    command = cmd.SubmitAll(specs=specs, idempotency_key="k")
    rows = world.ask(command)
    assert [row.id for row in rows] == [f"sweep-000001.{n}" for n in range(3)] + ["best-000002"]
    assert [row.id for row in world.ask(command)] == [row.id for row in rows]
    assert replay(world.store.records()).jobs == world.controller.state.jobs
    assert world.controller.state.jobs["best-000002"].reason is Reason.WAITS_FOR_JOB
    again = World(world.store, holder="two", at_s=60)
    assert [row.id for row in again.ask(command)] == [row.id for row in rows]


def test_a_group_with_one_wrong_job_leaves_nothing() -> None:
    """The second is too big for any flavor: the first does not exist either."""
    world = World()
    specs = tuple(parse_spec({"script": "t.py", "gpus": gpus}) for gpus in (1, 64))
    world.controller.tick()
    before = len(list(world.store.records()))
    with pytest.raises(LowtideError, match="No flavor can hold"):
        world.ask(cmd.SubmitAll(specs=specs))
    assert not world.controller.state.jobs
    assert len(list(world.store.records())) == before


def test_an_array_is_cancelled_by_its_id() -> None:
    """All elements that are not over; a second time there is nothing left to cancel."""
    world = World()
    rows = world.ask(cmd.SubmitAll(specs=(parse_spec({"script": "t.py", "array": 3}),)))
    array_id = rows[0].array.id
    world.ask(cmd.Cancel(job_id=rows[0].id))
    answer = world.ask(cmd.Pause(job_id=array_id))
    assert [row.held for row in answer] == [False, True, True]
    assert len(world.ask(cmd.Cancel(job_id=array_id))) == 3
    states = {row.state for row in world.controller.state.jobs.values()}
    assert states <= {JobState.CANCELLED, JobState.ADMITTED}


def test_a_failed_predecessor_ends_the_whole_chain() -> None:
    """In the same tick, each with the name of the one before it."""
    world = World()
    specs = tuple(
        parse_spec({"script": "t.py", "name": name, "after": after})
        for name, after in (("c", ["b"]), ("b", ["a"]), ("a", []))
    )
    rows = world.ask(cmd.SubmitAll(specs=specs))
    world.ask(cmd.Cancel(job_id=rows[2].id))
    world.controller.tick()
    for row, before in ((rows[1], "a-000003"), (rows[0], "b-000002")):
        now = world.controller.state.jobs[row.id]
        assert (now.state, now.reason) == (JobState.CANCELLED, Reason.DEPENDENCY_FAILED)
        assert before in now.sentence
