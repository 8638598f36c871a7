"""Who makes room on spot for a job to which it is worth more, in the plan of the whole queue.

A job that has time leaves its node to one that would soon pay for sure capacity. That pays when
the difference of their worths, over the hours that both still need, is more than the stop costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jobs.durations import US_PER_MS
from jobs.reasons import Reason
from scheduler.horizon import Horizon
from scheduler.market import MS_PER_HOUR, Choice
from scheduler.plan import Preempt
from scheduler.sentences import yields_to
from scheduler.snapshot import LiveAttempt
from scheduler.victims import Way, price_of_stopping
from scheduler.wishes import Wish

_LEAST_NANOS = 50_000_000
"""Worths of a GPU-hour that are nearer than this are equal: the plan is an expectation."""


def make_room(wishes: Iterable[Wish], *, way: Way) -> list[Preempt]:
    """Give the stops for planned jobs that found no room on spot, those worth most first."""
    plan = way.market.horizon
    stops: list[Preempt] = []
    for wish in wishes if plan is not None else ():
        if plan is None or wish.on_net or wish.job.id not in plan.worths:
            continue
        options = [_victims(wish, c, plan, way) for c in wish.choices if not c.sure]
        found = max((one for one in options if one), key=lambda one: one[0], default=None)
        if found is not None:
            made = list(
                _stops(found[1], for_id=wish.job.id, grace_ms=way.market.settings.drain_grace_ms)
            )
            way.leaves(made)
            stops += made
    return stops


def _stops(victims: list[LiveAttempt], *, for_id: str, grace_ms: int) -> Iterator[Preempt]:
    for one in victims:
        yield Preempt(
            attempt_id=one.attempt.id,
            reason=Reason.PREEMPTED,
            sentence=yields_to(for_id),
            grace_ms=grace_ms,
        )


def _victims(
    wish: Wish, choice: Choice, plan: Horizon, way: Way
) -> tuple[int, list[LiveAttempt]] | None:
    """Give what stopping the least worthy on a flavor saves, and them; None if it does not pay."""
    job, worth = wish.job, plan.worths[wish.job.id].usd_nanos
    wanted = job.spec.nodes - way.pools.launchable(choice.flavor.name)
    saved, victims = 0, []
    for value, one in _by_worth(choice, plan, way):
        if wanted <= 0 or worth < value + _LEAST_NANOS:
            break
        price = price_of_stopping(one, market=way.market)
        if price is None:
            continue
        nodes = min(wanted, len(one.attempt.node_ids))
        hours_ms = min(job.remaining_ms(), one.job.remaining_ms()) * nodes
        saved += (worth - value) * hours_ms // MS_PER_HOUR * one.attempt.gpu_milli // 1_000
        saved -= price.rank
        victims.append(one)
        wanted -= len(one.attempt.node_ids)
    return (saved, victims) if wanted <= 0 < saved and victims else None


def _by_worth(choice: Choice, plan: Horizon, way: Way) -> list[tuple[int, LiveAttempt]]:
    """Give who trains there and is in the plan, the least worthy first."""
    settled_us = way.market.now_us - choice.flavor.boot_ms * US_PER_MS
    found = [
        (plan.worths[one.job.id].usd_nanos, one.job.id, one)
        for one in way.snapshot.live
        if one.attempt.flavor == choice.flavor.name
        and one.job.id in plan.worths
        and one.attempt.training_us is not None
        and one.attempt.training_us <= settled_us
        and not way.is_left(one)
    ]
    return [(value, one) for value, _, one in sorted(found, key=lambda entry: entry[:2])]
