"""Numbers that look random and are not: counted, so that equal questions get equal quotes.

The first draw of a dimension is spread evenly over the futures (a van der Corput sequence, turned
by the key); later ones are hashed (SplitMix64). No state: a number is a function of its place.
"""

from __future__ import annotations

from hashlib import sha256

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_BASES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
_TWO_64 = float(1 << 64)


def key_of(*parts: object) -> int:
    """Give a 64-bit key for what makes a question: equal parts, equal futures."""
    return int.from_bytes(sha256(repr(parts).encode()).digest()[:8])


def hashed(key: int, *counters: int) -> float:
    """Give a number in (0, 1) for a place in the stream of a key."""
    mixed = key
    for counter in counters:
        mixed = _mix((mixed + (counter + 1) * _GOLDEN) & _MASK)
    return (mixed + 0.5) / _TWO_64


def spread(key: int, *, dimension: int, index: int) -> float:
    """Give the ``index``-th of evenly spread numbers in (0, 1), another order per dimension."""
    turned = _radical(index + 1, _BASES[dimension % len(_BASES)]) + hashed(key, dimension)
    return min(max(turned % 1.0, 1e-12), 1 - 1e-12)


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _radical(index: int, base: int) -> float:
    """Mirror the digits of an index at the point."""
    found, scale = 0.0, 1.0
    while index:
        scale /= base
        index, digit = divmod(index, base)
        found += digit * scale
    return found
