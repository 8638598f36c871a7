"""Which of several spot offers a job starts on, and when a move from one to another pays.

Prices and lifetimes differ between zones and regions. The places a job may use are ranked by what
a useful hour costs there: the price, and the expected deaths times what each of them takes (the
changeover at that price, and so much slack at what slack is worth now). A two-tier table
(``scheduler.regions_table``) then says whether the best place at hand is good enough to start on,
or whether a cheaper one that is down is worth waiting for; whether one that came back is worth a
move; and when sure capacity is the better choice. Egress counts from the region of the restore
point.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jobs.durations import US_PER_MS
from scheduler.market import Choice
from scheduler.needs import (
    REACTION_US,
    is_sure,
    latest_spot_start_us,
    latest_start_us,
    work_if_lost_ms,
)
from scheduler.regions_sky import SAME, Place, Sky, again, rate, sky_of, union
from scheduler.regions_table import Act, Table, Terms, Tier, solve, state
from scheduler.survival import US_PER_HOUR
from scheduler.wishes import Case, Running


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """Where to start, best first (nowhere = wait), and when to ask again."""

    choices: tuple[Choice, ...]
    again_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A running attempt should go there now, or (without a place) be asked again at an instant."""

    to: Choice | None = None
    again_us: int | None = None


def of_waiting(case: Case) -> Picks | None:
    """Say where a waiting job starts, None where there is nothing to choose between."""
    if case.latest_us is None:
        return None
    sky = sky_of(
        case.job,
        case.market,
        (*case.spots, *case.sures),
        left_ms=case.job.remaining_ms(),
        slack_us=case.latest_us - case.now_us,
    )
    if sky is None:
        return None
    return Picks(choices=_picks(sky), again_us=case.market.again_us(sky.clock.slot_us))


def moves(running: Running) -> Move | None:
    """Say whether an attempt that trains on spot should go to another place."""
    sky = _around(running) if _sees_cheaper(running) else None
    if sky is None:
        return None
    here = next((p for p in sky.places if p.choice.flavor.name == running.flavor.name), None)
    to = _from_sure(sky) if here is None else _from_place(sky, here)
    if to is not None and _in_time(running, to.choice):
        return Move(to=to.choice)
    awaited = here is None or any(p.up and p.rate < SAME * here.rate for p in sky.places)
    return Move(again_us=running.market.again_us(sky.clock.slot_us)) if awaited else None


def leaves(running: Running) -> int | None:
    """Give when an attempt on sure capacity goes to spot; None = there is nothing to choose."""
    sky = _around(running)
    if sky is None:
        return None
    goes = _from_sure(sky) is not None
    return running.market.now_us if goes else running.market.again_us(sky.clock.slot_us)


# -- decisions ------------------------------------------------------------------------------


def _picks(sky: Sky) -> tuple[Choice, ...]:
    up = ranked(sky)
    if up:
        cheaper = [place for place in sky.places if place.rate < SAME * up[0].rate]
    else:
        cheaper = list(sky.places[:1])
    if not cheaper:
        return tuple(place.choice for place in up)
    dearer = [place for place in sky.places if place not in cheaper]
    table, at = _table(sky, cheaper, dearer)
    act = table.idle[(_home(sky, cheaper), *at)]
    if act == Act.WAIT:
        return ()
    if act == Act.SURE:
        return (*sky.stand_ins, *sky.sures)
    tier = cheaper if act == Act.CHEAP else dearer
    return tuple(place.choice for place in up if place in tier)


def _from_place(sky: Sky, here: Place) -> Place | None:
    """Give the cheaper place that is worth a move."""
    up = ranked(sky)
    better = up[: up.index(here)] if here in up else up
    good = [place for place in better if place.rate < SAME * here.rate]
    if not good:
        return None
    cheaper = [place for place in sky.places if place.rate <= good[0].rate]
    dearer = [here, *(p for p in sky.places if p.rate >= here.rate and p is not here)]
    table, at = _table(sky, cheaper, dearer, here=here)
    return good[0] if table.dear[at] == Act.CHEAP else None


def _from_sure(sky: Sky) -> Place | None:
    """Give the place for which capacity at the price of sure capacity is worth leaving."""
    up = ranked(sky)
    if not up:
        return None
    cheaper = [place for place in sky.places if place.rate <= up[0].rate]
    table, at = _table(sky, cheaper, [place for place in sky.places if place not in cheaper])
    act = table.sure[(_home(sky, cheaper), *at)]
    return up[0] if act in {Act.CHEAP, Act.DEAR} else None


def ranked(sky: Sky) -> list[Place]:
    """Give the places with room, the cheapest useful hour first."""
    left_h, lost_h = (us / US_PER_HOUR for us in (sky.clock.left_us, sky.clock.changeover_us))

    def by_use(slack_nanos: float) -> list[Place]:
        def key(place: Place) -> tuple[float, float, str]:
            return (place.useful(left_h=left_h, lost_h=lost_h, slack_nanos=slack_nanos), *place.key)

        return sorted((place for place in sky.places if place.up), key=key)

    found = by_use(0.0)
    deaths = [place.deaths(max(0.1, left_h)) for place in found]
    # Slack adds to each by its deaths: where those are in the same order, its worth is no matter.
    return found if sorted(deaths) == deaths else by_use(_worth_of_slack(sky))


def _worth_of_slack(sky: Sky) -> float:
    """Give what an hour of slack is worth now, nano-dollars."""
    table, (left, cheap, dear, spare) = _table(sky, sky.places[:1], sky.places[1:])
    return max(0.0, float(table.slack[left, cheap, dear, max(2, spare)])) * sky.places[0].rate


def _home(sky: Sky, cheaper: Iterable[Place]) -> int:
    """Give 0 when a start in the cheaper tier needs no egress."""
    here = not sky.home or any(place.choice.flavor.region == sky.home for place in cheaper)
    return 0 if here else 1


def _sees_cheaper(running: Running) -> bool:
    """Whether anything cheaper has room: most attempts need not look any further."""
    spec, offers = running.job.spec, running.market.offers
    limit = SAME * offers[running.flavor.name].usd_nanos_per_hour
    least = running.market.least_spot_nanos
    if least is None or least >= limit:
        return False
    return any(
        offer.usd_nanos_per_hour < limit and offer.limit >= spec.nodes
        for offer in running.market.allowed(spec)
        if not is_sure(offer.flavor)
    )


def _around(running: Running) -> Sky | None:
    """Look around from where an attempt trains; what it has done since it saved is at risk."""
    job, market = running.job, running.market
    if job.deadline_us is None or running.attempt.training_us is None or not job.work_ms:
        return None
    sure = market.sure_flavors(job.spec)
    if not sure:
        return None
    left_ms = work_if_lost_ms(job, running.attempt, now_us=market.now_us)
    sure_us = latest_start_us(job, sure, work_ms=left_ms, restores=True, settings=market.settings)
    return sky_of(
        job,
        market,
        market.choices(job),
        left_ms=left_ms,
        slack_us=sure_us - market.now_us,
    )


def _in_time(running: Running, to: Choice) -> bool:
    """Whether a move there leaves room for its worst death."""
    job, market = running.job, running.market
    sure_us = latest_start_us(
        job,
        market.sure_flavors(job.spec),
        work_ms=work_if_lost_ms(job, running.attempt, now_us=market.now_us),
        restores=True,
        settings=market.settings,
    )
    last_us = latest_spot_start_us(job, to.flavor, sure_start_us=sure_us, settings=market.settings)
    return market.now_us + market.settings.drain_grace_ms * US_PER_MS + REACTION_US < last_us


# -- the table ------------------------------------------------------------------------------


def _table(
    sky: Sky, cheaper: Sequence[Place], dearer: Sequence[Place], *, here: Place | None = None
) -> tuple[Table, tuple[int, int, int, int]]:
    """Give the table of two tiers, and where in it the job stands."""
    clock, sure = sky.clock, rate(sky.sures[0], sky.job)
    # Spot may be free; prices are then in thousandths of sure capacity's.
    unit = max(min(place.rate for place in cheaper), sure / 1_000, 1e-9)
    slot_h = clock.slot_us / US_PER_HOUR
    terms = Terms(
        slot_h=slot_h,
        changeover=round(clock.changeover_us / clock.slot_us, 1),
        cheap=_tier(cheaper, unit, now_us=clock.now_us),
        dear=_tier(dearer, unit, now_us=clock.now_us)
        if dearer
        else Tier(sure / unit, 1.0, 1.0, 1.0, 0.0),
        sure=round(sure / unit * 2) / 2,
        egress=round(sky.egress / (unit * slot_h) * 4) / 4,
    )
    cheap, dear = (union(tier, now_us=clock.now_us) for tier in (cheaper, dearer))
    dear = dear if here is None else here.spell
    table = solve(terms, slots=clock.slots, slack=clock.slack)
    return table, (
        clock.left,
        state(cheap.age_h, up=cheap.up),
        state(dear.age_h, up=dear.up),
        clock.spare,
    )


def _tier(places: Sequence[Place], unit: float, *, now_us: int) -> Tier:
    """Sum up places of about one price; the first that is up is the one that would train."""
    up = [place for place in places if place.up] or list(places)
    all_of_them = union(places, now_us=now_us)
    return Tier(
        price=round(min(place.rate for place in up) / unit * 20) / 20,
        up_factor=all_of_them.up_factor,
        down_factor=all_of_them.down_factor,
        own_factor=up[0].spell.up_factor,
        again=again([place for place in places if place is not up[0]], now_us=now_us),
    )
