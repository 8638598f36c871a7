"""What can be had and at what price: the configuration side of a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.flavors import Flavor
from jobs.budget import Budget
from scheduler.price_book import PriceBook
from scheduler.windows import PriceWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Flavors by name, their prices over time, and the windows that the prices hold."""

    flavors: Mapping[str, Flavor]
    prices: PriceBook
    windows: tuple[PriceWindow, ...] = ()
    budgets: tuple[Budget, ...] = ()  # those of the configuration
    egress_nanos_per_gb: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by regions
