"""The policies that ours is measured against. The safety net holds for each of them as well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from jobs.rows import JobRow
from scheduler.lowtide import best_later, on_sure, start_or_wait, wait_for
from scheduler.market import Choice
from scheduler.needs import is_sure
from scheduler.suspension import is_worth
from scheduler.wishes import Case, Running, Wait, Wish


def _cheapest_first(choices: Iterable[Choice]) -> list[Choice]:
    return sorted(choices, key=lambda choice: choice.key)


def on_demand(case: Case) -> Wish:
    """At once on sure capacity, whatever it costs; on spot only where nothing else is allowed."""
    return start_or_wait(case, case.sures or case.spots)


def spot_now(case: Case) -> Wish:
    """At once: on spot where it has room, else on sure capacity."""
    return start_or_wait(case, (*case.spots, *case.sures), in_order=True)


def greedy(case: Case) -> Wish | Wait:
    """On spot whenever it has room; otherwise wait until the slack is used up."""
    return start_or_wait(case, case.spots) if case.spots else on_sure(case)


def lowest_window(case: Case) -> Wish | Wait:
    """One uninterrupted stretch at the lowest known price within the slack."""
    choices = _cheapest_first((*case.spots, *case.sures))
    later = best_later(case, choices)
    if later is not None and is_worth(later, choices[0]):
        return wait_for(case, later, now=choices[0])
    return start_or_wait(case, choices)


def uniform(case: Case) -> Wish | Wait:
    """Uniform Progress (Wu et al., "Can't Be Late", NSDI 2024).

    Work done must not fall behind elapsed / deadline x work. Spot whenever it has room; without
    room wait while the work is ahead, and take sure capacity when it is behind.
    """
    if not case.spots or case.latest_us is None:
        return greedy(case)
    behind_us = _behind_us(case.job)
    if behind_us <= case.now_us:
        return spot_now(case)
    wish = start_or_wait(case, case.spots)
    wakes = (*wish.otherwise.wakes_us, behind_us)
    return replace(wish, otherwise=replace(wish.otherwise, wakes_us=wakes))


def uniform_leaves(running: Running) -> int | None:
    """Go back to spot as soon as it has room, ahead or behind: the paper's "taking risks" rule.

    Without room on spot it stays, also when it is ahead: giving up sure capacity for nothing costs
    a changeover each time, and was dearer on every setting of ``benchmarks.spot_policy``.
    """
    job, market = running.job, running.market
    if running.attempt.training_us is None:
        return None
    has_room = any(
        not is_sure(offer.flavor) and offer.launchable >= job.spec.nodes
        for offer in market.allowed(job.spec)
    )
    return market.now_us if has_room else None


def _behind_us(job: JobRow) -> int:
    """Give the instant from which on the work done is behind the even pace."""
    assert job.deadline_us is not None, f"no deadline: {job.id}"
    done_ms = job.work_ms - job.remaining_ms()
    span_us = job.deadline_us - job.submitted_us
    return job.submitted_us + span_us * done_ms // max(1, job.work_ms)
