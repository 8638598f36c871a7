"""How numbers, money and instants are written for people. JSON output uses none of this."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

NANOS_PER_CENT = 10_000_000
GPU_MS_PER_HOUR = 3_600_000
NONE = "-"


def dollars(usd_nanos: int) -> str:
    """Write an amount to the cent: ``$1,234.50``, ``-$0.20``, ``<$0.01`` for a little."""
    return _cents_text(_rounded(usd_nanos), usd_nanos=usd_nanos)


def dollar_column(usd_nanos: Sequence[int]) -> list[str]:
    """Write amounts to the cent so that the column adds up to the rounded total.

    The cents that rounding down leaves over go to the largest remainders, first come first.
    """
    floors = [amount // NANOS_PER_CENT for amount in usd_nanos]
    missing = _rounded(sum(usd_nanos)) - sum(floors)
    order = sorted(range(len(floors)), key=lambda i: (-(usd_nanos[i] % NANOS_PER_CENT), i))
    for index in order[:missing]:
        floors[index] += 1
    return [
        _cents_text(cents, usd_nanos=amount)
        for cents, amount in zip(floors, usd_nanos, strict=True)
    ]


def exact_dollars(usd_nanos: int) -> str:
    """Write an amount to the nano-dollar: ``$0.011234567``."""
    whole, rest = divmod(abs(usd_nanos), NANOS_PER_CENT * 100)
    return f"{'-' if usd_nanos < 0 else ''}${whole:,}.{rest:09d}"


def _rounded(usd_nanos: int) -> int:
    return (usd_nanos + NANOS_PER_CENT // 2) // NANOS_PER_CENT


def _cents_text(cents: int, *, usd_nanos: int) -> str:
    if not cents and usd_nanos:
        return "<$0.01" if usd_nanos > 0 else "-<$0.01"
    sign = "-" if cents < 0 else ""
    return f"{sign}${abs(cents) // 100:,}.{abs(cents) % 100:02d}"


def gpu_hours(gpu_ms: int) -> str:
    """Write GPU time: ``12.34 h``, or with more digits where it is little."""
    hours = gpu_ms / GPU_MS_PER_HOUR
    return f"{hours:,.2f} h" if abs(hours) >= 1 or not gpu_ms else f"{hours:.4f} h"


def percent(part: int, whole: int) -> str:
    """Write a share: ``41 %``, or ``-`` of nothing."""
    return f"{100 * part / whole:.0f} %" if whole else NONE


def instant(at_us: int | None) -> str:
    """Write an instant in local time with its zone: ``2026-12-01 06:00:05 CET``."""
    if at_us is None:
        return NONE
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def span(ms: int | None) -> str:
    """Write a duration for people; a negative one has its sign in front."""
    if ms is None:
        return NONE
    from jobs.durations import show_duration

    return show_duration(ms) if ms >= 0 else f"-{show_duration(-ms)}"


def counted(number: int, noun: str) -> str:
    """Write a number of things: ``1 file``, ``3 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def gpus(gpu_milli: int) -> str:
    """Write GPUs: ``4``, ``0.25``."""
    return f"{gpu_milli / 1_000:g}"
