"""The live gangs of a driver: started, told, watched, judged, ended exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from checkpointing.hazard_posterior import Risk, is_news
from cluster.agent_clock import monotonic_us, now_us
from cluster.gang import (
    LAUNCH_US,
    RETURN_US,
    Exit,
    Facts,
    Gang,
    Verdict,
    is_bad,
    judge,
)
from cluster.intents import StartAttempt
from cluster.launchers import WorkerLauncher
from cluster.notices import AttemptOver, Notice, WorkerSilent, WorkersUp
from cluster.ray_driver_said import notice_of
from cluster.worker_link import Heard
from cluster.worker_wire import (
    Ack,
    Advise,
    Bye,
    Drain,
    Exited,
    FromAgent,
    FromWorker,
    Go,
    Hello,
    Hurry,
    Said,
    Stop,
    Unable,
    WorkerOrder,
)

_KILL_US = 1_000_000  # for workers to kill their children before the workers are killed
_GONE_US = 5_000_000  # after which the unreachable counts as gone: its epoch fences it out
_GOODBYE_US = 5_000_000  # for workers to flush their output after the end
_BLINK_US = 250_000  # the longest gap that counts: our own delays are not a worker's silence


class GangStore(Protocol):
    """What must survive the agent."""

    def post(self, notice: Notice) -> None:
        """Keep a notice until it is accepted."""

    def keep(self, attempt: StartAttempt, *, facts: Facts) -> None:
        """Remember a live attempt."""

    def live(self) -> list[tuple[StartAttempt, Facts]]:
        """Give the attempts that are not over."""

    def finish(self, attempt_id: str, notice: Notice) -> None:
        """Mark an attempt as over and post the notice of it."""


class Talker(Protocol):
    """Reaches workers."""

    @property
    def port(self) -> int:
        """Where workers connect to."""

    def send(self, attempt_id: str, index: int, *, message: FromAgent) -> None:
        """Tell a worker something; lost if it is not connected."""

    def connected(self, attempt_id: str) -> list[int]:
        """Give the workers of an attempt that are connected."""


class Gangs:
    """All live attempts of this agent. One thread only."""

    def __init__(
        self,
        *,
        store: GangStore,
        talker: Talker,
        launcher: WorkerLauncher,
        storage: str,
        agent_host: str,
    ) -> None:
        """``agent_host`` is where workers reach this agent."""
        self._store = store
        self._talker = talker
        self._launcher = launcher
        self._storage = storage
        self._agent_host = agent_host
        self._gangs: dict[str, Gang] = {}
        self._hellos: dict[str, dict[int, Hello]] = {}
        self._leaving: dict[str, int] = {}  # over, until when its workers may flush
        self._clock_us = 0  # our own time: it stands still while we do
        self._seen_us = monotonic_us()

    def resume(self) -> None:
        """Take up the attempts of an earlier life; workers of all others are ended."""
        for attempt, facts in self._store.live():
            patience = self._clock_us + (RETURN_US if facts.went else LAUNCH_US)
            gang = Gang(attempt=attempt, facts=facts, patience_us=patience)
            gang.risk = None if facts.went else attempt.risk  # newer news may have been told
            self._gangs[attempt.attempt_id] = gang
            if not facts.went:
                self._launch(attempt)
        self._launcher.sweep(list(self._gangs))

    def knows(self, attempt_id: str) -> bool:
        """Whether the attempt is live here."""
        return attempt_id in self._gangs

    def start(self, attempt: StartAttempt) -> None:
        """Start a gang, unless it is there."""
        if attempt.attempt_id in self._gangs:
            return
        facts = Facts()
        self._store.keep(attempt, facts=facts)
        self._gangs[attempt.attempt_id] = Gang(
            attempt=attempt,
            facts=facts,
            patience_us=self._clock_us + LAUNCH_US,
            risk=attempt.risk,
        )
        self._launch(attempt)

    def drain(self, attempt_id: str, *, deadline_us: int) -> None:
        """Make a gang save and leave; an earlier deadline stands."""
        gang = self._gangs[attempt_id]
        known = gang.facts.drain_deadline_us
        gang.facts.drain_deadline_us = min(known, deadline_us) if known else deadline_us
        self._keep(gang)
        self._tell_all(gang, Drain(deadline_us=gang.facts.drain_deadline_us))

    def drain_node(self, node_id: str, *, deadline_us: int) -> None:
        """Drain every gang that has a worker on the node: all its ranks, on all its nodes."""
        for gang in self._on(node_id):
            self.drain(gang.attempt.attempt_id, deadline_us=deadline_us)

    def hurry_beside(self, node_id: str, *, flavor: str) -> None:
        """Let other gangs on the node's flavor save early: they may be next.

        ``flavor`` "" = not known; then that of the gangs on it.
        """
        going = self._on(node_id)
        flavors = {flavor} if flavor else {gang.attempt.flavor for gang in going}
        for gang in self._gangs.values():
            staying = gang not in going and not gang.facts.drain_deadline_us
            if staying and gang.attempt.flavor in flavors:
                self._tell_all(gang, Hurry())

    def advise(self, risks: Mapping[str, Risk]) -> None:
        """Take what the server knows of attempts now, and tell what is news to their workers."""
        for attempt_id, risk in risks.items():
            gang = self._gangs.get(attempt_id)
            if gang is not None and is_news(gang.risk, present=risk):
                gang.risk = risk
                self._tell_all(gang, Advise(risk=risk))

    def node_joined(self, address: str) -> None:
        """Make the node ready for an attempt that may start there."""
        self._launcher.stand_by(address)

    def first_sign(self, node_id: str, *, at_us: int) -> None:
        """Take that the node was found dead at ``at_us``, before its end is told."""
        for gang in self._on(node_id):
            self._first_sign(gang, at_us=at_us)

    def node_lost(self, node_id: str) -> None:
        """Take that nothing runs on the node any more."""
        for gang in self._on(node_id):
            if node_id not in gang.facts.lost_nodes:
                gang.facts.lost_nodes.append(node_id)
                self._keep(gang)

    def stop(self, attempt_id: str) -> None:
        """Kill a gang."""
        self._gangs[attempt_id].facts.stop = True
        self._keep(self._gangs[attempt_id])

    def end_unknown(self, attempt_id: str) -> None:
        """End whatever runs under the id of an attempt that we never heard of."""
        self._launcher.end(attempt_id)

    def launch_failed(self, attempt_id: str, why: str) -> None:
        """Take that the workers could not be started."""
        gang = self._gangs.get(attempt_id)
        if gang is not None and not gang.facts.launch_error:
            gang.facts.launch_error = why
            self._keep(gang)

    def heard(self, heard: Heard) -> None:
        """Take what a worker said, keep it, then acknowledge it."""
        gang = self._gangs.get(heard.attempt_id)
        if gang is None:
            self._talker.send(heard.attempt_id, heard.index, message=Bye())
            return
        if heard.message is not None:
            gang.heard_us[heard.index] = self._clock_us
            gang.signed = gang.signed and not isinstance(heard.message, Hello)  # it is back
            self._take(gang, heard, heard.message)
        elif heard.index in gang.left():  # back within the silence limit, or lost
            self._first_sign(gang, at_us=now_us())

    def _take(self, gang: Gang, heard: Heard, message: FromWorker) -> None:
        match message:
            case Hello() as hello:
                self._greet(gang, hello)
            case Said() as said:
                notice = notice_of(said, attempt_id=heard.attempt_id, index=heard.index)
                if notice is not None:
                    self._store.post(notice)
                self._ack(heard, said.seq)
            case Exited() as ended:
                self._exited(gang, ended)
                self._ack(heard, ended.seq)
            case Unable() as unable:
                gang.facts.unable = unable.detail
                self._keep(gang)
                self._ack(heard, unable.seq)
            case _:
                pass

    def tick(self) -> None:
        """Let our time pass and judge every gang."""
        present_us = monotonic_us()
        self._clock_us += min(present_us - self._seen_us, _BLINK_US)
        self._seen_us = present_us
        for gang in list(self._gangs.values()):
            if gang.facts.verdict is None:
                verdict = judge(gang, now_us=self._clock_us)
                if verdict is None:
                    continue
                gang.facts.verdict = verdict
                self._keep(gang)
            self._bring_to_an_end(gang, gang.facts.verdict)
        for attempt_id, until_us in list(self._leaving.items()):
            if not self._talker.connected(attempt_id) or self._clock_us >= until_us:
                self._launcher.end(attempt_id)
                del self._leaving[attempt_id]

    def _launch(self, attempt: StartAttempt) -> None:
        orders = [
            WorkerOrder(
                attempt_id=attempt.attempt_id,
                job_id=attempt.job_id,
                epoch=attempt.epoch,
                index=index,
                nodes=len(attempt.node_ids),
                spec=attempt.spec,
                storage=self._storage,
                agent_host=self._agent_host,
                agent_port=self._talker.port,
                token=attempt.token,
            )
            for index in range(len(attempt.node_ids))
        ]
        self._launcher.start(orders, addresses=attempt.addresses)

    def _greet(self, gang: Gang, hello: Hello) -> None:
        facts, attempt_id = gang.facts, gang.attempt.attempt_id
        hellos = self._hellos.setdefault(attempt_id, {})
        hellos[hello.index] = hello
        if facts.drain_deadline_us:
            drain = Drain(deadline_us=facts.drain_deadline_us)
            self._talker.send(attempt_id, hello.index, message=drain)
        if gang.risk is not None:
            self._talker.send(attempt_id, hello.index, message=Advise(risk=gang.risk))
        if not gang.complete or (facts.drain_deadline_us and not facts.went):
            return
        if not facts.went:
            facts.went = True
            self._keep(gang)
            self._store.post(
                WorkersUp(id=f"up|{attempt_id}", at_us=now_us(), attempt_id=attempt_id)
            )
        # Said again after a reconnection: workers that have started ignore it.
        first = hellos[0]
        self._tell_all(gang, Go(host=first.host, port=first.master_port))

    def _first_sign(self, gang: Gang, *, at_us: int) -> None:
        attempt_id = gang.attempt.attempt_id
        if gang.facts.verdict is None and not gang.signed:
            gang.signed = True
            notice_id = f"silent|{attempt_id}|{at_us}"
            self._store.post(WorkerSilent(id=notice_id, at_us=at_us, attempt_id=attempt_id))

    def _exited(self, gang: Gang, ended: Exited) -> None:
        if ended.rank in gang.facts.ended:
            return
        if is_bad(ended.code) and not gang.failed_us:
            gang.failed_us = self._clock_us
        gang.facts.exits.append(Exit(rank=ended.rank, code=ended.code, tail=ended.tail))
        self._keep(gang)

    def _bring_to_an_end(self, gang: Gang, verdict: Verdict) -> None:
        attempt_id, left = gang.attempt.attempt_id, gang.left()
        reachable = set(self._talker.connected(attempt_id))
        if not gang.ending_us:
            gang.ending_us = self._clock_us
            self._tell_all(gang, Stop())
        waited_us = self._clock_us - gang.ending_us
        # Before the children were told to start, there are none.
        if not gang.facts.went or not left or waited_us > _GONE_US:
            self._finish(gang, verdict)
        elif waited_us > _KILL_US or not reachable & set(left):
            self._launcher.end(attempt_id)

    def _finish(self, gang: Gang, verdict: Verdict) -> None:
        attempt_id = gang.attempt.attempt_id
        over = AttemptOver(
            id=f"over|{attempt_id}",
            at_us=now_us(),
            attempt_id=attempt_id,
            outcome=verdict.outcome,
            exit_code=verdict.exit_code,
            detail=verdict.detail,
        )
        self._store.finish(attempt_id, over)
        self._tell_all(gang, Bye())
        del self._gangs[attempt_id]
        self._hellos.pop(attempt_id, None)
        self._leaving[attempt_id] = self._clock_us + _GOODBYE_US

    def _on(self, node_id: str) -> list[Gang]:
        return [g for g in self._gangs.values() if node_id in g.attempt.node_ids]

    def _tell_all(self, gang: Gang, message: FromAgent) -> None:
        for index in range(gang.nodes):
            self._talker.send(gang.attempt.attempt_id, index, message=message)

    def _ack(self, heard: Heard, seq: int) -> None:
        self._talker.send(heard.attempt_id, heard.index, message=Ack(seq=seq))

    def _keep(self, gang: Gang) -> None:
        self._store.keep(gang.attempt, facts=gang.facts)
