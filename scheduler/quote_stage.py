"""What all futures of one question share: the offers, their prices over time, who else is there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median_low

from cluster.flavors import Flavor
from cluster.offers import Offer
from jobs.durations import US_PER_MS
from jobs.reasons import Reason
from jobs.rows import JobRow
from jobs.spec import JobSpec
from jobs.states import JobState
from scheduler.market import Market, Tape
from scheduler.needs import is_sure
from scheduler.quote_crowd import NODE, Crowd, Throng, share
from scheduler.quote_sky import Sky
from scheduler.snapshot import Snapshot
from scheduler.survival import US_PER_HOUR

AHEAD_US = 48 * US_PER_HOUR  # as far as a plan looks into known prices
DAY_US = 24 * US_PER_HOUR
JOB_ID = "quote"


def newcomer(spec: JobSpec, *, now_us: int, span_us: int = 0) -> JobRow:
    """Give the row that a spec would get if it were submitted now.

    ``span_us`` makes it older, so that its deadline is at least so long after its submission: a
    policy that plans by tables sizes them by that, and jobs of one size share a table.
    """
    deadline_us = spec.deadline_us(submitted_us=now_us)
    return JobRow(
        id=JOB_ID,
        spec=spec,
        state=JobState.QUEUED,
        reason=Reason.NEW,
        sentence="",
        submitted_us=now_us if deadline_us is None else min(now_us, deadline_us - span_us),
        queued_us=now_us,
        changed_us=now_us,
        deadline_us=deadline_us,
        work_ms=spec.work or 0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prices:
    """The price steps of a flavor, beyond what is published: the last known day again."""

    tape: Tape
    starts_us: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]

    def ahead(self, at_us: int) -> tuple[tuple[int, int], ...]:
        """Give the steps that a plan at that instant would know."""
        first = bisect_right(self.starts_us, at_us)
        return self.steps[first : bisect_right(self.starts_us, at_us + AHEAD_US - 1)]


class Stage:
    """The snapshots that a job would see in a future; see the module docstring."""

    def __init__(
        self, snapshot: Snapshot, spec: JobSpec, *, horizon_us: int, span_us: int = 0
    ) -> None:
        """Take the offers that could hold the job, and the queue as it is."""
        market = Market(snapshot)
        self.now_us, self.horizon_us = snapshot.now_us, horizon_us
        self.job = newcomer(spec, now_us=snapshot.now_us, span_us=span_us)
        self.offers = tuple(market.allowed(spec))
        self._by_name = {o.flavor.name: o for o in self.offers}
        self.spots = tuple(o.flavor.name for o in self.offers if not is_sure(o.flavor))
        self.crowd = Crowd(snapshot, self.job, market=market)
        self.tapes = {o.flavor.name: self._prices(o) for o in self.offers}
        self._usual = {o.flavor.name: _usual_limit(o, nodes=spec.nodes) for o in self.offers}
        self._base = replace(snapshot, queued=(), live=(), nodes=(), offers=())

    @property
    def planned(self) -> bool:
        """Whether ``decide`` moves the job while it runs: it has a deadline."""
        return self.job.deadline_us is not None

    @property
    def grace_ms(self) -> int:
        """The grace of a preemption that we ask for."""
        return self._base.settings.drain_grace_ms

    def flavor(self, name: str) -> Flavor:
        """Give a flavor that could hold the job."""
        return self._by_name[name].flavor

    def notice_us(self, flavor: str) -> int:
        """Give the notice before an eviction."""
        return self._by_name[flavor].flavor.notice_ms * US_PER_MS

    def cost(self, flavor: str, from_us: int, until_us: int) -> int:
        """Give what one node costs over a stretch, nano-dollars."""
        return self.tapes[flavor].tape.cost(from_us, until_us)

    def throng(self, sky: Sky) -> Throng:
        """Give the others of one future."""
        return Throng(self.crowd, sky, limits=self._usual, now_us=self.now_us)

    def takes(self, flavor: str) -> Mapping[str, int]:
        """Give what the job holds while it is on a flavor, thousandths of a node."""
        return {flavor: share(self.job.spec, self._by_name[flavor])}

    def view(self, sky: Sky, throng: Throng, at_us: int, *, mine: Mapping[str, int]) -> Snapshot:
        """Give the world at an instant of a future, without the job, which holds ``mine``."""
        throng.advance(at_us, mine=mine)
        offers = tuple(
            self._offer(offer, sky, throng, at_us, mine=mine.get(offer.flavor.name, 0))
            for offer in self.offers
        )
        return replace(self._base, now_us=at_us, offers=offers)

    def _offer(self, offer: Offer, sky: Sky, throng: Throng, at_us: int, *, mine: int) -> Offer:
        name, gang = offer.flavor.name, share(self.job.spec, offer)
        limit = self._usual[name] if sky.up(name, at_us) else 0
        free = limit * NODE - throng.held(name) - mine
        # A job that needs but a part of a node has room where so much is free.
        room = free // NODE if gang % NODE == 0 else self.job.spec.nodes * (free // max(1, gang))
        prices = self.tapes[name]
        return replace(
            offer,
            usd_nanos_per_hour=prices.tape.price(at_us),
            next_prices=prices.ahead(at_us),
            limit=limit,
            launchable=max(0, room) if at_us >= offer.backoff_until_us else 0,
            levels=self._levels(offer, sky, at_us),
        )

    def _levels(self, offer: Offer, sky: Sky, at_us: int) -> tuple[tuple[int, int], ...]:
        """Give the observed levels, and the present spell of the future as the last change.

        The spells in between are left out: they would only make the estimates of hazard wander.
        """
        name, nodes = offer.flavor.name, self.job.spec.nodes
        since_us = sky.since_us(name, at_us)
        if is_sure(offer.flavor) or since_us <= self.now_us:
            return offer.levels
        levels = {True: self._usual[name], False: 0}
        up = sky.up(name, at_us)
        known = list(offer.levels)
        while known and (known[-1][1] >= nodes) is up:
            known.pop()
        if not known:
            known = [(since_us - US_PER_HOUR, levels[not up])]
        return (*known, (since_us, levels[up]))

    def _prices(self, offer: Offer) -> _Prices:
        steps = list(offer.next_prices)
        until_us = self.now_us + AHEAD_US
        while offer.next_prices and until_us < self.horizon_us:
            day = [one for one in steps if until_us - DAY_US <= one[0] < until_us]
            steps += [(at_us + DAY_US, price) for at_us, price in day]
            until_us += DAY_US
        tape = Tape(replace(offer, next_prices=tuple(steps)), now_us=self.now_us)
        return _Prices(tape=tape, starts_us=tuple(at for at, _ in steps), steps=tuple(steps))


def _usual_limit(offer: Offer, *, nodes: int) -> int:
    """Give how many nodes a flavor has when it has enough for the gang."""
    if offer.limit >= nodes:
        return offer.limit
    enough = [level for _, level in offer.levels if level >= nodes]
    return median_low(enough) if enough else max(nodes, offer.flavor.max_nodes)
