"""What a node costs now and, as far as anybody can know, next: base prices under price windows.

Windows are a published schedule, so their edges are known ahead. A base price series is not,
unless it is a published one (a day-ahead tariff): ``ahead`` keeps the base price of now and never
looks into a recorded market, or a simulated policy would know tomorrow's. Where several windows
are open, the lowest price wins.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from cluster.flavors import Flavor
from cluster.prices import Price, PriceSource
from scheduler.sentences import show_instant
from scheduler.windows import PriceWindow, applies, next_edge_us, open_at

_EVER_US = 1 << 62
_REMEMBERED_US = 7 * 86_400_000_000


class PriceBook:
    """Prices by flavor name, windows applied. Pure in its arguments; it only remembers edges.

    Args:
        source: base prices.
        flavors: every flavor that will be asked for.
        windows: all price windows; the book picks those that apply to a flavor.
        source_known_ahead: how far ahead the source's future is published (a contract, not a
            market), in microseconds by flavor, so that ``ahead`` may read it; True = all of it.
    """

    def __init__(
        self,
        source: PriceSource,
        flavors: Iterable[Flavor],
        windows: Iterable[PriceWindow] = (),
        *,
        source_known_ahead: bool | Mapping[str, int] = False,
    ) -> None:
        """Pick each flavor's windows."""
        self._source = source
        listed, kinds = tuple(windows), tuple(flavors)
        if isinstance(source_known_ahead, bool):
            source_known_ahead = {kind.name: _EVER_US for kind in kinds if source_known_ahead}
        self._known_us = dict(source_known_ahead)
        self._published: dict[str, _Published] = {}
        self._flavors = kinds
        self.in_use: tuple[PriceWindow, ...] = ()
        """All price windows, in the order given."""
        self._tracks: dict[str, _Track] = {}
        self.use(listed)

    def use(self, windows: Iterable[PriceWindow]) -> None:
        """Take other windows from now on; answers about earlier instants change as well."""
        self.in_use = tuple(windows)
        self._published = {name: _Published() for name in self._known_us}
        self._tracks = {
            kind.name: _Track(tuple(w for w in self.in_use if applies(w, kind)))
            for kind in self._flavors
        }

    def with_windows(self, windows: Iterable[PriceWindow]) -> PriceBook:
        """Give another book on the same source, for a trial."""
        return PriceBook(
            self._source, self._flavors, windows, source_known_ahead=dict(self._known_us)
        )

    def base(self, flavor: str, at_us: int) -> Price:
        """Give the price outside of all windows."""
        return self._source.base(flavor, at_us)

    def at(self, flavor: str, at_us: int) -> Price:
        """Give the price at an instant; its ``source`` names the window that made it."""
        base = self._source.base(flavor, at_us)
        usd_nanos, name = under(self._tracks[flavor].at(at_us), base.usd_nanos_per_hour)
        if not name:
            return base
        return replace(base, usd_nanos_per_hour=usd_nanos, source=f"{base.source}, window {name}")

    def next_change_us(self, flavor: str, after_us: int) -> int | None:
        """Give the next instant at which ``at`` may answer differently, None when never.

        It is for whoever must look again then; a recorded series' next step is in it.
        """
        edges = (
            self._tracks[flavor].next_us(after_us),
            self._source.next_change_us(flavor, after_us),
        )
        return min((edge for edge in edges if edge is not None), default=None)

    def ahead(self, flavor: str, from_us: int, until_us: int) -> tuple[tuple[int, int], ...]:
        """Give the known next prices: (from_us, usd_nanos_per_hour), ascending.

        The instants are after ``from_us`` and before ``until_us``, and neighbours differ.
        """
        if flavor in self._known_us:
            until_us = min(until_us, from_us + self._known_us[flavor])
            return self._published[flavor].between(from_us, until_us, self._all_steps(flavor))
        base = self._source.base(flavor, from_us).usd_nanos_per_hour
        edges = self._tracks[flavor].edges(from_us, until_us)
        return self._steps(flavor, [from_us, *edges], base=base)[1:]

    def rests_on(self, flavor: str, *, at_us: int | None = None) -> str:
        """Say for people what the known next prices rest on, "" when nothing is known.

        With an instant it also says when a feed that has stopped by then was last heard.
        """
        windows = self._tracks[flavor].windows
        named = [f"{window.name} ({window.rests_on})" for window in windows]
        published = ["published price (tariff)"] if flavor in self._known_us else []
        stale = [] if at_us is None else _stale(self.at(flavor, at_us), at_us=at_us)
        return ", ".join([*published, *named, *stale])

    def windows(self, flavor: str) -> tuple[PriceWindow, ...]:
        """Give the windows that apply to a flavor."""
        return self._tracks[flavor].windows

    def _all_steps(self, flavor: str) -> Callable[[int, int], tuple[tuple[int, int], ...]]:
        """Give what finds each change of a published price, windows applied, in an interval."""

        def steps(from_us: int, until_us: int) -> tuple[tuple[int, int], ...]:
            edges = self._tracks[flavor].edges(from_us, until_us)
            instants = sorted({*edges, *self._source_steps(flavor, from_us, until_us)})
            return self._steps(flavor, [from_us, *instants])

        return steps

    def _steps(
        self, flavor: str, instants: Iterable[int], *, base: int | None = None
    ) -> tuple[tuple[int, int], ...]:
        """Give the price at each instant at which it differs from the one before.

        ``base`` is the base price that is taken to stay; None looks it up at each instant.
        """
        steps: list[tuple[int, int]] = []
        last = None
        for at_us in instants:
            now = self._source.base(flavor, at_us).usd_nanos_per_hour if base is None else base
            price, _ = under(self._tracks[flavor].at(at_us), now)
            if price != last:
                steps.append((at_us, price))
                last = price
        return tuple(steps)

    def _source_steps(self, flavor: str, from_us: int, until_us: int) -> list[int]:
        steps: list[int] = []
        at_us = self._source.next_change_us(flavor, from_us)
        while at_us is not None and at_us < until_us:
            steps.append(at_us)
            at_us = self._source.next_change_us(flavor, at_us)
        return steps


def _stale(price: Price, *, at_us: int) -> list[str]:
    if price.heard_us is None or not price.age_us(at_us):
        return []
    return [f"price last heard {show_instant(price.heard_us)}"]


class _Published:
    """Known steps, remembered for a while ahead: they are asked for in every cycle."""

    def __init__(self) -> None:
        self._from_us, self._until_us = 0, 0
        self._steps: tuple[tuple[int, int], ...] = ()

    def between(
        self,
        from_us: int,
        until_us: int,
        find: Callable[[int, int], tuple[tuple[int, int], ...]],
    ) -> tuple[tuple[int, int], ...]:
        """Give the steps after an instant and before another."""
        if not (self._from_us <= from_us and until_us <= self._until_us):
            self._from_us, self._until_us = from_us, until_us + _REMEMBERED_US
            self._steps = find(self._from_us, self._until_us)
        first = bisect_right(self._steps, (from_us, _EVER_US))
        return self._steps[first : bisect_left(self._steps, (until_us, -1))]


class _Track:
    """The windows of one flavor as steps: which of them are open.

    ``_from_us`` ascends; ``_steps[i]`` holds from ``_from_us[i]`` until the next entry, the last
    one until ``_until_us`` (None: for ever). It is extended as later instants are asked for and
    begun anew when an earlier one is.
    """

    def __init__(self, windows: tuple[PriceWindow, ...]) -> None:
        self.windows = windows
        self._from_us: list[int] = []
        self._steps: list[tuple[PriceWindow, ...]] = []
        self._until_us: int | None = 0

    def at(self, at_us: int) -> tuple[PriceWindow, ...]:
        """Give the windows that are open at an instant."""
        if not self.windows:
            return ()
        self._reach(at_us)
        return self._steps[bisect_right(self._from_us, at_us) - 1]

    def next_us(self, after_us: int) -> int | None:
        """Give the next edge of any of the windows."""
        if not self.windows:
            return None
        self._reach(after_us)
        index = bisect_right(self._from_us, after_us)
        return self._from_us[index] if index < len(self._from_us) else self._until_us

    def edges(self, from_us: int, until_us: int) -> list[int]:
        """Give every edge after ``from_us`` and before ``until_us``."""
        if not self.windows:
            return []
        self._reach(from_us)
        self._reach(until_us)
        first = bisect_right(self._from_us, from_us)
        return [edge for edge in self._from_us[first:] if edge < until_us]

    def _reach(self, at_us: int) -> None:
        """Make the steps cover an instant."""
        if not self._from_us or at_us < self._from_us[0]:
            self._from_us, self._steps, self._until_us = [], [], at_us
        while self._until_us is not None and self._until_us <= at_us:
            edge = self._until_us
            self._from_us.append(edge)
            self._steps.append(tuple(w for w in self.windows if open_at(w, edge)))
            nexts = [next_edge_us(window, edge) for window in self.windows]
            self._until_us = min((one for one in nexts if one is not None), default=None)


def under(windows: tuple[PriceWindow, ...], base_usd_nanos: int) -> tuple[int, str]:
    """Give the lowest price that open windows make of a base price and the name of that window.

    Returns:
        Nano-dollars per node-hour and the name; (the base price, "") when none is open.
    """
    prices = [
        (
            scaled(base_usd_nanos, percent=window.price_percent)
            if window.tariff_usd_nanos_per_hour is None
            else window.tariff_usd_nanos_per_hour,
            window.name,
        )
        for window in windows
    ]
    return min(prices, default=(base_usd_nanos, ""))


def scaled(usd_nanos: int, *, percent: int) -> int:
    """Give ``percent`` of an amount, to the nearest nano-dollar."""
    return (usd_nanos * percent + 50) // 100
