"""Durations and instants as people write them, turned into integer units."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", re.IGNORECASE)
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MAX_MS = 36_525 * _UNIT_MS["d"]  # a hundred years: sums of instants stay far inside 64 bits
US_PER_MS = 1_000
US_PER_S = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration_ms(value: object) -> int:
    """Read ``"6h30m"``, ``"90s"``, ``"2.5h"`` or a number of seconds as milliseconds.

    Raises:
        ValueError: it is not a duration, negative, or beyond a hundred years.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool):
        msg = "a duration is a number of seconds or text such as '6h30m'"
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns ValueError into a field error
    if isinstance(value, int | float):
        return _from_seconds(value)
    text = str(value).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return _from_seconds(float(text))
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        msg = f"{text!r} is not a duration; write it like '6h30m', '90s' or '2d'"
        raise ValueError(msg)
    return _bounded(sum(float(number) * _UNIT_MS[unit.lower()] for number, unit in parts))


def _from_seconds(seconds: float) -> int:
    return _bounded(seconds * 1_000)


def _bounded(ms: float) -> int:
    if ms < 0:
        msg = "a duration cannot be negative"
        raise ValueError(msg)
    if not ms <= MAX_MS:  # infinite and NaN too
        msg = "a duration is at most a hundred years"
        raise ValueError(msg)
    return round(ms)


def format_duration(ms: int) -> str:
    """Write milliseconds exactly, as ``parse_duration_ms`` reads them: ``1h30m``, ``500ms``."""
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, ms = divmod(ms, _UNIT_MS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_deadline(value: object) -> datetime | int:
    """Read an instant with its offset, or a duration after submission (milliseconds).

    Raises:
        ValueError: it is neither, or the instant has no time zone.
    """
    if isinstance(value, str) and re.match(r"\d{4}-", value.strip()):
        value = datetime.fromisoformat(value.strip())
    if not isinstance(value, datetime):
        return parse_duration_ms(value)
    if value.tzinfo is None:
        msg = "a deadline needs a time zone, for example 2026-12-01T06:00+01:00"
        raise ValueError(msg)
    return value


def _format_deadline(value: datetime | int) -> str:
    return format_duration(value) if isinstance(value, int) else value.isoformat()


_TEXT_OR_SECONDS = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number", "minimum": 0}]})

DurationMs = Annotated[
    int,
    BeforeValidator(parse_duration_ms),
    PlainSerializer(format_duration, when_used="json"),
    _TEXT_OR_SECONDS,
]
"""A field that is read as a duration, kept as integer milliseconds and written as text."""

Deadline = Annotated[
    datetime | int,
    PlainValidator(parse_deadline),
    PlainSerializer(_format_deadline, when_used="json"),
    _TEXT_OR_SECONDS,
]
"""An aware instant, or integer milliseconds after submission."""


def to_us(moment: datetime) -> int:
    """Give an aware datetime as integer microseconds since 1970 UTC."""
    assert moment.tzinfo is not None, "an instant needs a time zone"
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_us(at_us: int) -> datetime:
    """Give integer microseconds since 1970 as an aware UTC datetime."""
    return EPOCH + timedelta(microseconds=at_us)


# (up to this many seconds, seconds in the unit, how the unit is written)
_SHOWN = ((120, 1, "{:.0f} s"), (7_200, 60, "{:.0f} min"), (172_800, 3_600, "{:.1f} h"))


def show_duration(ms: int) -> str:
    """Write a duration for people: ``45 s``, ``12 min``, ``6.2 h``, ``3.1 d``."""
    seconds = ms / 1_000
    for limit, unit, text in _SHOWN:
        if seconds < limit:
            return text.format(seconds / unit)
    return f"{seconds / 86_400:.1f} d"
