"""When a flavor is usually up: learned from its own levels, and trusted only after it was right.

The share of time in which a gang fits, by hour of the week, shrunk towards the hour of the day and
that towards the base rate. On real traces such a model of one week did not hold in the next, so it
has to prove itself out of sample: each day is forecast from the days before it, and the squared
error is compared with that of the base rate known then, the better one of all days and of the last
week. ``Learned.skill`` is the share of the error that it saves; below ``TRUSTED_SKILL``, or with
fewer than ``LEAST_DAYS`` of forecasts, it is shown and steers nothing. Hours are UTC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.durations import US_PER_S
from scheduler.windows import PriceWindow

Floats = NDArray[np.float64]

TRUSTED_SKILL = 0.05
"""Share of the base rate's squared error that a forecast must have saved."""
LEAST_DAYS = 5
"""Days that must have been forecast before any of it counts."""
_FIRST_DAYS = 7  # that are learned from before the first forecast
_DAY_WEIGHT_H, _WEEK_WEIGHT_H = 6.0, 4.0  # hours of data that weigh as much as what is shrunk to
_CLEAR = 0.1  # a window is this much above the base rate
_HOUR_US = 3_600 * US_PER_S
_DAY, _WEEK = 24, 168
_MONDAY_H = 4 * _DAY  # 1970-01-05, the first Monday, in hours since 1970


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What was learned of one flavor for a gang of one size."""

    days: int  # observed
    tested_days: int  # of them, forecast out of sample
    base: float  # share of time in which the gang fits
    by_hour: tuple[float, ...]  # the same for each hour of the week, Monday 00:00 UTC first
    skill: float  # share of the base rate's error that forecasts saved; negative = worse

    @property
    def trusted(self) -> bool:
        """Whether it has shown skill, so that it may steer."""
        return self.tested_days >= LEAST_DAYS and self.skill >= TRUSTED_SKILL

    @property
    def label(self) -> str:
        """What a window of it rests on, for people."""
        said = f"skill {100 * self.skill:.0f} % over {self.tested_days} days"
        trust = said if self.trusted else f"{said}: not used"
        return f"availability, learned from {self.days} days ({trust})"


def learn(levels: Sequence[tuple[int, int]], *, nodes: int, now_us: int) -> Learned | None:
    """Learn from observed levels, None with less than a week of them.

    Args:
        levels: (from this instant in us, nodes that can be up), ascending.
        nodes: the size of the gang.
        now_us: until when the last level has held.
    """
    first_h, shares = _hourly(levels, nodes=nodes, now_us=now_us)
    days = len(shares) // _DAY
    if days < _FIRST_DAYS:
        return None
    base, table = _fit(shares, first_h=first_h)
    tested, skill = _prove(shares, first_h=first_h)
    return Learned(
        days=days,
        tested_days=tested,
        base=base,
        by_hour=tuple(float(share) for share in table),
        skill=skill,
    )


def windows(learned: Learned, *, flavor: str) -> tuple[PriceWindow, ...]:
    """Give the hours in which the flavor is clearly more often up than usual, as windows.

    They change no price. Each belongs to one day of the week; one over midnight is two.
    """
    least = max(learned.base + _CLEAR, 0.5)
    found = []
    for day in range(7):
        hours = [share >= least for share in learned.by_hour[day * _DAY : (day + 1) * _DAY]]
        for start, end in _stretches(hours):
            found.append(
                PriceWindow(
                    name=f"{flavor} usually up",
                    days=(day,),
                    start_s=start * 3_600,
                    end_s=end % _DAY * 3_600,
                    flavors=(flavor,),
                    rests_on=learned.label,
                )
            )
    return tuple(found)


def _stretches(hours: list[bool]) -> list[tuple[int, int]]:
    edges = [i for i in range(len(hours) + 1) if _at(hours, i) != _at(hours, i - 1)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _at(hours: list[bool], index: int) -> bool:
    return 0 <= index < len(hours) and hours[index]


def _hourly(levels: Sequence[tuple[int, int]], *, nodes: int, now_us: int) -> tuple[int, Floats]:
    """Give the first whole hour, since 1970, and the share of each hour in which the gang fits."""
    if not levels:
        return 0, np.zeros(0)
    first_h, last_h = math.ceil(levels[0][0] / _HOUR_US), now_us // _HOUR_US
    if last_h <= first_h:
        return first_h, np.zeros(0)
    edges = (np.arange(first_h, last_h + 1, dtype=np.int64)) * _HOUR_US
    times = np.array([at_us for at_us, _ in levels] + [now_us], dtype=np.int64)
    fits = np.array([level >= nodes for _, level in levels], dtype=np.float64)
    up_us = np.concatenate([[0.0], np.cumsum(fits * np.diff(times))])
    return first_h, np.diff(np.interp(edges, times, up_us)) / _HOUR_US


def _fit(shares: Floats, *, first_h: int) -> tuple[float, Floats]:
    """Give the base rate and the share for each hour of the week, shrunk."""
    base = float(shares.mean())
    of_week = (first_h + np.arange(len(shares)) - _MONDAY_H) % _WEEK
    of_day = of_week % _DAY
    day = _shrunk(shares, of_day, _DAY, towards=np.full(_DAY, base), weight=_DAY_WEIGHT_H)
    return base, _shrunk(shares, of_week, _WEEK, towards=np.tile(day, 7), weight=_WEEK_WEIGHT_H)


def _shrunk(
    shares: Floats, bins: NDArray[np.int64], count: int, *, towards: Floats, weight: float
) -> Floats:
    seen = np.bincount(bins, minlength=count)
    found: Floats = np.bincount(bins, weights=shares, minlength=count) + weight * towards
    return found / (seen + weight)


def _prove(shares: Floats, *, first_h: int) -> tuple[int, float]:
    """Forecast each day from the days before it; give how many, and the share of error saved."""
    ours = all_days = last_week = 0.0
    days = range(_FIRST_DAYS * _DAY, len(shares) - _DAY + 1, _DAY)
    for start in days:
        truth, past = shares[start : start + _DAY], shares[:start]
        base, table = _fit(past, first_h=first_h)
        hours = (first_h + start + np.arange(_DAY) - _MONDAY_H) % _WEEK
        ours += float(((table[hours] - truth) ** 2).sum())
        all_days += float(((base - truth) ** 2).sum())
        last_week += float(((past[-_WEEK:].mean() - truth) ** 2).sum())
    known = min(all_days, last_week)
    return len(days), 1 - ours / known if known else 0.0
