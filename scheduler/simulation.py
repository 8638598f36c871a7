"""A simulation: the production ``Controller`` in a world of virtual time.

Only the adapters differ: a manual clock, counted ids, a ``SimDriver`` and, by default, a store in
memory. The loop advances to whatever comes first (an event of the world, a submission, the plan's
own wake-up), lets the world move and ticks the controller. The same scenario gives the same
journal, byte for byte.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import islice
from time import perf_counter
from typing import Any

from cluster.inbox import Inbox
from cluster.prices import FlatPrices, PriceSource, SeriesPrices
from cluster.sim_driver import SimDriver
from jobs.errors import LowtideError
from jobs.memory_store import MemoryStore
from jobs.rows import AttemptRow, JobRow
from jobs.spec import JobSpec
from jobs.store import JobStore
from scheduler.catalog import Catalog
from scheduler.clock import ManualClock
from scheduler.commands import Mailbox, SubmitAll
from scheduler.controller import Controller
from scheduler.ids import CountedIds
from scheduler.price_book import PriceBook
from scheduler.scenario import Arrival, Scenario
from scheduler.snapshot import PolicySettings

_STUCK = 1_000  # ticks at one instant


@dataclass(frozen=True, slots=True)
class Refused:
    """A job that was not accepted, and why."""

    arrival: Arrival
    error: LowtideError


@dataclass(slots=True, kw_only=True)
class Result:
    """What a simulation leaves behind. ``job_ids`` maps accepted jobs to their arrivals."""

    scenario: Scenario
    policy: str
    store: JobStore
    book: PriceBook
    jobs: dict[str, JobRow]  # as they were at the end, before the books were closed
    attempts: dict[str, AttemptRow]
    ended_us: int
    job_ids: dict[str, Arrival]
    refused: list[Refused]
    wall_s: float


@dataclass(slots=True)
class _Desk:
    """Submissions that wait for their tick's answer."""

    waiting: list[tuple[list[Arrival], Future[Any]]] = field(default_factory=list)
    job_ids: dict[str, Arrival] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # of accepted jobs and arrays: their ids

    def order(self, group: list[Arrival]) -> SubmitAll:
        """Give the submit of jobs that belong together, with earlier predecessors by id."""
        return SubmitAll(specs=tuple(self._resolved(arrival.spec) for arrival in group))

    def settle(self) -> None:
        """Take the answers of a tick."""
        for group, future in self.waiting:
            refusal = future.exception(timeout=0)
            if refusal is None:
                self._accept(group, future.result(timeout=0))
            elif isinstance(refusal, LowtideError):
                self.refused += [Refused(arrival, refusal) for arrival in group]
            else:
                raise refusal
        self.waiting.clear()

    def _accept(self, group: list[Arrival], rows: list[JobRow]) -> None:
        left = iter(rows)
        for arrival in group:
            for row in islice(left, arrival.spec.array.size if arrival.spec.array else 1):
                place = row.array
                self.job_ids[row.id] = arrival if place is None else replace(arrival, spec=row.spec)
                self.names[arrival.spec.label] = row.id if place is None else place.id

    def _resolved(self, spec: JobSpec) -> JobSpec:
        if not spec.after:
            return spec
        after = (
            one.model_copy(update={"job": self.names.get(one.job, one.job)}) for one in spec.after
        )
        return spec.model_copy(update={"after": tuple(after)})


def linked(arrivals: list[Arrival]) -> list[list[Arrival]]:
    """Part the arrivals of one instant into groups of those that name each other, in order."""
    home = {arrival.spec.label: index for index, arrival in enumerate(arrivals)}
    group = list(range(len(arrivals)))
    for index, arrival in enumerate(arrivals):
        for one in arrival.spec.after:
            before = home.get(one.job)
            if before is not None:
                new, old = sorted((group[index], group[before]))
                group = [new if mark == old else mark for mark in group]
    together: dict[int, list[Arrival]] = {}
    for mark, arrival in zip(group, arrivals, strict=True):
        together.setdefault(mark, []).append(arrival)
    return list(together.values())


def price_book(scenario: Scenario) -> PriceBook:
    """Give the scenario's prices over time, windows applied."""
    flavors = scenario.flavors.values()
    series = scenario.price_series
    source: PriceSource = (
        SeriesPrices(series, flavors=flavors, source="series") if series else FlatPrices(flavors)
    )
    return PriceBook(source, flavors, scenario.windows, source_known_ahead=scenario.known_ahead_us)


class Simulation:
    """One world and one controller; ``run`` plays the scenario to its end."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        settings: PolicySettings | None = None,
        store: JobStore | None = None,
    ) -> None:
        """Set up the world; nothing happens before ``run``."""
        self.scenario = scenario
        self.settings = settings or PolicySettings()
        self.store = store if store is not None else MemoryStore()
        self.clock = ManualClock(scenario.start_us)
        self.inbox = Inbox()
        self.mailbox = Mailbox(self.inbox)
        self.book = price_book(scenario)
        self.driver = SimDriver(
            scenario.flavors.values(),
            limits=scenario.limits,
            inbox=self.inbox,
            start_us=scenario.start_us,
            probe=scenario.probe,
        )
        self.ids = CountedIds()
        self.controller = self._boot()
        self._desk = _Desk()
        self._arrivals = list(reversed(scenario.arrivals))
        self._wake_us: int | None = scenario.start_us
        self._stuck = 0

    def _boot(self) -> Controller:
        """Give a controller that has read nothing yet."""
        world = self.scenario
        return Controller(
            store=self.store,
            driver=self.driver,
            inbox=self.inbox,
            mailbox=self.mailbox,
            clock=self.clock,
            ids=self.ids,
            catalog=Catalog(
                flavors=world.flavors,
                prices=self.book,
                windows=world.windows,
                budgets=world.budgets,
                egress_nanos_per_gb=world.egress_nanos_per_gb,
            ),
            settings=self.settings,
            holder="simulator",
        )

    def run(self) -> Result:
        """Play until all is done, nothing can happen any more, or the horizon is reached.

        Raises:
            LowtideError: the store refused; jobs that are refused are part of the result.
        """
        began = perf_counter()
        assert self.controller.start(), "a fresh store has another leader"
        while (at_us := self._next_us()) is not None and at_us <= self.scenario.end_us:
            self.step(at_us)
        over_us = self.clock.now_us() if at_us is None else self.scenario.end_us
        state = self.controller.state
        jobs, attempts = dict(state.jobs), dict(state.attempts)
        if state.live_nodes:
            self._close_books(over_us)
        return Result(
            scenario=self.scenario,
            policy=self.settings.name,
            store=self.store,
            book=self.book,
            jobs=jobs,
            attempts=attempts,
            ended_us=over_us,
            job_ids=self._desk.job_ids,
            refused=self._desk.refused,
            wall_s=perf_counter() - began,
        )

    def step(self, at_us: int) -> None:
        """Advance to an instant, let the world move, submit what is due and tick."""
        moved = at_us > self.clock.now_us()
        self._stuck = 0 if moved else self._stuck + 1
        assert self._stuck < _STUCK, f"{_STUCK} ticks at {at_us}: the plan does not converge"
        self.clock.advance_to(at_us)
        self.driver.run_until(self.clock.now_us())
        due: list[Arrival] = []
        while self._arrivals and self._arrivals[-1].at_us <= at_us:
            due.append(self._arrivals.pop())
        for group in linked(due):
            order = self._desk.order(group)
            self._desk.waiting.append((group, self.mailbox.call(order)))
        self._wake_us = self.controller.tick().wake_at_us
        self.driver.acknowledge()
        self._desk.settle()

    def _next_us(self) -> int | None:
        state = self.controller.state
        busy = state.queued or state.live_attempts or state.live_nodes
        if not (self._arrivals or busy or any(row.next_us for row in state.schedules.values())):
            return None if self._wake_us != self.scenario.start_us else self._wake_us
        due = (
            self.driver.next_event_us,
            self._arrivals[-1].at_us if self._arrivals else None,
            self._wake_us,
        )
        return min((at_us for at_us in due if at_us is not None), default=None)

    def _close_books(self, over_us: int) -> None:
        """The world ends: whatever is still up is billed to this instant and no further."""
        self.clock.advance_to(over_us)
        self.driver.run_until(over_us)
        for node_id in self.driver.nodes:
            self.driver.kill_node(node_id)
        self.driver.run_until(over_us)
        self.controller.tick()
