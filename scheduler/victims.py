"""Whom to stop when a job that must start finds no room, and what that costs in dollars.

Stopping an attempt costs the work since its restore point, another start (boot, set-up, restore),
and, where its own deadline then leaves no time for spot, the dearer capacity that it will need.
Whole gangs are stopped, the cheapest first; they save before they leave (the drain's grace).

Who may ask: a deadline that has no slack left (it must be kept, whatever that costs), and a job of
HIGHER priority, as long as it wastes no more than its own rest costs. Never stopped: a job on its
safety net, a deadline on sure capacity, one that could not be met after the stop. So two jobs
never stop each other in turn: urgency goes before priority, and both orders are strict. Each time
that a job was stopped doubles its price, so nobody is stopped for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from jobs.durations import US_PER_MS
from jobs.reasons import Reason
from jobs.rows import AttemptRow, JobRow
from jobs.states import AttemptState
from scheduler.market import MS_PER_HOUR, Choice, Market, shared
from scheduler.needs import (
    REACTION_US,
    is_steady,
    is_sure,
    latest_spot_start_us,
    latest_start_us,
    overhead_ms,
)
from scheduler.placement import Pools, is_open
from scheduler.plan import Preempt
from scheduler.sentences import show_usd
from scheduler.snapshot import LiveAttempt, NodeView, Snapshot
from scheduler.wishes import Wish

_MOST_DOUBLINGS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What stopping an attempt costs, nano-dollars."""

    lost: int  # the work since its restore point
    restart: int  # boot, set-up and restore
    premium: int  # dearer capacity that its own deadline then needs
    stopped_before: int = 0

    @property
    def usd_nanos(self) -> int:
        """All of it."""
        return self.lost + self.restart + self.premium

    @property
    def rank(self) -> int:
        """What victims are compared by: the price, doubled with each stop before."""
        return self.usd_nanos << min(self.stopped_before, _MOST_DOUBLINGS)


def price_of_stopping(one: LiveAttempt, *, market: Market) -> Price | None:
    """Give what stopping it would cost, None where it must not be stopped."""
    job, attempt, offer = one.job, one.attempt, market.offers.get(one.attempt.flavor)
    if offer is None or job.on_safety_net or attempt.state is AttemptState.DRAINING:
        return None
    if job.deadline_us is not None and is_sure(offer.flavor):
        return None
    premium = 0 if job.deadline_us is None else _premium(one, market=market)
    if premium is None:
        return None
    node = offer.usd_nanos_per_hour * job.spec.nodes
    rate = shared(node, spec=job.spec, flavor=offer.flavor)
    return Price(
        lost=rate * _lost_ms(job, attempt, now_us=market.now_us) // MS_PER_HOUR,
        restart=rate * overhead_ms(job, offer.flavor, restores=True) // MS_PER_HOUR,
        premium=premium,
        stopped_before=job.preemptions,
    )


def _lost_ms(job: JobRow, attempt: AttemptRow, *, now_us: int) -> int:
    """Time on capacity that leaves nothing behind if the drain saves nothing."""
    if is_steady(job, attempt):
        return 0
    kept_us = (attempt.last_snapshot_us, attempt.training_us, attempt.created_us)
    since_us = next(at_us for at_us in kept_us if at_us is not None)
    return max(0, now_us - since_us) // US_PER_MS


def _premium(one: LiveAttempt, *, market: Market) -> int | None:
    """Give what its deadline will cost more after a stop, None if it could then be missed."""
    job, flavor = one.job, market.offers[one.attempt.flavor].flavor
    choices = {choice.flavor.name: choice for choice in market.choices(job)}
    sures = sorted((c for c in choices.values() if c.sure), key=lambda choice: choice.key)
    if not sures or not job.work_ms:
        return None
    latest_us = latest_start_us(
        job,
        [choice.flavor for choice in sures],
        work_ms=job.remaining_ms(),
        restores=True,
        settings=market.settings,
    )
    ready_us = market.now_us + market.settings.drain_grace_ms * US_PER_MS + REACTION_US
    if latest_us <= ready_us:
        return None
    back_us = latest_spot_start_us(job, flavor, sure_start_us=latest_us, settings=market.settings)
    if back_us > ready_us or flavor.name not in choices:
        return 0
    return max(0, sures[0].cost_nanos - choices[flavor.name].cost_nanos)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Room that is made for a gang: whom it takes, and what that costs."""

    victims: tuple[LiveAttempt, ...]
    nodes: tuple[str, ...]  # that will have room for one member each
    usd_nanos: int


@dataclass(slots=True)
class Way:
    """The room that could be made in a cycle; each stop is counted once."""

    snapshot: Snapshot
    market: Market
    pools: Pools
    _prices: dict[str, Price | None] = field(default_factory=dict)
    _leaving: dict[str, None] = field(default_factory=dict)  # attempts
    _promised: dict[str, tuple[int, int]] = field(default_factory=dict)  # of nodes: milli, cores

    def __post_init__(self) -> None:
        """Count the attempts that leave already."""
        for one in self.snapshot.live:
            if one.attempt.state is AttemptState.DRAINING:
                self._leaving[one.attempt.id] = None

    def leaves(self, stopped: Iterable[Preempt]) -> None:
        """Count attempts that this cycle stops, for whatever reason."""
        self._leaving.update((one.attempt_id, None) for one in stopped)

    def is_left(self, one: LiveAttempt) -> bool:
        """Whether an attempt leaves already."""
        return one.attempt.id in self._leaving

    def lowest_priority(self) -> int | None:
        """Give the lowest priority of all that hold capacity, None when nobody does."""
        return min((one.job.spec.priority for one in self.snapshot.live), default=None)

    def make(
        self,
        job: JobRow,
        choices: Iterable[Choice],
        *,
        below: int | None = None,
        pays: bool = False,
    ) -> Made | None:
        """Make room for a gang at the least cost, None when that is not possible or allowed.

        Args:
            job: who needs it.
            choices: where it may go.
            below: only attempts of a lower priority than this may be stopped.
            pays: it may cost no more than the job's own rest does there.
        """
        best: tuple[tuple[int, int, str], Made] | None = None
        for choice in choices:
            made = self._on(job, choice, below=below)
            if made is None or (pays and made.usd_nanos > choice.cost_nanos):
                continue
            order = (made.usd_nanos, *choice.key)
            if best is None or order < best[0]:
                best = (order, made)
        if best is None:
            return None
        self._promise(job, best[1])
        return best[1]

    def _promise(self, job: JobRow, made: Made) -> None:
        for one in made.victims:
            self._leaving[one.attempt.id] = None
        for node_id in made.nodes:
            milli, cpus = self._promised.get(node_id, (0, 0))
            self._promised[node_id] = (milli + job.spec.gpu_milli, cpus + job.spec.cpus)

    def _on(self, job: JobRow, choice: Choice, *, below: int | None) -> Made | None:
        name, spec = choice.flavor.name, job.spec
        wanted = spec.nodes - self.pools.launchable(name)
        room = self._room(name)
        need = (spec.gpu_milli, spec.cpus)
        victims: list[LiveAttempt] = []
        for one in [None, *self._candidates(name, job, below=below)]:
            if one is not None:
                victims.append(one)
                _free(room, one)
            fitting = [node_id for node_id, free in room.items() if _fits(free, need)]
            if len(fitting) >= wanted:
                return self._least(victims, room, need, wanted=wanted)
        return None

    def _least(
        self,
        victims: list[LiveAttempt],
        room: dict[str, tuple[int, int]],
        need: tuple[int, int],
        *,
        wanted: int,
    ) -> Made:
        """Let those stay, the dearest first, without whom the gang fits as well."""
        for one in reversed(victims.copy()):
            _free(room, one, back=True)
            if sum(_fits(free, need) for free in room.values()) >= wanted:
                victims.remove(one)
            else:
                _free(room, one)
        fitting = [node_id for node_id, free in room.items() if _fits(free, need)]
        prices = (self._price(one) for one in victims)
        return Made(
            victims=tuple(victims),
            nodes=tuple(fitting[: max(0, wanted)]),
            usd_nanos=sum(price.usd_nanos for price in prices if price is not None),
        )

    def _room(self, flavor: str) -> dict[str, tuple[int, int]]:
        """Give what each node of the flavor has free, or will have once those that leave left."""
        free = self.pools.free(flavor)
        room = {
            view.row.id: _less(free.get(view.row.id, (0, 0)), self._promised.get(view.row.id))
            for view in self._nodes(flavor)
        }
        for one in self.snapshot.live:
            if one.attempt.id in self._leaving and one.attempt.flavor == flavor:
                _free(room, one)
        return room

    def _nodes(self, flavor: str) -> Iterator[NodeView]:
        return (view for view in self.snapshot.nodes if view.row.flavor == flavor and is_open(view))

    def _candidates(self, flavor: str, job: JobRow, *, below: int | None) -> list[LiveAttempt]:
        """Give who could be stopped there, the cheapest for each of their nodes first."""
        found: list[tuple[int, int, str, LiveAttempt]] = []
        for one in self.snapshot.live:
            other = one.job
            if one.attempt.flavor != flavor or self.is_left(one) or other is job:
                continue
            if below is not None and other.spec.priority >= below:
                continue
            price = self._price(one)
            if price is not None:
                each = price.rank // len(one.attempt.node_ids)
                found.append((each, -other.submitted_us, other.id, one))
        return [entry[3] for entry in sorted(found, key=lambda entry: entry[:3])]

    def _price(self, one: LiveAttempt) -> Price | None:
        if one.attempt.id not in self._prices:
            self._prices[one.attempt.id] = price_of_stopping(one, market=self.market)
        return self._prices[one.attempt.id]

    def stops(self, made: Made, *, for_job: JobRow) -> Iterator[Preempt]:
        """Give the decisions that make the room, each with its price."""
        for one in made.victims:
            price = self._price(one)
            assert price is not None, f"not to be stopped: {one.attempt.id}"
            yield Preempt(
                attempt_id=one.attempt.id,
                reason=Reason.PREEMPTED,
                sentence=stopped_for(for_job, price),
                grace_ms=self.market.settings.drain_grace_ms,
            )


def make_way(wishes: Iterable[Wish], *, way: Way) -> list[Preempt]:
    """Give the stops for jobs that found no room, the urgent first."""
    lowest = way.lowest_priority()
    stops: list[Preempt] = []
    for wish in wishes if lowest is not None else ():
        job, urgent = wish.job, wish.is_due(way.market.now_us)
        if urgent:
            made = way.make(job, [choice for choice in wish.choices if choice.sure])
        elif lowest is not None and job.spec.priority > lowest:
            made = way.make(job, wish.choices, below=job.spec.priority, pays=True)
        else:
            made = None
        stops += way.stops(made, for_job=job) if made is not None else ()
    return stops


def stopped_for(job: JobRow, price: Price) -> str:
    """Say for whom an attempt is stopped, and what that costs."""
    parts = (
        (price.lost, "of work since its restore point"),
        (price.restart, "for another start"),
        (price.premium, "for dearer capacity that its deadline then needs"),
    )
    told = ", ".join(f"{show_usd(usd_nanos)} {what}" for usd_nanos, what in parts if usd_nanos)
    why = "whose deadline needs its place" if job.deadline_us is not None else "which goes first"
    return (
        f"Makes way for {job.id} (priority {job.spec.priority}), {why}; stopping it costs at most "
        f"{show_usd(price.usd_nanos)}{f': {told}' if told else ''}."
    )


def _free(room: dict[str, tuple[int, int]], one: LiveAttempt, *, back: bool = False) -> None:
    """Add what an attempt holds to its nodes' room, or take it back."""
    sign = -1 if back else 1
    for node_id in one.attempt.node_ids:
        if node_id in room:
            milli, cpus = room[node_id]
            room[node_id] = (
                milli + sign * one.attempt.gpu_milli,
                cpus + sign * one.job.spec.cpus,
            )


def _fits(free: tuple[int, int], need: tuple[int, int]) -> bool:
    return free[0] >= need[0] and free[1] >= need[1]


def _less(free: tuple[int, int], taken: tuple[int, int] | None) -> tuple[int, int]:
    return free if taken is None else (free[0] - taken[0], free[1] - taken[1])
