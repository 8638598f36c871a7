"""Price windows: recurring intervals, with a time zone, in which capacity is cheaper.

Times are wall-clock times of the zone, so a window keeps its local hours over a DST change.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceWindow:
    """A flavor filter, a schedule and what the price becomes inside it.

    ``start`` and ``end`` are seconds after local midnight; ``end <= start`` runs over midnight.
    ``price_percent`` multiplies the base price (60 = 40 % cheaper).
    """

    name: str
    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)  # Monday = 0, local day of the start
    start_s: int = 0
    end_s: int = 0
    time_zone: str = "UTC"
    flavors: tuple[str, ...] = ()  # names; empty = any
    markets: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    price_percent: int = 100
    rests_on: str = "tariff"  # tariff | reserved-idle | chargeback | availability
