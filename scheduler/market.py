"""The offers of a cycle as a job sees them: which are allowed, and what its rest costs on each."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from cluster.flavors import Flavor
from cluster.offers import Offer
from jobs.durations import US_PER_MS
from jobs.rows import JobRow
from jobs.spec import JobSpec
from scheduler.layout import Layout
from scheduler.needs import at_risk_ms, is_sure, overhead_ms, with_stalls_ms
from scheduler.snapshot import Snapshot
from scheduler.survival import Spell, present

MS_PER_HOUR = 3_600_000
_US_PER_HOUR = MS_PER_HOUR * US_PER_MS
_LOOK_US = 300 * 1_000_000
"""Jobs of a queue look around at multiples of this, so that one cycle serves many of them."""
_MILLION_HOURS_MS = MS_PER_HOUR * 1_000_000

_Allowed = tuple[tuple[Offer, ...], tuple[Flavor, ...]]


class Tape:
    """The known price of an offer over time, with running sums; the last price holds for ever."""

    def __init__(self, offer: Offer, *, now_us: int) -> None:
        """Begin with the price of now."""
        self.starts_us = [now_us, *(at_us for at_us, _ in offer.next_prices)]
        prices = [offer.usd_nanos_per_hour, *(price for _, price in offer.next_prices)]
        doubt = offer.price_doubt_permille  # a feed that stopped: nobody relies on an old price
        self._prices = [price + price * doubt // 1_000 for price in prices] if doubt else prices
        self.lowest_later = min(self._prices[1:], default=self._prices[0])
        self._sums = [0]
        for index in range(1, len(self.starts_us)):
            lasted_us = self.starts_us[index] - self.starts_us[index - 1]
            self._sums.append(self._sums[-1] + lasted_us * self._prices[index - 1])

    def price(self, at_us: int) -> int:
        """Give the price at an instant, nano-dollars per node-hour."""
        return self._prices[max(0, bisect_right(self.starts_us, at_us) - 1)]

    def cost(self, from_us: int, until_us: int) -> int:
        """Give the cost of one node over an interval, nano-dollars."""
        return (self._sum(until_us) - self._sum(from_us)) // _US_PER_HOUR

    def starts(self, wall_us: int, *, steps: int) -> list[tuple[int, int, int]]:
        """Give later starts of a stretch of that length: (cost, 1 = off a step, instant), sorted.

        Only those are given that the first ``steps`` steps make.

        The cost is piecewise linear in the start, with bends where a price step meets the start
        or the end of the stretch, so only those instants can be cheapest.
        """
        found = []
        for step_us in self.starts_us[1:steps]:
            for off, at_us in ((0, step_us), (1, step_us - wall_us)):
                if at_us > self.starts_us[0]:
                    found.append((self.cost(at_us, at_us + wall_us), off, at_us))
        return sorted(found)

    def _sum(self, at_us: int) -> int:
        index = max(0, bisect_right(self.starts_us, at_us) - 1)
        return self._sums[index] + (at_us - self.starts_us[index]) * self._prices[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One flavor on which a job could start, and what its rest would cost there from now."""

    offer: Offer
    wall_ms: int  # launch to end: overhead, work, saves, expected failures
    cost_nanos: int  # the job's share of its nodes, known price steps followed
    whole_nanos: int  # the same when the job has its nodes alone

    @property
    def flavor(self) -> Flavor:
        """The kind of capacity."""
        return self.offer.flavor

    @property
    def sure(self) -> bool:
        """Whether it stays ours."""
        return is_sure(self.offer.flavor)

    @property
    def key(self) -> tuple[int, str]:
        """Cheapest first, then by name."""
        return self.cost_nanos, self.offer.flavor.name


class Market:
    """All offers of a snapshot, with what a cycle need work out only once."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Index the offers."""
        self.now_us = snapshot.now_us
        self.settings = snapshot.settings
        self.snapshot = snapshot
        self.layout: Layout | None = None  # of deadlines that may crowd; see scheduler.claims
        self.room_wanted: dict[str, int] = {}  # by sure flavor; see scheduler.stop_room
        self.horizon = snapshot.horizon
        self.egress_nanos_per_gb = snapshot.egress_nanos_per_gb
        self.homes = snapshot.homes
        self.offers = {offer.flavor.name: offer for offer in snapshot.offers}
        self.tapes = {
            name: Tape(offer, now_us=snapshot.now_us) for name, offer in self.offers.items()
        }
        self._allowed: dict[tuple[object, ...], _Allowed] = {}
        self._of_spec: dict[int, tuple[JobSpec, _Allowed]] = {}  # the same, without its rules
        self._starts: dict[tuple[str, int, int], list[tuple[int, int, int]]] = {}
        spots = [offer for offer in snapshot.offers if not is_sure(offer.flavor) and offer.limit]
        self.least_spot_nanos = min((one.usd_nanos_per_hour for one in spots), default=None)
        self._spells: dict[tuple[int, tuple[str, ...]], Spell] = {}

    def allowed(self, spec: JobSpec) -> tuple[Offer, ...]:
        """Give the offers that could ever hold the job's whole gang, in snapshot order."""
        return self._of_shape(spec)[0]

    def sure_flavors(self, spec: JobSpec) -> tuple[Flavor, ...]:
        """Give the allowed flavors that stay ours."""
        return self._of_shape(spec)[1]

    def _of_shape(self, spec: JobSpec) -> _Allowed:
        known = self._of_spec.get(id(spec))
        if known is not None and known[0] is spec:
            return known[1]
        rules = (spec.markets, spec.accelerators, spec.regions)
        key = (rules, spec.gpus, spec.cpus, spec.memory_gb, spec.nodes)
        found = self._allowed.get(key)
        if found is None:
            offers = tuple(offer for offer in self.offers.values() if could_hold(offer, spec))
            sure = tuple(offer.flavor for offer in offers if is_sure(offer.flavor))
            found = self._allowed[key] = (offers, sure)
        self._of_spec[id(spec)] = (spec, found)
        return found

    def spell(self, names: tuple[str, ...], *, nodes: int) -> Spell:
        """Give the spell of "at least one of these flavors can hold a gang of so many nodes"."""
        found = self._spells.get((nodes, names))
        if found is None:
            offers = [self.offers[name] for name in names]
            found = self._spells[nodes, names] = present(
                [offer.levels for offer in offers],
                nodes=nodes,
                now_us=self.now_us,
                up=any(offer.limit >= nodes for offer in offers),
            )
        return found

    def again_us(self, in_us: int) -> int:
        """Give when to look around again: after that time, or a little later with others."""
        at_us = self.now_us + in_us
        is_alone = len(self.snapshot.queued) + len(self.snapshot.live) <= 1
        return at_us if is_alone else -(-at_us // _LOOK_US) * _LOOK_US

    def choices(self, job: JobRow) -> Iterator[Choice]:
        """Give a choice for every allowed offer, the price of now first in mind."""
        for offer in self.allowed(job.spec):
            wall = wall_ms(job, offer)
            until_us = self.now_us + wall * US_PER_MS
            node = self.tapes[offer.flavor.name].cost(self.now_us, until_us)
            yield Choice(
                offer=offer,
                wall_ms=wall,
                cost_nanos=shared(node * job.spec.nodes, spec=job.spec, flavor=offer.flavor),
                whole_nanos=node * job.spec.nodes,
            )

    def best_start(self, job: JobRow, choice: Choice, *, before_us: int) -> tuple[int, int] | None:
        """Give the cheapest later start before an instant: (cost to the job, instant)."""
        tape = self.tapes[choice.flavor.name]
        if len(tape.starts_us) == 1:
            return None
        wall_us = choice.wall_ms * US_PER_MS
        steps = bisect_left(tape.starts_us, before_us + wall_us)  # a later one makes no such start
        key = (choice.flavor.name, choice.wall_ms, steps)
        if key not in self._starts:
            self._starts[key] = tape.starts(wall_us, steps=steps)
        for cost, _, at_us in self._starts[key]:
            if at_us < before_us:
                whole = cost * job.spec.nodes
                return shared(whole, spec=job.spec, flavor=choice.flavor), at_us
        return None

    def flat_cost(self, job: JobRow, choice: Choice, *, at_us: int) -> int:
        """Give the cost of the rest at the price of one instant, without expected failures.

        It does not change with the clock, which a sentence must not either. Of a job that gave
        no estimate of its work, it is the cost of an hour.
        """
        price = self.tapes[choice.flavor.name].price(at_us)
        wall = plain_wall_ms(job, choice.offer) if job.work_ms else MS_PER_HOUR
        node = price * wall // MS_PER_HOUR
        return shared(node * job.spec.nodes, spec=job.spec, flavor=choice.flavor)


def could_hold(offer: Offer, spec: JobSpec) -> bool:
    """Whether the whole gang could be up on the flavor at its configured or present limit."""
    return spec.nodes <= max(offer.flavor.max_nodes, offer.limit) and offer.flavor.allows(spec)


def plain_wall_ms(job: JobRow, offer: Offer) -> int:
    """Time from launch to the end of the job when nothing fails; an hour of work if unknown."""
    overhead = overhead_ms(job, offer.flavor, restores=job.attempts > 0)
    work_ms = job.remaining_ms() if job.work_ms else MS_PER_HOUR
    return overhead + with_stalls_ms(job.spec, work_ms)


def wall_ms(job: JobRow, offer: Offer) -> int:
    """Time from launch to end with expected evictions: each costs a start and half an interval."""
    plain = plain_wall_ms(job, offer)
    again = overhead_ms(job, offer.flavor, restores=True)
    again += at_risk_ms(job.spec, job.remaining_ms()) // 2
    chances = plain * job.spec.nodes * offer.hazard_per_million_hours
    return plain + chances * again // _MILLION_HOURS_MS


def shared(usd_nanos: int, *, spec: JobSpec, flavor: Flavor) -> int:
    """Give the job's share of the cost of its nodes, by GPUs, or by cores on a CPU node."""
    if flavor.gpu_milli:
        return usd_nanos * spec.gpu_milli // flavor.gpu_milli
    return usd_nanos * spec.cpus // max(1, flavor.cpus)
