"""A job's place in the table of expected costs: what to do now, and when to look again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jobs.durations import US_PER_MS
from jobs.rows import JobRow
from scheduler.cost_to_go import Action, Table, Terms, solve, states
from scheduler.market import Choice, Market
from scheduler.needs import (
    at_risk_ms,
    guarded_ms,
    latest_spot_start_us,
    latest_start_us,
    overhead_ms,
    work_if_lost_ms,
)
from scheduler.survival import US_PER_HOUR, Spell
from scheduler.wishes import Case, Running

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_CELLS = 150_000  # most slots x spare slots of a table; who has more gets longer slots
_PARTS = 3  # slots that a changeover has, if the table can be as fine as that
_LEAST = 64  # the least size of a table; a larger one says the same of fewer slots
_TELLING = 3  # levels that must have been observed before spells are believed more than counts
_HORIZON = 4_000 * US_PER_HOUR  # who has more time than this needs no plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A table, and where in it the job stands."""

    table: Table
    spell: Spell
    left: int  # slots until the deadline
    spare: int  # those of them that the work does not need
    slot_us: int

    def act(self, *, up: bool) -> Action:
        """Give what to do when nothing runs, with or without room on spot."""
        spell = self.spell if self.spell.up is up else replace(self.spell, up=up, age_h=0.0)
        return self.table.act(left=self.left, spare=self.spare, spell=spell)

    def changes_in_us(self) -> int | None:
        """Give how long until waiting is no longer best, if spot stays as it is."""
        first, table = self.act(up=self.spell.up), self.table
        return self._first(lambda *at: table.acts(at) != first, spends=1)

    def leaves_in_us(self) -> int | None:
        """Give how long until leaving sure capacity for spot pays, if spot stays up; 0 = now."""
        if not self.spell.up:
            return None
        if self.table.leave(left=self.left, spare=self.spare, spell=self.spell):
            return 0
        table = self.table
        return self._first(lambda *at: table.leave_at(at), spends=0)

    def _first(self, holds: Callable[[Ints, Ints, Ints], Bools], *, spends: int) -> int | None:
        """Give how long until something holds, when each slot spends so much of the slack."""
        slots = np.arange(1, self.left, dtype=np.int64)
        ages_h = self.spell.age_h + slots * (self.slot_us / US_PER_HOUR)
        spares = np.maximum(0, self.spare - spends * slots)
        found = np.flatnonzero(holds(self.left - slots, states(ages_h, up=self.spell.up), spares))
        return (int(found[0]) + 1) * self.slot_us if len(found) else None


def of_waiting(case: Case) -> Outlook | None:
    """Give the outlook of a waiting job, None where no model is needed or none fits."""
    if case.latest_us is None or not case.spots or not case.sures:
        return None
    slack_us = case.latest_us - case.now_us
    return _outlook(
        case.job,
        case.market,
        case.spots,
        case.sures,
        slack_us=slack_us,
        work_ms=case.job.remaining_ms(),
    )


def of_running(running: Running) -> Outlook | None:
    """Give the outlook of an attempt that trains on sure capacity."""
    job, market = running.job, running.market
    if job.deadline_us is None or running.attempt.training_us is None:
        return None
    left_ms = work_if_lost_ms(job, running.attempt, now_us=market.now_us)
    surest, settings = market.sure_flavors(job.spec), market.settings
    again_us = latest_start_us(job, surest, work_ms=left_ms, restores=True, settings=settings)
    choices = sorted(market.choices(job), key=lambda choice: choice.key)
    sures = tuple(one for one in choices if one.flavor.name == running.flavor.name)
    spots = tuple(
        one
        for one in choices
        if not one.sure
        and one.offer.launchable >= job.spec.nodes
        and latest_spot_start_us(job, one.flavor, sure_start_us=again_us, settings=settings)
        > market.now_us
    )
    if not spots or not sures:
        return None
    slack_us = again_us - market.now_us
    return _outlook(job, market, spots, sures, slack_us=slack_us, work_ms=left_ms)


def _outlook(
    job: JobRow,
    market: Market,
    spots: tuple[Choice, ...],
    sures: tuple[Choice, ...],
    *,
    slack_us: int,
    work_ms: int,
) -> Outlook | None:
    assert job.deadline_us is not None, f"no deadline: {job.id}"
    span_us = job.deadline_us - job.submitted_us
    work_us = guarded_ms(job.spec, work_ms, settings=market.settings) * US_PER_MS
    if is_dear(spots[0], sures[0]) or slack_us < 0 or span_us > _HORIZON or not work_us:
        return None
    changeover_us = overhead_ms(job, spots[0].flavor, restores=True) * US_PER_MS
    changeover_us += at_risk_ms(job.spec, job.work_ms) * US_PER_MS // 2
    slot_us = _slot_us(changeover_us, span_us, work_us=job.work_ms * US_PER_MS)
    spell = market.spell(tuple(spot.flavor.name for spot in spots), nodes=job.spec.nodes)
    terms = Terms(
        slot_h=slot_us / US_PER_HOUR,
        up_factor=spell.up_factor,
        down_factor=spell.down_factor,
        changeover=round(changeover_us / slot_us, 1),
        ratio=round(_rate(sures[0]) / max(1e-9, _rate(spots[0])), 1),
    )
    work = -(-work_us // slot_us)
    spare = (slack_us + changeover_us + slot_us // 2) // slot_us  # the nearest
    # as large as the job at its submission, so that it needs the same table all its life
    slots = _up(max(span_us // slot_us, work + spare))
    slack = _up(max((span_us - job.work_ms * US_PER_MS) // slot_us, spare))
    table = solve(terms, slots=slots, slack=slack)
    return Outlook(table=table, spell=spell, left=work + spare, spare=spare, slot_us=slot_us)


def is_dear(spot: Choice, sure: Choice) -> bool:
    """Whether spot is no cheaper, by the hour or by what its evictions are expected to cost.

    The latter only until its comings and goings were seen: the spells tell more than a count of
    nodes taken back, which counts a gang that dies as a whole once for each of its nodes.
    """
    if _rate(sure) <= _rate(spot):
        return True
    return len(spot.offer.levels) < _TELLING and sure.cost_nanos <= spot.cost_nanos


def _rate(choice: Choice) -> float:
    return choice.cost_nanos / max(1, choice.wall_ms)


def _slot_us(changeover_us: int, span_us: int, *, work_us: int) -> int:
    """Give a slot of a part of a changeover, or longer if the table would have too many of them."""
    slot_us = max(changeover_us // _PARTS, 60_000_000)
    while span_us * max(slot_us, span_us - work_us) > _CELLS * slot_us**2:
        slot_us = slot_us * 3 // 2
    return slot_us


def _up(count: int) -> int:
    """Give the next of 64, 128, 256, ...: few sizes, so that jobs share tables."""
    return max(_LEAST, 1 << (count - 1).bit_length())
