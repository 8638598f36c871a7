"""How the plan ahead steers a job that is in it.

The plan knows what capacity is worth to the others and which hours are cheaper, so a job takes
spot that costs no more than it expects to pay later, and any capacity that is clearly below that.
The safety net comes before either. Who is not in the plan is decided by the policy for one job.

The plan is an expectation: it counts with the mean of what will be up, and with parts of gangs. A
job that relies on it and is let down pays for sure capacity in the end. So what a job may pay
rises from its worth to that price as its slack shrinks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from jobs.reasons import Reason
from scheduler import sentences
from scheduler.horizon import Horizon, Worth
from scheduler.lowtide import start_or_wait
from scheduler.wishes import Case, Running, Wait, Wish

_EQUAL_PERMILLE = 1_020
"""A price up to this part of the limit is as good as equal to it."""
_CLEAR_PERMILLE = 970
"""Below this part of the worth, a start now is better than any other hour that is expected."""
_STEP_NANOS = 50_000_000
_RISKY_US = 2 * 3_600_000_000
"""With so much slack, half of what sure capacity costs more counts as the risk of waiting."""

Answer = Callable[[Case], Wish | Wait]
Instruction = TypeVar("Instruction")


def steered(alone: Answer) -> Answer:
    """Give the policy that follows the plan ahead where there is one, else ``alone``."""

    def wish(case: Case) -> Wish | Wait:
        plan = case.market.horizon
        worth = None if plan is None else plan.worths.get(case.job.id)
        if plan is None or worth is None or not case.spots:
            return alone(case)
        return _steer(case, plan, worth)

    return wish


def unplanned(
    alone: Callable[[Running], Instruction | None],
) -> Callable[[Running], Instruction | None]:
    """Give what a policy for one job does with an attempt that is in no plan ahead.

    One that is in the plan stays where it is: the plan counts with its place, and a move that is
    good for one job takes the room that the plan has given to another.
    """

    def instruct(running: Running) -> Instruction | None:
        plan = running.market.horizon
        return None if plan is not None and running.job.id in plan.worths else alone(running)

    return instruct


def _steer(case: Case, plan: Horizon, worth: Worth) -> Wish | Wait:
    most = limit(case, plan, worth) * _EQUAL_PERMILLE
    clear = worth.usd_nanos * _CLEAR_PERMILLE
    choices = [spot for spot in case.spots if 1_000 * plan.usd_nanos(spot.offer) <= most]
    choices += [sure for sure in case.sures if 1_000 * plan.usd_nanos(sure.offer) <= clear]
    if not choices:
        return _waits(case, plan)
    listed = sorted(choices, key=lambda choice: choice.key)
    return replace(start_or_wait(case, listed), worth_nanos=_roughly(worth.usd_nanos))


def _roughly(usd_nanos: int) -> int:
    """Round to a twentieth of a dollar: whose worths are about equal go by their slack."""
    return max(1, usd_nanos // _STEP_NANOS * _STEP_NANOS)


def limit(case: Case, plan: Horizon, worth: Worth) -> int:
    """Give what the job may pay for a GPU-hour now: its worth, and the risk of waiting."""
    if case.latest_us is None or not case.sures:
        return worth.usd_nanos
    slack_us = max(0, case.latest_us - case.now_us)
    more = max(0, min(plan.usd_nanos(sure.offer) for sure in case.sures) - worth.usd_nanos)
    return worth.usd_nanos + more * _RISKY_US // (_RISKY_US + slack_us)


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
