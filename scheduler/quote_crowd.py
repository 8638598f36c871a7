"""Who else holds capacity, and until when: live attempts, and the queue ahead of the newcomer.

Others are followed without chance: each holds its nodes for as long as its own estimate says (an
hour where there is none), and each that waits ahead starts as soon as its cheapest flavor with room
has room. That is coarser than the newcomer's own futures, which is what keeps a quote quick.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from cluster.offers import Offer
from jobs.durations import US_PER_MS
from jobs.rows import JobRow
from jobs.spec import JobSpec
from scheduler.market import Market, plain_wall_ms
from scheduler.snapshot import LiveAttempt, Snapshot

NODE = 1_000
"""Room is counted in thousandths of a node, so that jobs may share one."""
MOST_AHEAD = 300
"""Who stands further ahead than this is not followed one by one."""


def share(spec: JobSpec, offer: Offer) -> int:
    """Give what a gang takes of a flavor, in thousandths of a node."""
    flavor = offer.flavor
    if flavor.gpu_milli:
        return spec.nodes * NODE * spec.gpu_milli // flavor.gpu_milli
    return spec.nodes * NODE * spec.cpus // max(1, flavor.cpus)


class Crowd:
    """The capacity that others hold, by flavor and instant."""

    def __init__(self, snapshot: Snapshot, newcomer: JobRow, *, market: Market) -> None:
        """Follow the live attempts to their ends, then place those who wait ahead."""
        self._market, self._now_us = market, snapshot.now_us
        self._stays: dict[str, list[tuple[int, int, int]]] = {}  # from, until, thousandths
        for one in snapshot.live:
            self._follow(one)
        self.ahead = tuple(_ahead(snapshot.queued, newcomer))
        for job in self.ahead[:MOST_AHEAD]:
            self._queue(job)
        self.changes_us = sorted(
            {at for stays in self._stays.values() for stay in stays for at in stay[:2]}
        )

    def held(self, flavor: str, at_us: int) -> int:
        """Give what others hold of a flavor at an instant, thousandths of a node."""
        stays = self._stays.get(flavor, ())
        return sum(milli for since, until, milli in stays if since <= at_us < until)

    def next_change_us(self, after_us: int) -> int | None:
        """Give when somebody comes or goes next."""
        index = bisect_right(self.changes_us, after_us)
        return self.changes_us[index] if index < len(self.changes_us) else None

    def _follow(self, one: LiveAttempt) -> None:
        offer = self._market.offers.get(one.attempt.flavor)
        if offer is not None:
            began_us = one.attempt.training_us or self._now_us
            done_us = max(0, self._now_us - began_us)
            wall_us = plain_wall_ms(one.job, offer) * US_PER_MS
            until_us = self._now_us + max(wall_us - done_us, wall_us // 20, NODE)
            self._hold(offer, one.job.spec, since_us=self._now_us, until_us=until_us)

    def _queue(self, job: JobRow) -> None:
        offers = sorted(
            self._market.allowed(job.spec), key=lambda o: (o.usd_nanos_per_hour, o.flavor.name)
        )
        starts = [(self._room_us(offer, job.spec), rank) for rank, offer in enumerate(offers)]
        since_us, rank = min(((at, rank) for at, rank in starts if at is not None), default=(0, -1))
        if rank >= 0:
            wall_us = plain_wall_ms(job, offers[rank]) * US_PER_MS
            self._hold(offers[rank], job.spec, since_us=since_us, until_us=since_us + wall_us)

    def _room_us(self, offer: Offer, spec: JobSpec) -> int | None:
        """Give the first instant at which a flavor has room for a gang, at its present limit."""
        name, needed = offer.flavor.name, share(spec, offer)
        ends = sorted(until for _, until, _ in self._stays.get(name, ()))
        for at_us in (self._now_us, *ends):
            if self.held(name, at_us) + needed <= offer.limit * NODE:
                return at_us
        return None

    def _hold(self, offer: Offer, spec: JobSpec, *, since_us: int, until_us: int) -> None:
        stays = self._stays.setdefault(offer.flavor.name, [])
        stays.append((since_us, until_us, share(spec, offer)))


def _ahead(queued: Iterable[JobRow], newcomer: JobRow) -> Iterator[JobRow]:
    """Give who goes before a newcomer: higher priority, or the same and older."""
    mine = -newcomer.spec.priority
    waiting = (job for job in queued if not job.held and not job.cancel_requested)
    ranked = ((-job.spec.priority, job.submitted_us, job.id, job) for job in waiting)
    for _, _, _, job in sorted(one for one in ranked if one[0] <= mine):
        if job.id != newcomer.id:
            yield job
