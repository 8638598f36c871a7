"""How often the cloud takes nodes of a flavor back: an online estimate with a prior.

The estimate is the mean of a gamma posterior over a Poisson rate, (evictions + a) / (exposure
+ b): a flavor never seen before has the rate a / b of its market, and each node-hour lived moves
it towards what was observed, so that a new flavor is neither free nor feared. Integers only.
"""

from __future__ import annotations

from typing import Final

from jobs.spec import Market

MS_PER_HOUR: Final = 3_600_000
MILLION: Final = 1_000_000
# Evictions `a` (in millionths) in `b` node-hours that we act as if we had seen. Spot: one a day
# and node, the order of what public traces show, worth a day of own experience. Bought capacity
# is taken back by failures only.
_PRIOR: Final = {
    Market.SPOT: (MILLION, 24),
    Market.ON_DEMAND: (MILLION // 50, 1_000),
    Market.RESERVED: (MILLION // 50, 1_000),
}

_KEPT, _BROKEN = 9, 1


def hazard_per_million_hours(market: Market, *, evictions: int, exposure_ms: int) -> int:
    """Estimate the evictions per 10^6 node-hours of a flavor.

    Args:
        market: picks the prior.
        evictions: nodes taken back so far, with or without notice.
        exposure_ms: node-time lived so far, milliseconds.
    """
    seen_millionths, lived_ms = posterior(market, evictions=evictions, exposure_ms=exposure_ms)
    return seen_millionths * MS_PER_HOUR // lived_ms


def posterior(market: Market, *, evictions: int, exposure_ms: int) -> tuple[int, int]:
    """Give the same belief as its two numbers: millionths of an eviction, in milliseconds."""
    prior_millionths, prior_hours = _PRIOR[market]
    return evictions * MILLION + prior_millionths, exposure_ms + prior_hours * MS_PER_HOUR


def noticed_ppm(*, evictions: int, noticed: int) -> int:
    """Give the share of evictions that come with notice, where the flavor promises one.

    The mean of a beta posterior: nine of ten kept their word before we looked.
    """
    return MILLION * (noticed + _KEPT) // (evictions + _KEPT + _BROKEN)
