"""A flavor at a price and an availability at an instant."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.flavors import Flavor


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What can be had of a flavor now, and what is known of its next prices."""

    flavor: Flavor
    usd_nanos_per_hour: int  # per node, now, windows applied
    list_usd_nanos_per_hour: int
    launchable: int  # nodes that may still be launched now (limit - up, 0 during back-off)
    limit: int  # nodes that can be up at all now
    backoff_until_us: int  # launches of it are left alone until then
    hazard_per_million_hours: int  # evictions expected per 10^6 node-hours
    next_prices: tuple[tuple[int, int], ...] = ()  # (from_us, usd_nanos_per_hour), ascending
    levels: tuple[tuple[int, int], ...] = ()  # (since_us, limit): the last changes observed
    price_rests_on: str = ""  # what the next prices rest on, for people
    price_heard_us: int | None = None  # of a price whose feed has stopped: when it last spoke
    price_doubt_permille: int = 0  # so much dearer it is taken for, by decisions alone
