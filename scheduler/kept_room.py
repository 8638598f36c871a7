"""Room that stands free for the deadlines of others: who may start by choice where, and who not.

A job whose slack is used up takes what it needs. Everybody else starts where the layout of all
deadlines (``scheduler.layout``) still holds with it:

- on sure capacity, from now until its worst end; one without a deadline gives way, so it needs
  only the time that makes its start worth while;
- on spot, with the restart that it may need on sure capacity after the worst death there.

Where no choice is left, the job waits and says for whom. Where sure capacity could hold all open
jobs at once there is no layout, and nothing is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from jobs.durations import US_PER_MS
from jobs.reasons import Reason
from jobs.rows import JobRow
from scheduler.claims import claim_of, room
from scheduler.market import Choice, Market
from scheduler.needs import REACTION_US, guarded_ms, overhead_ms
from scheduler.sentences import waits_for_deadlines
from scheduler.sure_room import Block, Claim
from scheduler.wishes import Wait, Wish

_EVER_US = 1 << 62
_WORTH_MS = 60_000
"""A start that is stopped again sooner is not worth it, whatever it costs."""


def may_start(job: JobRow, choice: Choice, *, market: Market) -> bool:
    """Whether a start there now leaves all deadlines their room; if so, it is counted with."""
    layout = market.layout
    if layout is None:
        return True
    if choice.sure:
        return layout.takes(stay(job, choice, market=market))
    return may_be_on_spot(job, choice, market=market)


def is_free(wish: Wish, choice: Choice, *, market: Market) -> bool:
    """Whether others could be asked to make way there: their room would not be kept for others."""
    layout = market.layout
    if layout is None or wish.is_due(market.now_us):
        return True
    if choice.sure:
        return layout.fits(stay(wish.job, choice, market=market))
    claim = _claim_on_spot(wish.job, choice, market=market)
    return claim is None or layout.has_place(claim)


def is_late(job: JobRow, market: Market) -> bool:
    """Whether the room that is laid out for a job comes too late, or there is no layout.

    Who only waits until others have made way for it does not go to spot for that time.
    """
    start_us = None if market.layout is None else market.layout.start_us(job.id)
    return start_us is None or start_us + REACTION_US < market.now_us


def may_be_on_spot(job: JobRow, choice: Choice, *, market: Market) -> bool:
    """Whether all deadlines keep their room if the job is on spot; if so, it is counted with."""
    claim = _claim_on_spot(job, choice, market=market)
    return claim is None or market.layout is None or market.layout.keeps(claim)


def _claim_on_spot(job: JobRow, choice: Choice, *, market: Market) -> Claim | None:
    """Give what the job would claim of sure capacity while it is on spot."""
    layout, sures = market.layout, market.sure_flavors(job.spec)
    if layout is None or job.deadline_us is None or not job.work_ms or not sures:
        return None
    due_us = layout.due_us(job.id)
    due_us = job.deadline_us if due_us is None else due_us
    return claim_of(job, sures, due_us=due_us, market=market, spot=choice.flavor)


def stay(job: JobRow, choice: Choice, *, market: Market) -> Block:
    """Give the room on sure capacity that a job which starts now takes from the others."""
    start_us = market.now_us
    overhead = overhead_ms(job, choice.flavor, restores=job.attempts > 0)
    whole = overhead + guarded_ms(job.spec, job.remaining_ms(), settings=market.settings)
    worth = 2 * overhead + _WORTH_MS
    if job.deadline_us is None:  # who needs its place asks for it so much earlier
        lasts = min(worth, whole) if job.work_ms else worth
        end_us = start_us + (lasts + market.settings.drain_grace_ms) * US_PER_MS
    else:
        end_us = start_us + whole * US_PER_MS if job.work_ms else _EVER_US
    return Block(
        job_id=job.id,
        flavor=choice.flavor.name,
        start_us=start_us,
        end_us=max(end_us, start_us + REACTION_US),
        room=room(job, choice.flavor),
        yields=job.deadline_us is None,
    )


def without_kept(wish: Wish, kept: Iterable[Choice], *, market: Market) -> Wish:
    """Give the wish without choices that are kept for others: it asks nobody to make way there."""
    names = [choice.flavor.name for choice in kept]
    choices = tuple(choice for choice in wish.choices if choice.flavor.name not in names)
    return replace(wish, choices=choices, otherwise=_wait(wish, names, market=market))


def _wait(wish: Wish, names: list[str], *, market: Market) -> Wait:
    """Say for whom the first of the flavors that are kept is kept."""
    kept = next(choice for choice in wish.choices if choice.flavor.name == names[0])
    wakes = () if wish.latest_us is None else (wish.latest_us,)
    layout = market.layout
    assert layout is not None, "room is kept in a layout only"
    other = layout.first_in(stay(wish.job, kept, market=market)) if kept.sure else None
    return Wait(
        job=wish.job,
        reason=Reason.WAITS_FOR_DEADLINES,
        sentence=waits_for_deadlines(
            kept.flavor.name,
            job_id=None if other is None else other.job_id,
            due_us=None if other is None else other.due_us,
        ),
        wakes_us=(*wish.otherwise.wakes_us, *wakes),
    )
