"""Which running attempts draw out their reservation, and which save and leave for money.

An attempt leaves ``lead_us`` before its reservation ends, so that its save and the end of its
bill still fit. Before that it is drawn out as far as its budgets cover. The same is asked when a
price passes the cap that was reserved, when a limit was lowered below what is committed, and when
a budget is new to it; oldest attempts first, so that the youngest leave.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cluster.offers import Offer
from jobs.budget import Action
from jobs.durations import US_PER_MS
from jobs.reasons import Reason
from jobs.states import AttemptState
from scheduler.budget_purses import (
    Purse,
    Purses,
    grace_ms,
    lead_us,
    rate_at_most,
    rate_now,
    reserve,
)
from scheduler.budget_sentences import leaves_at_threshold, leaves_for_money
from scheduler.budget_view import US_PER_HOUR
from scheduler.budgets import covered
from scheduler.market import MS_PER_HOUR, Market
from scheduler.needs import REACTION_US, guarded_ms, is_sure, overhead_ms
from scheduler.plan import Preempt, Reservation
from scheduler.snapshot import LiveAttempt

_TRANCHE_MS = 600_000
"""Least time that a reservation is drawn out by, where there is money."""
_LEAST_US = 60_000_000
"""Less than this is not worth another reservation: the attempt leaves."""


@dataclass(slots=True)
class Settled:
    """Who leaves, whose reservation changes, and when to look again."""

    preempts: list[Preempt] = field(default_factory=list)
    reservations: list[tuple[str, Reservation]] = field(default_factory=list)
    wakes_us: list[int] = field(default_factory=list)
    pinned: dict[str, None] = field(default_factory=dict)  # no money for a start on another market

    @property
    def gone(self) -> dict[str, None]:
        """The attempts that leave."""
        return dict.fromkeys(preempt.attempt_id for preempt in self.preempts)


def settle(live: Iterable[LiveAttempt], *, purses: Purses, market: Market) -> Settled:
    """Decide for every live attempt; call it before anything new is reserved."""
    settled = Settled()
    bound: list[_Bound] = []
    for one in sorted(live, key=lambda one: (one.attempt.created_us, one.attempt.id)):
        mine, offer = purses.of(one.job), market.offers.get(one.attempt.flavor)
        if mine and offer is not None and one.attempt.state is not AttemptState.DRAINING:
            bound.append(_Bound(one=one, mine=mine, offer=offer, market=market))
    due = [each for each in bound if _stays_on(each, settled)]
    for each in due:
        for purse in each.mine:
            purse.give_back(each.one.attempt)
    for each in due:
        _reserve(each, settled)
    settled.pinned |= {each.one.attempt.id: None for each in bound if _is_pinned(each)}
    # What is given up comes before what is taken, so that the sum never passes the limit.
    settled.reservations.sort(key=lambda pair: pair[0] not in settled.gone)
    for purse in purses.all:
        settled.wakes_us += _edges(purse)
    if settled.preempts:
        settled.wakes_us.append(market.now_us + REACTION_US)
    return settled


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """A live attempt with its purses."""

    one: LiveAttempt
    mine: tuple[Purse, ...]
    offer: Offer
    market: Market

    @property
    def lead_us(self) -> int:
        """How long before the end of its reservation it must begin to leave."""
        return lead_us(self.one.job.spec, self.market.settings)

    def is_due(self) -> bool:
        """Whether its reservation has to be looked at again."""
        attempt, now_us = self.one.attempt, self.market.now_us
        if attempt.reserved_until_us is None:
            return True
        return (
            now_us + REACTION_US >= attempt.reserved_until_us - self.lead_us
            or rate_now(self.one.job.spec, self.offer) > attempt.reserved_usd_nanos_per_hour
            or any(purse.is_short for purse in self.mine)
        )


def _stays_on(each: _Bound, settled: Settled) -> bool:
    """Whether the attempt needs a new reservation now; one that is to pause leaves at once."""
    attempt = each.one.attempt
    pausing = [purse for purse in each.mine if purse.is_at(Action.PAUSE)]
    if pausing and not each.one.job.on_safety_net:
        _leave(each, leaves_at_threshold(pausing[0].view.row), settled)
        return False
    if not any(purse.hard for purse in each.mine):
        return False
    if each.is_due():
        return True
    assert attempt.reserved_until_us is not None, f"nothing is reserved: {attempt!r}"
    settled.wakes_us.append(attempt.reserved_until_us - each.lead_us)
    return False


def _reserve(each: _Bound, settled: Settled) -> None:
    """Draw the reservation out as far as the budgets cover, or make the attempt leave."""
    spec, now_us = each.one.job.spec, each.market.now_us
    rate = rate_at_most(spec, each.offer)
    worst_us = now_us + _rest_ms(each) * US_PER_MS + each.lead_us
    reach_us, _, tightest = min(
        (purse.reach_us(rate, claims=False), rank, purse) for rank, purse in enumerate(each.mine)
    )
    until_us = min(worst_us, reach_us)
    stays = until_us >= min(worst_us, now_us + each.lead_us + _LEAST_US)
    if not stays:
        _leave(each, leaves_for_money(tightest.view.row), settled)
        until_us = now_us + each.lead_us
    made = reserve(each.mine, spec, each.offer, until_us=until_us, again=True)
    assert made is not None, f"nothing binds {each.one.attempt!r}"
    settled.reservations.append((each.one.attempt.id, made))
    if stays:
        settled.wakes_us.append(until_us - each.lead_us)


def _is_pinned(each: _Bound) -> bool:
    """Whether moving to the other market makes no sense: its money would not cover a start."""
    if not any(purse.hard for purse in each.mine):
        return False
    sure, job = is_sure(each.offer.flavor), each.one.job
    others = [choice for choice in each.market.choices(job) if choice.sure is not sure]
    before = [(purse, purse.left, purse.next_left) for purse in each.mine]
    for purse in each.mine:
        purse.give_back(each.one.attempt)
    found = covered(job, others, each.mine, market=each.market)
    for purse, left, next_left in before:
        purse.left, purse.next_left = left, next_left
    return not found


def _rest_ms(each: _Bound) -> int:
    """Give how long the attempt may still take, at least a tranche."""
    job = each.one.job
    work_ms = job.remaining_ms(step=job.step) if job.work_ms else MS_PER_HOUR
    rest_ms = guarded_ms(job.spec, work_ms, settings=each.market.settings)
    if each.one.attempt.training_us is None:
        rest_ms += overhead_ms(job, each.offer.flavor, restores=job.attempts > 1)
    return max(rest_ms, _TRANCHE_MS)


def _leave(each: _Bound, sentence: str, settled: Settled) -> None:
    settled.preempts.append(
        Preempt(
            attempt_id=each.one.attempt.id,
            reason=Reason.BUDGET,
            sentence=sentence,
            grace_ms=grace_ms(each.one.job.spec, each.market.settings),
        )
    )


def _edges(purse: Purse) -> list[int]:
    """Give when the period ends, and when the next threshold is crossed at the price of now."""
    row = purse.view.row
    edges = [] if row.until_us is None else [row.until_us]
    ahead = [one.percent for one in row.terms.thresholds if one.percent > row.crossed_percent]
    if ahead and purse.pace:
        missing = row.limit_usd_nanos * ahead[0] // 100 - purse.view.spent_usd_nanos
        edges.append(purse.now_us + max(0, missing) * US_PER_HOUR // purse.pace + 1)
    return edges
