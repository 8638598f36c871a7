"""Exact splits of integers: largest remainder, and amounts that add up over any cut."""

from __future__ import annotations

from collections.abc import Sequence

US_PER_HOUR = 3_600_000_000
MILLI_US_PER_GPU_MS = 1_000_000


def split(total: int, *, weights: Sequence[int]) -> list[int]:
    """Split ``total`` by integer weights; the shares add up to it exactly.

    Largest remainder (Hamilton): every share is within one unit of its exact value; ties go to
    the earlier weight.

    Args:
        total: what to share out, >= 0.
        weights: non-negative, not all zero unless ``total`` is 0.
    """
    assert total >= 0, f"cannot split {total}"
    assert all(weight >= 0 for weight in weights), f"negative weight in {weights}"
    whole = sum(weights)
    if whole == 0:
        assert total == 0, f"{total} to split over no weight"
        return [0] * len(weights)
    shares = [total * weight // whole for weight in weights]
    left = total - sum(shares)
    order = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for index in order[:left]:
        shares[index] += 1
    return shares


def cost_between(start_us: int, end_us: int, *, since_us: int, usd_nanos_per_hour: int) -> int:
    """Give the nano-dollars of [start, end) at one price that began at ``since_us``.

    Amounts are differences of floors from ``since_us`` on, so cutting an interval anywhere
    never changes the sum: the bill of a price segment is ``floor(price x length)``.
    """
    assert since_us <= start_us <= end_us, f"{since_us} {start_us} {end_us}"

    def upto(at_us: int) -> int:
        return usd_nanos_per_hour * (at_us - since_us) // US_PER_HOUR

    return upto(end_us) - upto(start_us)


def gpu_ms_between(start_us: int, end_us: int, *, since_us: int, gpu_milli: int) -> int:
    """Give the integer GPU-milliseconds of [start, end); cuts never change the sum."""
    assert since_us <= start_us <= end_us, f"{since_us} {start_us} {end_us}"

    def upto(at_us: int) -> int:
        return gpu_milli * (at_us - since_us) // MILLI_US_PER_GPU_MS

    return upto(end_us) - upto(start_us)
