"""One possible future of spot: when the capacity of each flavor goes and comes back.

Spells are drawn from the law that the policy itself believes in (``scheduler.survival``): a hazard
A / (age + a0) times the flavor's own factor, so a spell of age a lasts d more with probability
((a + a0) / (a + d + a0)) ** (A * factor). How wrong the factor may be is drawn as well: once for
each future and market as a whole, since bad days come to all zones together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cluster.offers import Offer
from scheduler.needs import is_sure
from scheduler.quote_draws import hashed, spread
from scheduler.survival import HAZARD, US_PER_HOUR, YOUNG_H, Spell, present

DOUBT = 0.35
"""Standard deviation of the logarithm of a future's factor on all hazards of loss and return."""
FOREVER_US = 1 << 62
_LOST, _BACK = 1_000, 1_001  # dimensions of the doubt
_LONGEST_H = 24.0 * 365
_LEAST, _LEAST_POWER = 1e-9, 0.05  # so that a power of the two stays a float


@dataclass(slots=True)
class _Zone:
    spell: Spell
    up: bool
    since_us: int
    until_us: int
    drawn: int = 1


@dataclass(slots=True)
class Sky:
    """The spot flavors of one future; time only goes forward."""

    key: int
    index: int
    nodes: int
    now_us: int
    doubts: tuple[float, float] = (1.0, 1.0)
    _zones: dict[str, _Zone] = field(default_factory=dict)
    _sides: dict[str, int] = field(default_factory=dict)

    @classmethod
    def over(
        cls, offers: tuple[Offer, ...], *, nodes: int, now_us: int, key: int, index: int
    ) -> Sky:
        """Draw the ``index``-th future of these offers for a gang of ``nodes``."""
        doubts = _doubt(key, index, _LOST), _doubt(key, index, _BACK)
        sky = cls(key=key, index=index, nodes=nodes, now_us=now_us, doubts=doubts)
        for side, offer in enumerate(offers):
            if not is_sure(offer.flavor):
                sky._begin(offer, side=side)
        return sky

    def up(self, flavor: str, at_us: int) -> bool:
        """Whether the flavor can hold the gang then; sure capacity always can."""
        zone = self._zone(flavor, at_us)
        return zone is None or zone.up

    def since_us(self, flavor: str, at_us: int) -> int:
        """Give since when that is so."""
        zone = self._zone(flavor, at_us)
        return self.now_us if zone is None else zone.since_us

    def until_us(self, flavor: str, at_us: int) -> int:
        """Give until when that stays so."""
        zone = self._zone(flavor, at_us)
        return FOREVER_US if zone is None else zone.until_us

    def _begin(self, offer: Offer, *, side: int) -> None:
        up = offer.limit >= self.nodes
        spell = present([offer.levels], nodes=self.nodes, now_us=self.now_us, up=up)
        even = spread(self.key, dimension=side, index=self.index)
        lasts_us = self._lasts_us(
            spell, up=up, age_h=spell.age_h if spell.up is up else 0.0, at=even
        )
        name, since_us = offer.flavor.name, self.now_us - round(spell.age_h * US_PER_HOUR)
        self._sides[name] = side
        self._zones[name] = _Zone(spell, up, since_us, self.now_us + lasts_us)

    def _zone(self, flavor: str, at_us: int) -> _Zone | None:
        zone = self._zones.get(flavor)
        while zone is not None and zone.until_us <= at_us:
            zone.up, zone.since_us = not zone.up, zone.until_us
            drawn = hashed(self.key, self.index, self._sides[flavor], zone.drawn)
            zone.until_us += self._lasts_us(zone.spell, up=zone.up, age_h=0.0, at=drawn)
            zone.drawn += 1
        return zone

    def _lasts_us(self, spell: Spell, *, up: bool, age_h: float, at: float) -> int:
        factor = spell.up_factor if up else spell.down_factor
        power = max(_LEAST_POWER, HAZARD * factor * self.doubts[0 if up else 1])
        hours: float = (age_h + YOUNG_H) * (max(at, _LEAST) ** (-1 / power) - 1)
        return max(1_000, round(min(hours, _LONGEST_H) * US_PER_HOUR))


def _doubt(key: int, index: int, dimension: int) -> float:
    """Give a factor around one: the sum of three even numbers is near enough to a bell."""
    even = spread(key, dimension=dimension, index=index)
    total = even + hashed(key, index, dimension, 1) + hashed(key, index, dimension, 2)
    return math.exp(2 * DOUBT * (total - 1.5))
