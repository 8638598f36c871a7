"""When a job trains, where the price of the next hours is known: stretches, and stops in between.

A waiting job starts where the cheapest set of stretches starts (``choose``); a running one stops
at a checkpoint before dear hours and goes on in a later cheap stretch (``of_running``), when that
saves clearly more than the save, boot, set-up and restore it costs and the deadline stays safe.
Both ask the same exact program over the known price steps (``scheduler.stretches``).

It does not thrash: the program charges every changeover one and a half times, a stop must save a
hundredth of the rest beyond that, and an attempt trains at least as long as a changeover took. And
nobody counts on stops where room is scarce (``scheduler.stop_room``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.flavors import Flavor
from jobs.durations import US_PER_MS
from jobs.rows import AttemptRow, JobRow
from scheduler.market import Choice, Tape, plain_wall_ms, shared
from scheduler.needs import (
    REACTION_US,
    guarded_ms,
    latest_start_us,
    leaving_ms,
    overhead_ms,
    with_stalls_ms,
)
from scheduler.sentences import stops_for_price
from scheduler.stop_room import has_room_for_all
from scheduler.stretches import NEVER, Course, Terms, cheapest_hours, solve
from scheduler.wishes import Case, Later, Running

WORTH_PERMILLE = 990
"""A later start must cost less than this share of a start now: waiting has its own risks."""
_SPLIT_PERMILLE = 995
"""One stretch this close to the cheapest hours is not worth splitting."""
_SOONER_PERMILLE = 999
"""Of two starts of the same plan the sooner one is taken if it costs no more than this."""
_CHARGED_PERCENT = 150
"""What a changeover is charged with: its own estimate may be wrong, and it has its own risks."""
_LEAST_CHANGEOVER_US = 60_000_000
"""Nothing is free: without this, nodes of our own that boot at once would be left and taken again
at the same instant."""
_SAVES = 100
"""A stop saves at least one part in so many of what the rest costs without it."""
_SLOTS_US = tuple(s * 1_000_000 for s in (60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400))
_MOST_SLOTS = 250
_PAD = 32  # slots; the length of a course is rounded up to it, so that cycles share courses


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A running attempt is to stop now, or (without a sentence) looked at again at ``wake_us``."""

    sentence: str = ""
    wake_us: int | None = None


def is_worth(later: Later, now: Choice) -> bool:
    """Whether the later start is clearly cheaper than a start now."""
    return later.cost_nanos * 1_000 < now.cost_nanos * WORTH_PERMILLE


def choose(case: Case, choices: Iterable[Choice], *, single: Later | None) -> Later | None:
    """Give the later start that is worth waiting for, None when starting now is as good.

    Args:
        case: a waiting job with a deadline.
        choices: where it may start.
        single: the cheapest later start of one uninterrupted stretch.
    """
    listed = sorted(choices, key=lambda choice: choice.key)
    if not listed:
        return None
    worth = single if single is not None and is_worth(single, listed[0]) else None
    best_nanos = listed[0].cost_nanos if worth is None else worth.cost_nanos
    for choice in listed if has_room_for_all(case.job, market=case.market) else ():
        found = _split(case, choice, below_nanos=best_nanos)
        if found is not None:
            best_nanos = found.cost_nanos
            worth = found if found.start_us > case.now_us else None
    return worth


def of_running(running: Running) -> Stop | None:
    """Say whether an attempt that trains should stop now, and until when."""
    job, market, attempt = running.job, running.market, running.attempt
    tape = market.tapes[running.flavor.name]
    if len(tape.starts_us) == 1 or attempt.training_us is None or job.deadline_us is None:
        return None
    again_us = _changeover_us(job, running.flavor)
    look = Stop(wake_us=tape.starts_us[1])
    left_us = _left_ms(job, attempt, now_us=market.now_us) * US_PER_MS
    if market.now_us - attempt.training_us < again_us or not left_us:
        return look
    if tape.price(market.now_us) <= tape.lowest_later or not has_room_for_all(job, market=market):
        return look
    finish_us = _finish_us(running, left_us)
    grid = _Grid(tape, now_us=market.now_us, finish_us=finish_us)
    _, dearest = cheapest_hours(grid.steps(), left_us)
    if tape.price(market.now_us) < dearest or not grid.count:
        return look  # this hour is one of the cheapest that it needs
    return _stop(running, grid, left_us=left_us, again_us=again_us) or look


def _split(case: Case, choice: Choice, *, below_nanos: int) -> Later | None:
    """Give the first start of the cheapest stretches on one flavor if they cost clearly less."""
    job, market = case.job, case.market
    tape, last_us = market.tapes[choice.flavor.name], case.last_us(choice)
    if last_us is None or len(tape.starts_us) == 1 or last_us <= case.now_us:
        return None
    grid = _Grid(
        tape,
        now_us=case.now_us,
        finish_us=last_us + plain_wall_ms(job, choice.offer) * US_PER_MS - REACTION_US,
    )
    need_us = choice.wall_ms * US_PER_MS
    whole, _ = cheapest_hours(grid.steps(), need_us)
    if _money(whole, job=job, choice=choice) * 1_000 >= below_nanos * _SPLIT_PERMILLE:
        return None
    first_us = overhead_ms(job, choice.flavor, restores=job.attempts > 0) * US_PER_MS
    again_us = _changeover_us(job, choice.flavor)
    course = grid.course(
        need_us - first_us, first_us=first_us, again_us=again_us * _CHARGED_PERCENT // 100
    )
    if course is None:
        return None
    at = grid.first
    cost = min(course.wait[at], course.launch[at])
    nanos = shared(int(cost) * job.spec.nodes, spec=job.spec, flavor=choice.flavor)
    if cost >= NEVER / 2 or nanos * 1_000 >= below_nanos * _SPLIT_PERMILLE:
        return None
    waits = course.wait[at] * 1_000 < course.launch[at] * _SOONER_PERMILLE
    slot = course.resumes(at + 1) if waits else at
    start_us = case.now_us if not waits or slot is None else grid.instant_us(slot)
    return Later(start_us=start_us, choice=choice, cost_nanos=nanos)


def _money(price_time: int, *, job: JobRow, choice: Choice) -> int:
    node = price_time // (3_600_000 * US_PER_MS)
    return shared(node * job.spec.nodes, spec=job.spec, flavor=choice.flavor)


def _stop(running: Running, grid: _Grid, *, left_us: int, again_us: int) -> Stop | None:
    job, market = running.job, running.market
    # Whole slots: staying and stopping must be charged with the same work.
    whole_us = -(-left_us // grid.slot_us) * grid.slot_us
    charged_us = again_us * _CHARGED_PERCENT // 100
    course = grid.course(whole_us, first_us=charged_us, again_us=charged_us)
    slot = None if course is None else course.resumes(grid.first + 1)
    if course is None or slot is None:
        return None
    resume_us = grid.instant_us(slot)
    stops, stays = course.wait[grid.first], course.stay[grid.first]
    through = grid.cost(left_us)
    saved = through - float(stops)
    if stops * _SOONER_PERMILLE > stays * 1_000 or saved * _SAVES < through:
        return None
    slack_us = _latest_us(running, left_us) - resume_us
    if slack_us < leaving_ms(running.flavor, steady=True, settings=market.settings) * US_PER_MS:
        return None
    return Stop(
        sentence=stops_for_price(
            market.now_us,
            resumes_us=resume_us,
            saved_nanos=shared(int(saved) * job.spec.nodes, spec=job.spec, flavor=running.flavor),
            slack_us=slack_us,
            rests_on=market.offers[running.flavor.name].price_rests_on,
        )
    )


def _changeover_us(job: JobRow, flavor: Flavor) -> int:
    """Time that is paid for at a stop: the save, the node until it is released, another start."""
    paid_ms = job.spec.save + flavor.idle_release_ms + overhead_ms(job, flavor, restores=True)
    return max(_LEAST_CHANGEOVER_US, paid_ms * US_PER_MS)


def _left_ms(job: JobRow, attempt: AttemptRow, *, now_us: int) -> int:
    """Work that is left if the attempt saves now: a drain saves what was done."""
    point = job.restore_point
    mine = point is not None and point.epoch == attempt.number
    since_us = point.snapshot_us if point is not None and mine else attempt.training_us
    assert since_us is not None, f"training without a first step: {attempt!r}"
    return max(0, job.remaining_ms() - max(0, now_us - since_us) // US_PER_MS)


def _latest_us(running: Running, left_us: int) -> int:
    """Give the last safe start after a stop, on the slowest capacity that could be needed."""
    job, market = running.job, running.market
    sure = market.sure_flavors(job.spec) or (running.flavor,)
    return latest_start_us(
        job, sure, work_ms=left_us // US_PER_MS, restores=True, settings=market.settings
    )


def _finish_us(running: Running, left_us: int) -> int:
    """Give when the rest must be done: the deadline less the error margin of what is left."""
    job, left_ms = running.job, left_us // US_PER_MS
    guarded = guarded_ms(job.spec, left_ms, settings=running.market.settings)
    margin_ms = guarded - with_stalls_ms(job.spec, left_ms)
    assert job.deadline_us is not None, "only a job with a deadline is suspended"
    return job.deadline_us - margin_ms * US_PER_MS - REACTION_US


class _Grid:
    """The known prices until a job must be done, cut into slots that end at its finish.

    The slots lie on whole multiples of their length, and so do the edges of nearly all tariffs.
    The first slot of a course is earlier than now (``_PAD``), at the price of now.
    """

    def __init__(self, tape: Tape, *, now_us: int, finish_us: int) -> None:
        self._tape, self._now_us, self._finish_us = tape, now_us, finish_us
        span_us = max(0, finish_us - now_us)
        fitting = [slot for slot in _SLOTS_US if span_us <= slot * _MOST_SLOTS]
        self.slot_us = fitting[0] if fitting else -(-span_us // _MOST_SLOTS)
        last = finish_us // self.slot_us
        self.count = max(0, last - now_us // self.slot_us)
        padded = -(-self.count // _PAD) * _PAD
        self.first = padded - self.count
        self._origin = last - padded

    def instant_us(self, slot: int) -> int:
        """Give when a slot begins."""
        return (self._origin + slot) * self.slot_us

    def cost(self, lasts_us: int) -> int:
        """Give what a node costs from now on for that long, nano-dollars."""
        return self._tape.cost(self._now_us, self._now_us + lasts_us)

    def steps(self) -> list[tuple[int, int]]:
        """Give (length, price) of each known step between now and the finish."""
        starts = [max(at, self._now_us) for at in self._tape.starts_us if at < self._finish_us]
        ends = [*starts[1:], self._finish_us]
        return [
            (max(0, end - start), self._tape.price(start))
            for start, end in zip(starts, ends, strict=True)
        ]

    def course(self, work_us: int, *, first_us: int, again_us: int) -> Course | None:
        """Solve for that much work, None when there is no time for it at all."""
        work, broken_us = divmod(work_us, self.slot_us)
        if not work or work > self.count:
            return None
        terms = Terms(
            prices=self._prices(),
            work=work,
            first=round((first_us + broken_us) / self.slot_us, 3),
            again=round(again_us / self.slot_us, 3),
        )
        return solve(terms)

    def _prices(self) -> tuple[float, ...]:
        """Give what a node costs in each slot, nano-dollars, at the price of its beginning."""
        ends = [-(-at_us // self.slot_us) - self._origin for at_us in self._tape.starts_us[1:]]
        ends = [min(max(0, end), self.first + self.count) for end in ends]
        prices: list[float] = []
        for start_us, end in zip(
            self._tape.starts_us, [*ends, self.first + self.count], strict=True
        ):
            price = self._tape.price(start_us) * self.slot_us / (3_600_000 * US_PER_MS)
            prices += [price] * (end - len(prices))
        return tuple(prices)
