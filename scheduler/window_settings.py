"""Price windows as people write them: in ``lowtide.yaml``, in scenarios, and in ``windows apply``.

A window says when (days, from, to, time zone, holidays), for what (flavors, markets, accelerators,
regions, zones) and at which price: a percentage of the base price, an absolute price, or a table of
24 of either, one for each hour of the local day. ``problems`` finds what a single field cannot
know: names of flavors, places and holidays that do not exist, with the nearest that does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cluster.flavors import Flavor
from jobs.durations import DurationMs
from jobs.spec import NANOS_PER_USD, Market, Name
from scheduler.windows import PriceWindow

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK_PARTS = (2, 3)  # HH:MM or HH:MM:SS
_DAY_S = 86_400
_HOUR_S = 3_600
_EPOCH = date(1970, 1, 1)


def _price(value: Decimal) -> Decimal:
    if (value * NANOS_PER_USD) % 1:
        msg = "a price has at most nine decimals"
        raise ValueError(msg)
    return value


def _day(value: object) -> int:
    short = str(value).strip().lower()[:3]
    if short not in _DAYS:
        msg = f"{value!r} is not a day; write mon, tue, wed, thu, fri, sat or sun"
        raise ValueError(msg)
    return _DAYS.index(short)


def _seconds_of_day(value: object) -> int:
    parts = str(value).split(":")
    if len(parts) not in _CLOCK_PARTS or not all(part.isdecimal() for part in parts):
        msg = f"{value!r} is not a time of day; write it like '22:00' or '22:00:30'"
        raise ValueError(msg)
    hours, minutes, seconds = (*map(int, parts), 0)[:3]
    total = hours * _HOUR_S + minutes * 60 + seconds
    if max(minutes, seconds) > 59 or total > _DAY_S:  # noqa: PLR2004 - a minute's last second
        msg = f"{value!r} is not a time of day; it goes from '00:00' to '24:00'"
        raise ValueError(msg)
    return total


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:
        near = get_close_matches(value, sorted(available_timezones()), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "write it like 'Europe/Berlin'"
        msg = f"{value!r} is not a time zone; {hint}"
        raise ValueError(msg) from error
    return value


def _date(value: object) -> str:
    """Keep a date as text; a number would be taken for seconds since 1970."""
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError as error:
        msg = f"{value!r} is not a date; write it like 2026-12-25"
        raise ValueError(msg) from error


Price = Annotated[Decimal, Field(ge=0), AfterValidator(_price)]
"""Dollars per node and hour, exact to the nano-dollar; never negative."""
Day = Annotated[int, BeforeValidator(_day)]
"""A day of the week by its English name; Monday = 0."""
TimeOfDay = Annotated[int, BeforeValidator(_seconds_of_day)]
"""``HH:MM`` or ``HH:MM:SS`` as seconds after local midnight; ``24:00`` ends a day."""
TimeZone = Annotated[str, AfterValidator(_time_zone)]
"""A name of the time zone database."""
Holidays = Mapping[str, tuple[Annotated[str, BeforeValidator(_date)], ...]]
"""Named lists of dates; a date is that of a window's own time zone."""
Hours = Annotated[tuple[Price, ...], Field(min_length=24, max_length=24)]
"""One price for each hour of the local day."""
PercentHours = Annotated[
    tuple[Annotated[int, Field(ge=0, le=1_000)], ...], Field(min_length=24, max_length=24)
]


class WindowSettings(BaseModel):
    """A recurring interval of local time in which some flavors have another price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    days: tuple[Day, ...] = Field(default=(0, 1, 2, 3, 4, 5, 6), min_length=1)
    start: TimeOfDay = 0
    end: TimeOfDay = _DAY_S
    time_zone: TimeZone = "UTC"
    only_on: tuple[Annotated[str, BeforeValidator(str)], ...] = Field(
        default=(), description="dates, or names from `holidays`: open on these days alone"
    )
    not_on: tuple[Annotated[str, BeforeValidator(str)], ...] = Field(
        default=(), description="dates, or names from `holidays`: closed on these days"
    )
    flavors: tuple[str, ...] = ()
    markets: tuple[Market, ...] = ()
    accelerators: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    price_percent: int | None = Field(default=None, ge=0, le=1_000)
    price_usd_per_hour: Price | None = None
    price_percent_by_hour: PercentHours | None = None
    price_usd_per_hour_by_hour: Hours | None = None
    rests_on: Literal["tariff", "reserved-idle", "chargeback", "availability"] = "tariff"

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.start % _DAY_S == self.end % _DAY_S and self.end - self.start != _DAY_S:
            msg = "an empty window: it ends when it starts; a whole day is 00:00 to 24:00"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _has_one_price(self) -> Self:
        named = [field for field in _PRICES if getattr(self, field) is not None]
        if len(named) != 1:
            got = ", ".join(named) or "none"
            msg = f"give {' or '.join(_PRICES)}, one of them (got {got})"
            raise ValueError(msg)
        if named[0].endswith("_by_hour") and {"start", "end"} & self.model_fields_set:
            msg = "a table by hour holds all day; leave out start and end"
            raise ValueError(msg)
        return self

    def windows(self, holidays: Holidays) -> tuple[PriceWindow, ...]:
        """Give the scheduler's values of it: one, or one for each step of a table by hour."""
        if self.price_percent_by_hour is None and self.price_usd_per_hour_by_hour is None:
            return (self._window(holidays),)
        table: tuple[Decimal | int, ...] = (
            self.price_percent_by_hour or self.price_usd_per_hour_by_hour or ()
        )
        starts = [hour for hour in range(24) if not hour or table[hour] != table[hour - 1]]
        return tuple(
            self._step(hour, until=until, price=table[hour], holidays=holidays)
            for hour, until in zip(starts, [*starts[1:], 24], strict=True)
        )

    def _step(
        self, hour: int, *, until: int, price: Decimal | int, holidays: Holidays
    ) -> PriceWindow:
        whole = self._window(holidays)
        by_percent = self.price_percent_by_hour is not None
        return replace(
            whole,
            name=f"{self.name} {hour:02}:00",
            start_s=hour * _HOUR_S,
            end_s=until * _HOUR_S % _DAY_S,
            price_percent=int(price) if by_percent else 100,
            tariff_usd_nanos_per_hour=None if by_percent else int(price * NANOS_PER_USD),
        )

    def _window(self, holidays: Holidays) -> PriceWindow:
        usd, percent = self.price_usd_per_hour, self.price_percent
        return PriceWindow(
            name=self.name,
            days=tuple(sorted(set(self.days))),
            start_s=self.start,
            end_s=self.end % _DAY_S,
            time_zone=self.time_zone,
            only_on=_dates(self.only_on, holidays=holidays),
            not_on=_dates(self.not_on, holidays=holidays) or (),
            flavors=self.flavors,
            markets=tuple(str(market) for market in self.markets),
            accelerators=self.accelerators,
            regions=self.regions,
            zones=self.zones,
            price_percent=100 if percent is None else percent,
            tariff_usd_nanos_per_hour=None if usd is None else int(usd * NANOS_PER_USD),
            rests_on=self.rests_on,
        )


class FeedSettings(BaseModel):
    """A file of present prices that somebody else keeps writing; see ``scheduler.price_feed``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    every: DurationMs = Field(default=300_000, gt=0, description="how often it is written")


_PRICES = (
    "price_percent",
    "price_usd_per_hour",
    "price_percent_by_hour",
    "price_usd_per_hour_by_hour",
)


def _dates(names: Iterable[str], *, holidays: Holidays) -> tuple[int, ...] | None:
    """Give days since 1970, ascending; None for an empty list, which restricts nothing."""
    listed = [day for name in names for day in holidays.get(name, (name,))]
    days = {(date.fromisoformat(day) - _EPOCH).days for day in listed}
    return tuple(sorted(days)) if listed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with a window, where, and what to do."""

    index: int
    field: str
    cause: str
    remedy: str


def problems(
    windows: Iterable[WindowSettings], *, flavors: Iterable[Flavor], holidays: Holidays
) -> Iterator[Problem]:
    """Find names that do not exist, and two windows of one name."""
    listed, seen = list(flavors), set[str]()
    known = {
        "flavors": {flavor.name for flavor in listed},
        "regions": {flavor.region for flavor in listed},
        "zones": {flavor.zone for flavor in listed},
        "accelerators": {flavor.accelerator for flavor in listed},
    }
    for index, window in enumerate(windows):
        if window.name in seen:
            cause = f"there are two windows called '{window.name}'"
            remedy = "Rename one; window names are unique over the whole file."
            yield Problem(index=index, field="name", cause=cause, remedy=remedy)
        seen.add(window.name)
        for field, names in known.items():
            for name in getattr(window, field):
                if name not in names:
                    yield _unknown(index, field, name, known=names)
        yield from _bad_dates(index, window, holidays=holidays)


def _unknown(index: int, field: str, name: str, *, known: Iterable[str]) -> Problem:
    names = sorted(name for name in known if name)
    near = get_close_matches(name, names, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return Problem(
        index=index,
        field=field,
        cause=f"no {field.removesuffix('s')} is called '{name}'",
        remedy=f"{hint}Name one of: {', '.join(names) or 'none is configured'}.",
    )


def _bad_dates(index: int, window: WindowSettings, *, holidays: Holidays) -> Iterator[Problem]:
    for field in ("only_on", "not_on"):
        for name in getattr(window, field):
            if name in holidays or _is_date(name):
                continue
            near = get_close_matches(name, list(holidays), n=1)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            cause = f"'{name}' is neither a date nor a list in `holidays`"
            remedy = f"{hint}Write a date like 2026-12-25, or a name of `holidays`."
            yield Problem(index=index, field=field, cause=cause, remedy=remedy)


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
