"""Turn a plan and people's commands into events. What was decided is done here, not re-decided."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cluster.flavors import Flavor
from jobs import events as ev
from jobs.arrays import members
from jobs.budget_events import MoneyReserved
from jobs.errors import ConflictError, UnknownSubjectError
from jobs.reasons import Reason
from jobs.rows import JobRow, NodeRow
from jobs.state import State
from jobs.states import NodeState
from scheduler import commands as cmd
from scheduler.catalog import Catalog
from scheduler.endings import take_back
from scheduler.ids import IdSource
from scheduler.plan import Place, Plan, Reservation


@dataclass(frozen=True, slots=True)
class Enactor:
    """Makes events from decisions; new ids come from ``ids``."""

    state: State
    catalog: Catalog
    ids: IdSource

    def plan(self, plan: Plan, *, now_us: int) -> Iterator[ev.Event]:
        """Give the events of a plan: capacity is freed before it is used."""
        for attempt_id, money in plan.reservations:
            yield reserved(attempt_id, money, now_us)
        for preempt in plan.preempts:
            attempt = self.state.attempts[preempt.attempt_id]
            yield from take_back(
                self.state,
                attempt,
                at_us=now_us,
                reason=preempt.reason,
                grace_ms=preempt.grace_ms,
            )
            if not self.state.attempts[attempt.id].ended:
                yield ev.JobDeferred(
                    at_us=now_us,
                    job_id=attempt.job_id,
                    reason=preempt.reason,
                    sentence=preempt.sentence,
                )
        for release in plan.releases:
            yield ev.NodeDraining(
                at_us=now_us,
                node_id=release.node_id,
                reason=release.reason,
                noticed=False,
                deadline_us=now_us,
            )
        yield from self._places(plan, now_us=now_us)
        for defer in plan.defers:
            job = self.state.jobs[defer.job_id]
            if (job.reason, job.sentence) != (defer.reason, defer.sentence):
                yield ev.JobDeferred(
                    at_us=now_us, job_id=job.id, reason=defer.reason, sentence=defer.sentence
                )

    def _places(self, plan: Plan, *, now_us: int) -> Iterator[ev.Event]:
        names: dict[str, str] = {}
        for new in plan.new_nodes:
            node_id = names[new.ref] = self.ids.new("node")
            yield _requested(self.catalog.flavors[new.flavor], node_id, now_us)
        for place in plan.places:
            node_ids = tuple(names.get(name, name) for name in place.nodes)
            leased = self._leased(place, node_ids, now_us)
            yield leased
            if place.reservation is not None:
                yield reserved(leased.attempt_id, place.reservation, now_us)

    def _leased(self, place: Place, node_ids: tuple[str, ...], now_us: int) -> ev.AttemptLeased:
        job = self.state.jobs[place.job_id]
        number = job.attempts + 1
        return ev.AttemptLeased(
            at_us=now_us,
            attempt_id=f"{job.id}/{number}",
            job_id=job.id,
            number=number,
            cluster=self.catalog.flavors[place.flavor].cluster,
            flavor=place.flavor,
            node_ids=node_ids,
            gpu_milli=job.spec.gpu_milli,
            cpus=job.spec.cpus,
            lease_id=self.ids.new("lease"),
            token=self.ids.token(),
            reason=place.reason,
            sentence=place.sentence,
        )

    def command(
        self,
        command: cmd.Cancel | cmd.Pause | cmd.Resume | cmd.Evict | cmd.Cordon | cmd.KeepQuote,
        *,
        now_us: int,
    ) -> Iterator[ev.Event]:
        """Give the events of a command, none when it changes nothing.

        Raises:
            UnknownSubjectError: there is no such job or node.
            ConflictError: the subject is over, or not in a state for this.
        """
        match command:
            case cmd.Cancel() | cmd.Pause() | cmd.Resume():
                for job in self._open_jobs(command.job_id):
                    yield from _of_owner(job, command, now_us=now_us)
            case cmd.Cordon():
                node = self._node(command.node_id)
                yield ev.NodeCordoned(at_us=now_us, node_id=node.id, cordoned=command.cordoned)
            case cmd.Evict():
                yield self._evict(command, now_us=now_us)
            case cmd.KeepQuote():
                if command.job_id in self.state.jobs:
                    yield ev.JobQuoted(at_us=now_us, job_id=command.job_id, quoted=command.quoted)

    def _evict(self, command: cmd.Evict, *, now_us: int) -> ev.EvictionRequested:
        node = self._node(command.node_id)
        if node.state is not NodeState.READY:
            cause = f"Node {node.id} is {node.state}; only a ready node can be evicted."
            raise ConflictError(cause, remedy="See `lowtide nodes` for the ready ones.")
        return ev.EvictionRequested(at_us=now_us, node_id=node.id, notice_ms=command.notice_ms)

    def _open_jobs(self, job_id: str) -> list[JobRow]:
        """Give the job, or the elements of the array, that are not over."""
        named = members(self.state.jobs, job_id)
        if not named:
            cause = f"There is no job '{job_id}'."
            raise UnknownSubjectError(cause, remedy="See `lowtide ls` for all jobs.")
        still = [job for job in named if not job.ended]
        if not still:
            what = f"({named[0].state})" if named[0].id == job_id else "with all its elements"
            cause = f"Job {job_id} is over {what}."
            raise ConflictError(cause, remedy="Submit it again if it should run once more.")
        return still

    def _node(self, node_id: str) -> NodeRow:
        node = self.state.nodes.get(node_id)
        if node is None or node.state is NodeState.GONE:
            cause = f"There is no live node '{node_id}'."
            raise UnknownSubjectError(cause, remedy="See `lowtide nodes` for the live ones.")
        return node


def _of_owner(
    job: JobRow, command: cmd.Cancel | cmd.Pause | cmd.Resume, *, now_us: int
) -> Iterator[ev.Event]:
    if isinstance(command, cmd.Cancel):
        if not job.cancel_requested:
            yield ev.JobCancelRequested(at_us=now_us, job_id=job.id)
        return
    held = isinstance(command, cmd.Pause)
    if job.held != held:
        yield ev.JobHeld(at_us=now_us, job_id=job.id, held=held)


def _requested(flavor: Flavor, node_id: str, now_us: int) -> ev.NodeRequested:
    return ev.NodeRequested(
        at_us=now_us,
        node_id=node_id,
        cluster=flavor.cluster,
        flavor=flavor.name,
        gpu_milli=flavor.gpu_milli,
        cpus=flavor.cpus,
        reason=Reason.FOR_ATTEMPT,
    )


def reserved(attempt_id: str, money: Reservation, now_us: int) -> MoneyReserved:
    """Give the event that reserves money for an attempt."""
    return MoneyReserved(
        at_us=now_us,
        attempt_id=attempt_id,
        usd_nanos_per_hour=money.usd_nanos_per_hour,
        until_us=money.until_us,
    )
