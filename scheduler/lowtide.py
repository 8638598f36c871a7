"""The default policy: the cheapest start within the slack, spot first, windows followed.

It compares what the rest of the job costs, expected evictions included, when it starts now on
each allowed flavor with every later start whose price is known (the edges of price windows), in
one stretch or in several with stops between (``scheduler.suspension``). A clearly cheaper later
start wins, as long as it keeps the deadline in reach. Otherwise it starts now on spot, or on sure
capacity that costs no more; without room it waits for spot while the slack allows, and goes to
sure capacity when it no longer does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from jobs.reasons import Reason
from scheduler import regions
from scheduler.cost_to_go import Action
from scheduler.market import Choice
from scheduler.outlook import Outlook, is_dear, of_running, of_waiting
from scheduler.sentences import waits_for_capacity, waits_for_spot, waits_for_window
from scheduler.suspension import choose
from scheduler.wishes import Case, Later, Running, Wait, Wish


def wish(case: Case) -> Wish | Wait:
    """Decide for one waiting job; see the module docstring."""
    if not case.spots:
        return on_sure(case)
    everywhere = (*case.spots, *case.sures)
    later = choose(case, everywhere, single=best_later(case, everywhere))
    if later is not None:
        return wait_for(case, later, now=min(everywhere, key=lambda choice: choice.key))
    picks = regions.of_waiting(case)
    if picks is not None:
        return by_region(case, picks)
    outlook = of_waiting(case)
    if outlook is not None:
        return by_outlook(case, outlook)
    # no dearer than some spot: the cheapest with room is taken
    sures = [sure for sure in case.sures if any(is_dear(spot, sure) for spot in case.spots)]
    return start_or_wait(case, sorted((*case.spots, *sures), key=lambda choice: choice.key))


def by_outlook(case: Case, outlook: Outlook) -> Wish | Wait:
    """Do what costs least in expectation: spot, sure capacity before its time, or neither."""
    choices: list[Choice] = []
    now, without_room = outlook.act(up=outlook.spell.up), outlook.act(up=False)
    if outlook.act(up=True) is Action.SPOT:
        choices += case.spots
    if now is Action.SURE or (now is Action.SPOT and without_room is Action.SURE):
        choices += case.sures
    wish = start_or_wait(case, choices or case.spots, in_order=True)
    in_us = outlook.changes_in_us()
    wakes = () if in_us is None else (case.market.again_us(in_us),)
    wait = replace(wish.otherwise, wakes_us=(*wish.otherwise.wakes_us, *wakes))
    return replace(wish, otherwise=wait) if choices else wait


def by_region(case: Case, picks: regions.Picks) -> Wish | Wait:
    """Start in one of several places, or wait for a better one."""
    wish = start_or_wait(case, picks.choices or case.spots, in_order=True)
    wait = replace(wish.otherwise, wakes_us=(*wish.otherwise.wakes_us, picks.again_us))
    return replace(wish, otherwise=wait) if picks.choices else wait


def leaves(running: Running) -> int | None:
    """Give when an attempt on sure capacity goes back to spot that looks like surviving."""
    at_us = regions.leaves(running)
    if at_us is not None:
        return at_us
    outlook = of_running(running)
    in_us = None if outlook is None else outlook.leaves_in_us()
    return None if in_us is None else running.market.now_us + in_us


def on_sure(case: Case) -> Wish | Wait:
    """Start on sure capacity, or wait for its cheap window: spot is no way any more.

    With a deadline and spot in the cluster this is the safety net: another try on spot would
    put the deadline at risk.
    """
    later = choose(case, case.sures, single=best_later(case, case.sures))
    if later is not None:
        return wait_for(case, later, now=case.sures[0])
    for_good = bool(case.all_spots) and case.latest_us is not None
    return replace(start_or_wait(case, case.sures), on_net=for_good)


def best_later(case: Case, choices: Iterable[Choice]) -> Later | None:
    """Give the cheapest later start whose price is known, None without one in the slack."""
    if case.latest_us is None:
        return None
    best: Later | None = None
    for choice in choices:
        last_us = case.last_us(choice)
        found = (
            None if last_us is None else case.market.best_start(case.job, choice, before_us=last_us)
        )
        if found is not None and (best is None or found < (best.cost_nanos, best.start_us)):
            best = Later(start_us=found[1], choice=choice, cost_nanos=found[0])
    return best


def wait_for(case: Case, later: Later, *, now: Choice) -> Wait:
    """Say what the job waits for, and what it saves."""
    market, job = case.market, case.job
    price_now = market.flat_cost(job, now, at_us=case.now_us)
    price_then = market.flat_cost(job, later.choice, at_us=later.start_us)
    last_us = case.last_us(later.choice)
    assert last_us is not None, "only a job with a deadline waits for a window"
    return Wait(
        job=job,
        reason=Reason.WAITS_FOR_WINDOW,
        sentence=waits_for_window(
            later.start_us,
            percent=100 - -(-100 * price_then // max(1, price_now)),
            slack_us=last_us - later.start_us,
            more_nanos=price_now - price_then,
            rests_on=later.choice.offer.price_rests_on,
        ),
        wakes_us=(later.start_us,),
    )


def start_or_wait(case: Case, choices: Iterable[Choice], *, in_order: bool = False) -> Wish:
    """Wish for these choices; without room wait for spot or for any capacity.

    The cheapest with room is taken, or the first one with room when ``in_order`` is set.
    """
    listed = tuple(choices)
    return Wish(
        job=case.job,
        choices=listed,
        otherwise=_wait_for_room(case, listed),
        in_order=in_order,
        latest_us=case.latest_us,
    )


def _wait_for_room(case: Case, choices: tuple[Choice, ...]) -> Wait:
    job, last_us = case.job, case.last_spot_us()
    wakes = tuple(at for at in (last_us, case.latest_us) if at is not None)
    picked = {choice.flavor.name for choice in choices}
    unpicked = [choice for choice in case.sures if choice.flavor.name not in picked]
    if not unpicked:
        return Wait(
            job=job,
            reason=Reason.WAITS_FOR_CAPACITY,
            sentence=waits_for_capacity(job.spec, late_deadline_us=None),
            wakes_us=wakes,
        )
    spot_nanos, sure_nanos = (
        case.market.flat_cost(job, one, at_us=case.now_us) for one in (choices[0], unpicked[0])
    )
    return Wait(
        job=job,
        reason=Reason.WAITS_FOR_SPOT,
        sentence=waits_for_spot(
            until_us=last_us, more_nanos=sure_nanos - spot_nanos, per_hour=not job.work_ms
        ),
        wakes_us=wakes,
    )
