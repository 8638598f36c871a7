"""What a node costs at an instant, before windows: a Protocol and two sources.

Prices are integer nano-dollars per node-hour. A source answers for any instant, also one after
its last observation (the last value holds), and says when the answer changes next, so that
nobody polls it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.flavors import Flavor


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of one node of a flavor at an instant."""

    usd_nanos_per_hour: int
    list_usd_nanos_per_hour: int  # on demand, the same node at the same hour
    source: str  # where the number comes from, for the ledger's ``price_source``


class PriceSource(Protocol):
    """Base prices by flavor; pure in its arguments."""

    def base(self, flavor: str, at_us: int) -> Price:
        """Give the price that holds at ``at_us``.

        Raises:
            KeyError: the flavor is unknown.
        """

    def next_change_us(self, flavor: str, after_us: int) -> int | None:
        """Give the first instant after ``after_us`` at which ``base`` changes, None when never."""


class FlatPrices:
    """The configured price of each flavor, for ever."""

    def __init__(self, flavors: Iterable[Flavor]) -> None:
        """Keep the price of each flavor."""
        self._prices = {flavor.name: configured(flavor) for flavor in flavors}

    def base(self, flavor: str, at_us: int) -> Price:
        """Give the configured price."""
        return self._prices[flavor]

    def next_change_us(self, flavor: str, after_us: int) -> int | None:
        """Give None: it never changes."""
        return None


@dataclass(frozen=True, slots=True)
class StepSeries:
    """A value that changes in steps: ``values[i]`` holds from ``from_us[i]`` on.

    The first value also holds before ``from_us[0]``, the last one for ever. ``from_us`` is
    strictly ascending and neighbouring values differ.
    """

    from_us: tuple[int, ...]
    values: tuple[int, ...]

    @classmethod
    def regular(cls, values: Sequence[int], *, start_us: int, step_us: int) -> StepSeries:
        """Build from one value per step, keeping the changes only.

        Raises:
            ValueError: there is no value, or the step is not positive.
        """
        if not values:
            msg = "a series needs at least one value"
            raise ValueError(msg)
        if step_us <= 0:
            msg = "the step of a series must be longer than 0 s"
            raise ValueError(msg)
        kept = [i for i, value in enumerate(values) if i == 0 or value != values[i - 1]]
        return cls(
            tuple(start_us + i * step_us for i in kept),
            tuple(values[i] for i in kept),
        )

    def at(self, at_us: int) -> int:
        """Give the value that holds at an instant."""
        return self.values[max(0, bisect_right(self.from_us, at_us) - 1)]

    def next_change_us(self, after_us: int) -> int | None:
        """Give the first change strictly after an instant, None when there is none."""
        index = max(1, bisect_right(self.from_us, after_us))
        return self.from_us[index] if index < len(self.from_us) else None


class SeriesPrices:
    """A step series per flavor; a flavor without one keeps its configured price."""

    def __init__(
        self, series: Mapping[str, StepSeries], *, flavors: Iterable[Flavor], source: str
    ) -> None:
        """Keep series of nano-dollars per node-hour; ``source`` names their origin."""
        self._series = dict(series)
        self._flat = {flavor.name: configured(flavor) for flavor in flavors}
        self._source = source

    def base(self, flavor: str, at_us: int) -> Price:
        """Give the series' value at the instant, or the configured price."""
        flat = self._flat[flavor]
        series = self._series.get(flavor)
        if series is None:
            return flat
        return Price(
            usd_nanos_per_hour=series.at(at_us),
            list_usd_nanos_per_hour=flat.list_usd_nanos_per_hour,
            source=self._source,
        )

    def next_change_us(self, flavor: str, after_us: int) -> int | None:
        """Give the next step of the flavor's series."""
        series = self._series.get(flavor)
        return series.next_change_us(after_us) if series else None


def configured(flavor: Flavor) -> Price:
    """Give a flavor's configured price; without a list price, the price is the list price."""
    return Price(
        usd_nanos_per_hour=flavor.usd_nanos_per_hour,
        list_usd_nanos_per_hour=flavor.list_usd_nanos_per_hour or flavor.usd_nanos_per_hour,
        source="configured",
    )
