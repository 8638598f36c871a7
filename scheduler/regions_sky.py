"""The places of a job: spot offers in several zones and regions, what was seen of each, and time.

A place is up when its limit holds the gang and no launch there was refused lately. How long it
stays is estimated from its own history (``scheduler.survival``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jobs.durations import US_PER_MS
from jobs.rows import JobRow
from scheduler.egress import egress_nanos
from scheduler.market import Choice, Market
from scheduler.needs import at_risk_ms, guarded_ms, overhead_ms
from scheduler.survival import US_PER_HOUR, Levels, Spell, expected_changes, present

GOOD = 0.5
"""Spot that costs more than this share of sure capacity only stands in for it."""
SAME = 0.98
"""A place this close in price to another is no cheaper."""
_AHEAD_H = 6.0
"""Deaths are expected over so much of the work that is left: the further, the less is known."""
_TOLD_H = 2.0
"""How much watching of other places weighs as much as what they do at this moment, hours."""
_CELLS = 8_000  # most slots x spare slots of a table; who has more gets longer slots
_LEAST_SLOTS, _LEAST_SPARE = 32, 8
"""Sizes of tables are these times 1, 1.5, 2, 3, 4, 6 and so on, so that jobs share them."""
_HORIZON_US = 4_000 * US_PER_HOUR  # who has more time than this needs no plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A spot offer that a job may use."""

    choice: Choice
    rate: float  # nano-dollars per hour for all of its nodes
    levels: Levels  # when it could hold the gang (1) and when not (0), as far as it was seen
    spell: Spell
    egress: float = 0.0  # nano-dollars to read the restore point from there

    @property
    def up(self) -> bool:
        """Whether the gang could start there now."""
        return self.spell.up

    @property
    def key(self) -> tuple[float, str]:
        """Cheapest first, then by name."""
        return self.rate, self.choice.flavor.name

    def useful(self, *, left_h: float, lost_h: float, slack_nanos: float) -> float:
        """Give the nano-dollars of a useful hour there.

        Args:
            left_h: work that is left.
            lost_h: what a death takes.
            slack_nanos: what an hour of slack is worth.
        """
        ahead_h = max(0.1, min(left_h, _AHEAD_H))
        deaths = self.deaths(ahead_h)
        return self.rate + (deaths * lost_h * (self.rate + slack_nanos) + self.egress) / ahead_h

    def deaths(self, ahead_h: float) -> float:
        """Give how many deaths to expect in so many hours of work."""
        age_h = self.spell.age_h
        return self.spell.up_factor * expected_changes(age_h, age_h + min(ahead_h, _AHEAD_H))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where a job stands between now and its deadline, in the slots of its tables."""

    now_us: int
    slot_us: int
    changeover_us: int
    left_us: int  # work
    slack_us: int
    slots: int  # size of the tables: slots until the deadline
    slack: int  # and those among them that the work does not need

    @property
    def spare(self) -> int:
        """Spare slots now, the nearest."""
        spare = (self.slack_us + self.changeover_us + self.slot_us // 2) // self.slot_us
        return max(0, min(spare, self.slack))

    @property
    def left(self) -> int:
        """Slots until the deadline now."""
        return min(-(-self.left_us // self.slot_us) + self.spare, self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sky:
    """All places of a job, cheapest first, and where in time it stands."""

    job: JobRow
    clock: Clock
    places: tuple[Place, ...]
    stand_ins: tuple[Choice, ...]  # spot near the price of sure capacity, cheaper than it
    sures: tuple[Choice, ...]  # cheapest first
    home: str  # region of the restore point, "" = none
    egress: float  # nano-dollars of the dearest move between two places


def sky_of(
    job: JobRow,
    market: Market,
    choices: Iterable[Choice],
    *,
    left_ms: int,
    slack_us: int,
) -> Sky | None:
    """Look around; None when there are no two places to choose between, or nothing to plan."""
    listed = sorted(choices, key=lambda choice: (rate(choice, job), choice.flavor.name))
    sures = tuple(choice for choice in listed if choice.sure)
    if not sures or slack_us < 0 or left_ms <= 0:
        return None
    spots = [choice for choice in listed if not choice.sure]
    good = [choice for choice in spots if rate(choice, job) <= GOOD * rate(sures[0], job)]
    clock = _clock(job, market, good, left_ms=left_ms, slack_us=slack_us)
    if len(good) < 2 or clock is None:  # noqa: PLR2004 - two are needed to choose
        return None
    return Sky(
        job=job,
        clock=clock,
        places=tuple(_place(choice, job, market) for choice in good),
        stand_ins=tuple(
            choice
            for choice in spots[len(good) :]
            if rate(choice, job) < rate(sures[0], job) and _spell(choice, job, market).up
        ),
        sures=sures,
        home=market.homes.get(job.id, ""),
        egress=_dearest_move(good, job, market),
    )


def rate(choice: Choice, job: JobRow) -> float:
    """Give the price of the gang's nodes now, nano-dollars per hour."""
    return float(choice.offer.usd_nanos_per_hour * job.spec.nodes)


def _place(choice: Choice, job: JobRow, market: Market) -> Place:
    return Place(
        choice=choice,
        rate=rate(choice, job),
        levels=_levels(choice, job),
        spell=_spell(choice, job, market),
        egress=egress_nanos(
            market.egress_nanos_per_gb,
            job.spec,
            source=market.homes.get(job.id, ""),
            target=choice.flavor.region,
        ),
    )


def _dearest_move(choices: Sequence[Choice], job: JobRow, market: Market) -> float:
    regions = sorted({choice.flavor.region for choice in choices})
    prices = market.egress_nanos_per_gb
    moves = [
        egress_nanos(prices, job.spec, source=source, target=target)
        for source in (regions if prices else ())
        for target in regions
    ]
    return float(max(moves, default=0))


def _levels(choice: Choice, job: JobRow) -> Levels:
    return tuple((at_us, int(level >= job.spec.nodes)) for at_us, level in choice.offer.levels)


def _spell(choice: Choice, job: JobRow, market: Market) -> Spell:
    offer = choice.offer
    seen = market.spell((offer.flavor.name,), nodes=job.spec.nodes)
    if offer.limit >= job.spec.nodes and offer.backoff_until_us > market.now_us:
        return Spell(up=False, age_h=0.0, up_factor=seen.up_factor, down_factor=seen.down_factor)
    return seen


def _clock(
    job: JobRow, market: Market, spots: Sequence[Choice], *, left_ms: int, slack_us: int
) -> Clock | None:
    """Choose slots of a changeover, or longer ones if the table would have too many."""
    span_us = (job.deadline_us or 0) - job.submitted_us
    if not spots or not 0 < span_us <= _HORIZON_US:
        return None
    changeover_us = overhead_ms(job, spots[0].flavor, restores=True) * US_PER_MS
    changeover_us += at_risk_ms(job.spec, job.work_ms) * US_PER_MS // 2
    free_us = max(span_us - job.work_ms * US_PER_MS, slack_us)
    slot_us = max(changeover_us, 60_000_000)
    while span_us * max(slot_us, free_us) > _CELLS * slot_us**2:
        slot_us = slot_us * 5 // 4
    left_us = guarded_ms(job.spec, left_ms, settings=market.settings) * US_PER_MS
    spare = (slack_us + changeover_us) // slot_us + 1
    return Clock(
        now_us=market.now_us,
        slot_us=slot_us,
        changeover_us=changeover_us,
        left_us=left_us,
        slack_us=slack_us,
        slots=_up(max(span_us // slot_us, left_us // slot_us + 1 + spare), _LEAST_SLOTS),
        slack=_up(max((span_us - job.work_ms * US_PER_MS) // slot_us, spare), _LEAST_SPARE),
    )


def _up(count: int, least: int) -> int:
    size = least
    while size < count:
        whole = size % least == 0 and (size // least).bit_count() == 1
        size = size * 3 // 2 if whole else size * 4 // 3
    return size


def union(places: Sequence[Place], *, now_us: int) -> Spell:
    """Give the spell of "one of them is up"; of no place, it is down for good."""
    if len(places) == 1:
        return places[0].spell
    levels = [place.levels for place in places]
    seen = present(levels, nodes=1, now_us=now_us, up=any(place.up for place in places))
    if seen.up and not any(place.up for place in places):  # refused lately
        return Spell(up=False, age_h=0.0, up_factor=seen.up_factor, down_factor=seen.down_factor)
    return seen


def again(others: Sequence[Place], *, now_us: int) -> float:
    """Estimate how often at least one of these places is up, in eighths."""
    steps = sorted((at, i, level) for i, place in enumerate(others) for at, level in place.levels)
    if not others:
        return 0.0
    since_us = last_us = steps[0][0] if steps else now_us
    holds: dict[int, int] = {}
    up_us = 0
    for at_us, index, level in [*steps, (now_us, -1, 0)]:
        up_us += (at_us - last_us) * any(holds.values())
        holds[index], last_us = level, at_us
    told_us = _TOLD_H * US_PER_HOUR
    now_up = any(place.up for place in others)
    share = (up_us + told_us * now_up + told_us / 2) / (now_us - since_us + 2 * told_us)
    return round(share * 8) / 8
