"""Who may start with the money left, and who waits for more of it.

A start needs, of every budget that pays for the job: open hours, no threshold that holds new
jobs, a share of the limit that has accrued (``burn: even``), and, where the budget is hard, money
for the rest of the job at the price of now and for a useful stretch at the cap. The safety net of
a deadline goes before thresholds and even burn, but never before a hard limit.

Nobody starves: a job that waits for money keeps a claim on it, which jobs behind it respect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from jobs.budget import Action, Period
from jobs.durations import US_PER_MS
from jobs.reasons import Reason
from jobs.rows import JobRow
from scheduler.budget_periods import opens_us
from scheduler.budget_purses import (
    Purse,
    Purses,
    lead_us,
    rate_at_most,
    rate_now,
    reserve,
)
from scheduler.budget_sentences import waits_for_hours, waits_for_money, waits_for_pace
from scheduler.budget_view import US_PER_HOUR
from scheduler.market import MS_PER_HOUR, Choice, Market, plain_wall_ms
from scheduler.needs import guarded_ms, overhead_ms
from scheduler.plan import Place
from scheduler.wishes import Wait, Wish

_WORTH_OVERHEADS = 10
"""A job that no period of a budget can pay whole starts when so many overheads are covered."""
_STRETCH_US = 5 * 60_000_000
"""No start for less than this, unless the job ends before: its time would go into starting."""


class Want(StrEnum):
    """What a start lacks."""

    HOURS = "hours"
    THRESHOLD = "threshold"
    PACE = "pace"
    MONEY = "money"


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """What stands between a job and a start on one choice."""

    want: Want
    purse: Purse
    need: int  # what the rest of the job costs at the price of now
    wakes_us: int | None  # when that may change by itself
    least: int = 0  # what the shortest start that makes sense can cost


def ranked(wishes: Iterable[Wish], *, purses: Purses) -> list[Wish]:
    """Put those behind all others whose budgets say so (``deprioritise``)."""
    return [
        replace(wish, behind=True)
        if any(purse.is_at(Action.DEPRIORITISE) for purse in purses.of(wish.job))
        else wish
        for wish in wishes
    ]


def within(wish: Wish, *, purses: Purses, market: Market) -> Wish | Wait:
    """Take from a wish what its budgets do not cover; one without any choice left waits."""
    mine = purses.of(wish.job)
    if not mine or not wish.choices:
        return wish
    least = _least(wish.job, wish.choices, market=market)
    found = [(_obstacle(wish, one, mine, least, market=market), one) for one in wish.choices]
    payable = tuple(choice for obstacle, choice in found if obstacle is None)
    if payable:
        return replace(wish, choices=payable)
    first = min(
        ((obstacle.need, rank, obstacle) for rank, (obstacle, _) in enumerate(found) if obstacle),
        key=lambda one: one[:2],
    )[2]
    sentence = _sentence(first, wish.job)
    if first.want in {Want.PACE, Want.MONEY} and _can_ever(first):
        first.purse.claim(min(first.need, first.purse.view.row.limit_usd_nanos), wish.job.id)
    wakes = (first.wakes_us,) if first.wakes_us is not None else ()
    return Wait(
        job=wish.job,
        reason=Reason.WAITS_FOR_BUDGET,
        sentence=sentence,
        wakes_us=(*wish.otherwise.wakes_us, *wakes),
    )


def reserved(place: Place, wish: Wish, choice: Choice, *, purses: Purses, market: Market) -> Place:
    """Reserve the cost of a start's worst finish, as far as its budgets cover that."""
    job, mine = wish.job, purses.of(wish.job)
    if not mine:
        return place
    rate = rate_at_most(job.spec, choice.offer)
    wall_ms = overhead_ms(job, choice.flavor, restores=job.attempts > 0)
    work_ms = job.remaining_ms() if job.work_ms else MS_PER_HOUR
    wall_ms += guarded_ms(job.spec, work_ms, settings=market.settings)
    until_us = market.now_us + wall_ms * US_PER_MS + lead_us(job.spec, market.settings)
    until_us = min([until_us, *(purse.reach_us(rate) for purse in mine)])
    reservation = reserve(mine, job.spec, choice.offer, until_us=until_us)
    return replace(place, reservation=reservation)


def covered(
    job: JobRow, choices: Iterable[Choice], mine: Iterable[Purse], *, market: Market
) -> bool:
    """Whether the hard budgets of a job cover a start on any of these choices."""
    listed, purses = list(choices), list(mine)
    least = _least(job, listed, market=market)
    return any(
        all(_of_money(job, choice, purse, least, market=market) is None for purse in purses)
        for choice in listed
    )


def _least(job: JobRow, choices: Iterable[Choice], *, market: Market) -> int:
    """Give what the rest costs on the cheapest of some choices, at the price of now."""
    costs = (market.flat_cost(job, choice, at_us=market.now_us) for choice in choices)
    return min(costs, default=0)


def _obstacle(
    wish: Wish, choice: Choice, mine: Iterable[Purse], least: int, *, market: Market
) -> Obstacle | None:
    need = market.flat_cost(wish.job, choice, at_us=market.now_us)
    for purse in mine:
        found = _of_time(wish, purse, need)
        found = found or _of_money(wish.job, choice, purse, least, market=market)
        if found is not None:
            return found
    return None


def _of_time(wish: Wish, purse: Purse, need: int) -> Obstacle | None:
    """Hours, thresholds and even burn; the last two never hold a job whose slack is used up."""
    now_us, end_us = purse.now_us, purse.view.row.until_us
    begins_us = opens_us(purse.terms, now_us)
    if begins_us > now_us and (purse.hard or not _urgent(wish)):
        return Obstacle(want=Want.HOURS, purse=purse, need=need, wakes_us=begins_us)
    if _urgent(wish):
        return None
    if purse.is_at(Action.HOLD):
        return Obstacle(want=Want.THRESHOLD, purse=purse, need=need, wakes_us=end_us)
    missing = purse.ahead(need)
    if missing:
        wakes_us = purse.accrues_us(missing)
        return Obstacle(want=Want.PACE, purse=purse, need=need, wakes_us=wakes_us)
    return None


def _of_money(
    job: JobRow, choice: Choice, purse: Purse, least: int, *, market: Market
) -> Obstacle | None:
    """Say what is missing; ``least`` is what the rest costs where it is cheapest."""
    if not purse.hard:
        return None
    now_us = market.now_us
    overhead_us = overhead_ms(job, choice.flavor, restores=job.attempts > 0) * US_PER_MS
    wall_us = plain_wall_ms(job, choice.offer) * US_PER_MS if job.work_ms else overhead_us
    useful_us = min(wall_us, overhead_us + _STRETCH_US) + lead_us(job.spec, market.settings)
    most_us = purse.reach_us(rate_at_most(job.spec, choice.offer)) - now_us
    whole = purse.reach_us(rate_now(job.spec, choice.offer)) >= now_us + wall_us
    if not whole and _is_too_big(purse, least, wall_us):
        whole, useful_us = True, min(wall_us, _WORTH_OVERHEADS * overhead_us) + useful_us
    if whole and most_us >= useful_us:
        return None
    need = market.flat_cost(job, choice, at_us=now_us)
    start = rate_at_most(job.spec, choice.offer) * useful_us // US_PER_HOUR
    return Obstacle(want=Want.MONEY, purse=purse, need=need, wakes_us=_more_us(purse), least=start)


def _is_too_big(purse: Purse, need: int, wall_us: int) -> bool:
    """Whether no period, or no opening of the hours, can ever hold the whole rest of the job."""
    if purse.terms.period in {Period.ONCE, Period.TOTAL} and not purse.terms.hours:
        return False
    row = purse.view.row
    opens = purse.reach_us(0) - purse.now_us if purse.terms.hours else wall_us
    return need > row.terms.limit_usd_nanos or wall_us > opens


def _more_us(purse: Purse) -> int | None:
    """Give when there is more money: in the next period, or at the next opening of the hours."""
    row = purse.view.row
    if row.terms.period is Period.ONCE:
        return row.from_us if row.from_us > purse.now_us else None
    return row.until_us


def _can_ever(obstacle: Obstacle) -> bool:
    """Whether a claim makes sense: money that never comes is not kept from others."""
    row = obstacle.purse.view.row
    if row.terms.period not in {Period.ONCE, Period.TOTAL}:
        return obstacle.least <= row.terms.limit_usd_nanos
    return obstacle.need <= obstacle.purse.left + obstacle.purse.view.reserved_usd_nanos


def _urgent(wish: Wish) -> bool:
    return wish.on_net and wish.latest_us is not None


def _sentence(obstacle: Obstacle, job: JobRow) -> str:
    purse, need = obstacle.purse, obstacle.need
    row = purse.view.row
    match obstacle.want:
        case Want.HOURS:
            assert obstacle.wakes_us is not None, "hours that never open"
            return waits_for_hours(row, opens_us=obstacle.wakes_us)
        case Want.PACE:
            assert obstacle.wakes_us is not None, "a pace without an end"
            return waits_for_pace(row, need=need, accrues_us=obstacle.wakes_us)
        case Want.THRESHOLD | Want.MONEY:
            return waits_for_money(
                row,
                need=need,
                per_hour=not job.work_ms,
                left=purse.left,
                held_percent=row.crossed_percent if obstacle.want is Want.THRESHOLD else None,
                more_us=obstacle.wakes_us,
                never=not _can_ever(obstacle),
                claimant=purse.claimant,
                deadline_us=job.deadline_us,
            )
