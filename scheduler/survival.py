"""How long spot stays, and how long it stays away: an online estimate from observed levels.

Spells of spot capacity are heavy-tailed, up and down alike: what has lasted for hours lasts for
about as long again, what came a minute ago is often gone in a quarter of an hour. So the hazard of
a change falls with the age of the spell, h(a) = A / (a + a0) per hour. Calm zones and flickering
ones follow the same law, because it is a mixture of both: the age tells most of what sets them
apart. A factor per direction is learned from the flavor's own history (gamma prior with mean 1,
conjugate to a Poisson count whose exposure is the integral of h), and slowly: a quick one takes a
few short spells for news about the long ones (docs/decisions/0006). Floats: these are estimates
and decide no deadline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Levels = Sequence[tuple[int, int]]
"""Observed levels of a flavor, ascending: (from this instant in us, nodes that can be up)."""

US_PER_HOUR = 3_600_000_000
HAZARD, YOUNG_H = 1.0, 0.2
"""A and a0 (hours) of the hazard above: round numbers near what fits V100 and H100 traces."""
PRIOR_CHANGES = 32.0
"""How many changes of its own a flavor must have seen to weigh as much as the prior."""
FIRST_AGE_H = 1.0
"""Age that is assumed of a spell that was on when we began to look, hours."""
_OCTAVE = 1  # factors are rounded to this many steps per doubling, so that tables are shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Spell:
    """The present spell of a gang's spot capacity, and how this place compares with others."""

    up: bool
    age_h: float
    up_factor: float = 1.0  # times the usual hazard of losing it
    down_factor: float = 1.0  # times the usual hazard of its return


def hazard(age_h: float) -> float:
    """Give the usual rate of a change of a spell of that age, per hour."""
    return HAZARD / (age_h + YOUNG_H)


def expected_changes(from_h: float, to_h: float) -> float:
    """Give how many changes the law expects between two ages: the integral of the hazard."""
    return HAZARD * math.log((to_h + YOUNG_H) / (from_h + YOUNG_H))


def present(histories: Iterable[Levels], *, nodes: int, now_us: int, up: bool) -> Spell:
    """Give the present spell of "at least one of these flavors can hold the gang".

    Args:
        histories: the observed levels of each flavor; those without any say nothing.
        nodes: of the gang.
        now_us: the present.
        up: whether there is capacity now, where no history tells.
    """
    spells = _spells([levels for levels in histories if levels], nodes=nodes)
    if not spells:
        return Spell(up=up, age_h=FIRST_AGE_H)
    seen, changes = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    age_h = 0.0
    ends = [*(at_us for at_us, _ in spells[1:]), now_us]
    for index, ((from_us, is_up), end_us) in enumerate(zip(spells, ends, strict=True)):
        first_h = 0.0 if index else FIRST_AGE_H
        age_h = first_h + max(0, end_us - from_us) / US_PER_HOUR
        seen[is_up] += expected_changes(first_h, age_h)
        changes[is_up] += index + 1 < len(spells)
    return Spell(
        up=spells[-1][1],
        age_h=age_h,
        up_factor=_factor(changes[True], seen[True]),
        down_factor=_factor(changes[False], seen[False]),
    )


def _factor(changes: int, expected: float) -> float:
    factor = (changes + PRIOR_CHANGES) / (expected + PRIOR_CHANGES)
    return math.exp2(round(math.log2(factor) * _OCTAVE) / _OCTAVE)


def _spells(histories: list[Levels], *, nodes: int) -> list[tuple[int, bool]]:
    """Give when capacity came and went, from where all of the histories are known."""
    steps = sorted(
        (at_us, index, level >= nodes)
        for index, levels in enumerate(histories)
        for at_us, level in levels
    )
    since_us = max((levels[0][0] for levels in histories), default=0)
    holds: dict[int, bool] = {}
    spells: list[tuple[int, bool]] = []
    for at_us, index, fits in steps:
        holds[index] = fits
        up = any(holds.values())
        if at_us <= since_us:
            spells = [(since_us, up)]
        elif spells[-1][1] is not up:
            spells.append((at_us, up))
    return spells
