"""How the plan ahead steers a policy for single jobs.

The policy answers as if its job were alone. The plan knows what capacity is worth to the others
and which hours are cheaper, so it takes from the answer what costs more than it expects to pay
later, and adds what is clearly below that. The safety net comes before either.

The plan is an expectation: it counts with the mean of what will be up, and with parts of gangs. A
job that relies on it and is let down pays for sure capacity in the end. So what a job may pay
rises from its worth to that price as its slack shrinks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jobs.reasons import Reason
from scheduler import sentences
from scheduler.horizon import Horizon, Worth
from scheduler.lowtide import start_or_wait
from scheduler.market import Choice
from scheduler.wishes import Case, Wait, Wish

_EQUAL_PERMILLE = 1_020
"""A price up to this part of the limit is as good as equal to it."""
_CLEAR_PERMILLE = 970
"""Below this part of the worth, a start now is better than any other hour that is expected."""
_RISKY_US = 2 * 3_600_000_000
"""With so much slack, half of what sure capacity costs more counts as the risk of waiting."""

Answer = Callable[[Case], Wish | Wait]


def steered(inner: Answer) -> Answer:
    """Give the policy that follows the plan ahead where there is one."""

    def wish(case: Case) -> Wish | Wait:
        answer, plan = inner(case), case.market.horizon
        worth = None if plan is None else plan.worths.get(case.job.id)
        if plan is None or worth is None or not case.spots:
            return answer
        return _steer(case, answer, plan, worth)

    return wish


def _steer(case: Case, answer: Wish | Wait, plan: Horizon, worth: Worth) -> Wish | Wait:
    priced = [(choice, plan.usd_nanos(choice.offer)) for choice in (*case.spots, *case.sures)]
    clear = [c for c, usd in priced if 1_000 * usd <= worth.usd_nanos * _CLEAR_PERMILLE]
    if isinstance(answer, Wait):
        started = replace(start_or_wait(case, _sorted(clear)), worth_nanos=worth.usd_nanos)
        return started if clear else answer
    most = limit(case, plan, worth)
    fair = {c.flavor.name for c, usd in priced if 1_000 * usd <= most * _EQUAL_PERMILLE}
    kept = [choice for choice in answer.choices if choice.flavor.name in fair]
    named = {choice.flavor.name for choice in kept}
    kept += [choice for choice in clear if choice.flavor.name not in named]
    if not kept:
        return _waits(case, plan)
    return replace(answer, choices=tuple(_sorted(kept)), worth_nanos=worth.usd_nanos)


def limit(case: Case, plan: Horizon, worth: Worth) -> int:
    """Give what the job may pay for a GPU-hour now: its worth, and the risk of waiting."""
    if case.latest_us is None or not case.sures:
        return worth.usd_nanos
    slack_us = max(0, case.latest_us - case.now_us)
    more = max(0, min(plan.usd_nanos(sure.offer) for sure in case.sures) - worth.usd_nanos)
    return worth.usd_nanos + more * _RISKY_US // (_RISKY_US + slack_us)


def _sorted(choices: list[Choice]) -> list[Choice]:
    return sorted(choices, key=lambda choice: choice.key)


def _waits(case: Case, plan: Horizon) -> Wait:
    cheapest = min((*case.spots, *case.sures), key=lambda choice: choice.key)
    last_us = case.last_spot_us()
    wakes = (last_us, case.latest_us, plan.again_us)
    return Wait(
        job=case.job,
        reason=Reason.WAITS_FOR_TURN,
        sentence=sentences.waits_for_turn(
            cheapest.flavor.name,
            usd_nanos_per_hour=cheapest.offer.usd_nanos_per_hour,
            until_us=last_us if last_us is not None else case.latest_us,
        ),
        wakes_us=tuple(at_us for at_us in wakes if at_us is not None),
    )
