"""Who else wants capacity: the live attempts, and the queue ahead of the newcomer.

In each future they come and go with the same sky as the newcomer: spot that goes evicts them too,
and spot that comes back is theirs first. They are followed by a plain rule (spot where they may,
sure capacity where they must), not by ``decide``; that is what keeps a quote quick.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from cluster.offers import Offer
from jobs.durations import US_PER_MS
from jobs.rows import JobRow
from jobs.spec import JobSpec
from scheduler.market import Market, plain_wall_ms
from scheduler.needs import is_sure, overhead_ms
from scheduler.quote_sky import FOREVER_US, Sky
from scheduler.snapshot import LiveAttempt, Snapshot
from scheduler.spot_policy import case_of

NODE = 1_000
"""Room is counted in thousandths of a node, so that jobs may share one."""
MOST_AHEAD = 60
"""Who stands further ahead than this is not followed."""
EAGER = frozenset({"on-demand", "spot-now", "lowest-window"})
"""Policies that do not wait for spot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """Another job: what it takes of each flavor, cheapest first, and for how long yet."""

    takes: tuple[tuple[str, int], ...]  # flavor, thousandths of a node
    rest_us: int  # work and what goes with it
    again_us: int  # boot, set-up and restore of another start
    sure_from_us: int  # when it takes sure capacity as well
    flavor: str = ""  # where it is, "" while it waits
    until_us: int = FOREVER_US


def share(spec: JobSpec, offer: Offer) -> int:
    """Give what a gang takes of a flavor, in thousandths of a node."""
    flavor = offer.flavor
    if flavor.gpu_milli:
        return spec.nodes * NODE * spec.gpu_milli // flavor.gpu_milli
    return spec.nodes * NODE * spec.cpus // max(1, flavor.cpus)


class Crowd:
    """The others as they are now; ``ahead`` are those who wait before the newcomer."""

    def __init__(self, snapshot: Snapshot, newcomer: JobRow, *, market: Market) -> None:
        """Take the live attempts and the queue ahead."""
        self._market = market
        self.ahead = tuple(_ahead(snapshot.queued, newcomer))
        live = (self._live(one) for one in snapshot.live)
        waiting = (self._other(job) for job in self.ahead[:MOST_AHEAD])
        self.others = tuple(one for one in (*live, *waiting) if one is not None)
        self.sure = frozenset(o.flavor.name for o in snapshot.offers if is_sure(o.flavor))

    def _live(self, one: LiveAttempt) -> Other | None:
        offer, found = self._market.offers.get(one.attempt.flavor), self._other(one.job)
        if offer is None or found is None:
            return None
        now_us = self._market.now_us
        wall_us = plain_wall_ms(one.job, offer) * US_PER_MS
        done_us = now_us - (one.attempt.training_us or now_us)
        until_us = now_us + max(wall_us - done_us, wall_us // 20, US_PER_MS)
        return replace(found, flavor=offer.flavor.name, until_us=until_us)

    def _other(self, job: JobRow) -> Other | None:
        market = self._market
        offers = sorted(
            market.allowed(job.spec), key=lambda o: (o.usd_nanos_per_hour, o.flavor.name)
        )
        if not offers:
            return None
        again_us = overhead_ms(job, offers[0].flavor, restores=True) * US_PER_MS
        waits = market.settings.name not in EAGER and any(not is_sure(o.flavor) for o in offers)
        latest_us = case_of(job, market=market).latest_us
        return Other(
            takes=tuple((offer.flavor.name, share(job.spec, offer)) for offer in offers),
            rest_us=plain_wall_ms(job, offers[0]) * US_PER_MS,
            again_us=again_us,
            sure_from_us=market.now_us if not waits else latest_us or FOREVER_US,
        )


class Throng:
    """The others in one future; time only goes forward."""

    def __init__(self, crowd: Crowd, sky: Sky, *, limits: Mapping[str, int], now_us: int) -> None:
        """Stand at the newcomer's submission."""
        self._sky, self._at_us, self._limits, self._sure = sky, now_us, limits, crowd.sure
        self._spots = [name for name in limits if name not in crowd.sure]
        self._mine: Mapping[str, int] = {}
        self._waiting = [one for one in crowd.others if not one.flavor]
        self._placed = [one for one in crowd.others if one.flavor]
        self._held: dict[str, int] = {}
        for one in self._placed:
            self._count(one, 1)
        self._settle(now_us)

    def held(self, flavor: str) -> int:
        """Give what the others hold of a flavor now, thousandths of a node."""
        return self._held.get(flavor, 0)

    def advance(self, at_us: int, *, mine: Mapping[str, int]) -> None:
        """Go on to an instant, until which the newcomer held what it said last."""
        while (self._waiting or self._placed) and (next_us := self.next_us()) <= at_us:
            self._settle(next_us)
        self._at_us, self._mine = max(self._at_us, at_us), mine

    def next_us(self) -> int:
        """Give when somebody may come or go next."""
        due = [one.until_us for one in self._placed]
        due += [one.sure_from_us for one in self._waiting if one.sure_from_us > self._at_us]
        spots = self._spots if self._waiting else [n for n in self._spots if self._held.get(n)]
        due += [self._sky.until_us(name, self._at_us) for name in spots]
        return min(due, default=FOREVER_US)

    def _settle(self, at_us: int) -> None:
        """Let those who are done go, evict, and give room to those who wait, in order."""
        self._at_us = at_us
        self._leave(at_us)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            flavor = self._room(one, at_us)
            if flavor:
                placed = replace(one, flavor=flavor, until_us=at_us + one.rest_us)
                self._placed.append(placed)
                self._count(placed, 1)
            else:
                self._waiting.append(one)

    def _leave(self, at_us: int) -> None:
        """Take out who is done, and put back in the queue whose spot is gone."""
        kept, evicted = [], []
        for one in self._placed:
            gone = one.flavor in self._spots and not self._sky.up(one.flavor, at_us)
            if one.until_us > at_us and not gone:
                kept.append(one)
                continue
            self._count(one, -1)
            if one.until_us > at_us:
                rest_us = one.until_us - at_us + one.again_us
                evicted.append(replace(one, flavor="", until_us=FOREVER_US, rest_us=rest_us))
        self._placed = kept
        self._waiting = [*evicted, *self._waiting]  # who ran is the older

    def _room(self, one: Other, at_us: int) -> str:
        """Give the cheapest flavor that has room for it, "" where none has."""
        for name, milli in one.takes:
            if name not in self._limits or (name in self._sure and at_us < one.sure_from_us):
                continue
            held = self._held.get(name, 0) + self._mine.get(name, 0)
            if held + milli <= self._limits[name] * NODE and self._sky.up(name, at_us):
                return name
        return ""

    def _count(self, one: Other, sign: int) -> None:
        milli = dict(one.takes)[one.flavor]
        self._held[one.flavor] = self._held.get(one.flavor, 0) + sign * milli


def _ahead(queued: Iterable[JobRow], newcomer: JobRow) -> Iterator[JobRow]:
    """Give who goes before a newcomer: higher priority, or the same and older."""
    mine = -newcomer.spec.priority
    waiting = (job for job in queued if not job.held and not job.cancel_requested)
    ranked = ((-job.spec.priority, job.submitted_us, job.id, job) for job in waiting)
    for _, _, _, job in sorted(one for one in ranked if one[0] <= mine):
        if job.id != newcomer.id:
            yield job
