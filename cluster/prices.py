"""What a node costs at an instant, before windows: a Protocol and three sources.

Prices are integer nano-dollars per node-hour. A source answers for any instant, also one after
its last observation (the last value holds), and says when the answer changes next, so that
nobody polls it.

A feed may stop. Its last good price is kept, with its age, and never becomes zero; decisions take
it as dearer the older it is (``Price.doubt_permille``), while bills stay at what was last heard.
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
    heard_us: int | None = None  # when a feed last said so; None = configured or recorded
    every_us: int = 0  # how often the feed says something

    def age_us(self, at_us: int) -> int:
        """Give how old the price is, 0 while its feed is in time or when it has none."""
        if self.heard_us is None or at_us - self.heard_us <= _IN_TIME * self.every_us:
            return 0
        return at_us - self.heard_us

    def doubt_permille(self, at_us: int) -> int:
        """Give how much dearer it has to be taken for: 2 % for each hour of its age, at most twice.

        The rate is an assumption: the spot prices that we know move by less in most hours.
        """
        return min(_MOST_PERMILLE, self.age_us(at_us) * _PERMILLE_PER_HOUR // _HOUR_US)


_IN_TIME = 3  # a feed that was silent for so many of its steps has stopped
_PERMILLE_PER_HOUR, _MOST_PERMILLE = 20, 1_000
_HOUR_US = 3_600_000_000


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


class FeedPrices:
    """Prices as a feed says them, one after the other; before its first word the configured one.

    What is negative, missing or no number is put aside (``refused``), and the last good price of
    that flavor is kept. One thread writes; a reader sees the old series or the new one.
    """

    def __init__(self, flavors: Iterable[Flavor], *, source: str, every_us: int) -> None:
        """Begin with the configured prices."""
        self._flat = {flavor.name: configured(flavor) for flavor in flavors}
        self._series: dict[str, StepSeries] = {}
        self._heard: dict[str, tuple[int, ...]] = {}
        self._source, self._every_us = source, every_us
        self.refused: dict[str, str] = {}
        """Why the last word about a flavor was not taken, by flavor; empty = all is well."""

    def take(self, at_us: int, quotes: Mapping[str, object]) -> None:
        """Take what the feed says at an instant, nano-dollars per node-hour by flavor."""
        for name in self._flat:
            value = quotes.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                self._add(name, at_us, value)
                self.refused.pop(name, None)
            else:
                self.refused[name] = "no price" if value is None else f"not a price: {value!r}"
        for name in quotes:
            if name not in self._flat:
                self.refused[name] = "no flavor is called so"

    def base(self, flavor: str, at_us: int) -> Price:
        """Give the last good price that was heard by then."""
        flat, heard = self._flat[flavor], self._heard.get(flavor, ())
        index = bisect_right(heard, at_us) - 1
        if index < 0:
            return flat
        return Price(
            usd_nanos_per_hour=self._series[flavor].at(at_us),
            list_usd_nanos_per_hour=flat.list_usd_nanos_per_hour,
            source=self._source,
            heard_us=heard[index],
            every_us=self._every_us,
        )

    def next_change_us(self, flavor: str, after_us: int) -> int | None:
        """Give the next change that was heard; nobody knows the ones to come."""
        series = self._series.get(flavor)
        return series.next_change_us(after_us) if series else None

    def _add(self, name: str, at_us: int, usd_nanos: int) -> None:
        heard, series = self._heard.get(name, ()), self._series.get(name)
        if heard and at_us <= heard[-1]:
            return
        if series is None:
            series = StepSeries((at_us,), (usd_nanos,))
        elif series.values[-1] != usd_nanos:
            series = StepSeries((*series.from_us, at_us), (*series.values, usd_nanos))
        kept = max(0, len(series.from_us) - _KEPT)
        self._series[name] = StepSeries(series.from_us[kept:], series.values[kept:])
        self._heard[name] = (*heard[-_KEPT:], at_us)


_KEPT = 1_000  # words of a feed that are remembered


def configured(flavor: Flavor) -> Price:
    """Give a flavor's configured price; without a list price, the price is the list price."""
    return Price(
        usd_nanos_per_hour=flavor.usd_nanos_per_hour,
        list_usd_nanos_per_hour=flavor.list_usd_nanos_per_hour or flavor.usd_nanos_per_hour,
        source="configured",
    )
