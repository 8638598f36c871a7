"""What the plan ahead for the whole queue says to one cycle: worths, shadow prices and a bound.

A job's WORTH is the price at which the plan buys its last GPU-hour: capacity above it should be
left alone, because a later or another hour is cheaper, and who has the higher worth has less of
a way out and goes first. The SHADOW price of a flavor is what one more node-hour of it would save
the whole queue now: who takes it must have that use for it.

The bound is the least that the rest of all planned work can cost if things come as expected. The
program is convex in what there is to be had, so on average no policy gets below it either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.offers import Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """A job in the plan."""

    usd_nanos: int  # of its last GPU-hour
    rest_usd_nanos: int  # its part of the bound
    gpu_ms: int  # GPU time that it still needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A flavor in the plan, now."""

    weight_permille: int  # paid hours for a thousand useful ones: evictions cost restarts
    shadow_usd_nanos: int  # of a node-hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """The plan ahead, as of ``at_us``; who is not in it is decided without it."""

    at_us: int
    again_us: int  # when it is worked out again if nothing changes before
    worths: Mapping[str, Worth]  # by job id
    places: Mapping[str, Place]  # by flavor name
    bound_usd_nanos: int  # of the rest of all jobs in it
    variables: int = 0
    iterations: int = 0

    def usd_nanos(self, offer: Offer) -> int:
        """Give what a useful GPU-hour of an offer costs the whole queue now."""
        place, usd_nanos = self.places.get(offer.flavor.name), offer.usd_nanos_per_hour
        if place is not None:
            usd_nanos = usd_nanos * place.weight_permille // 1_000 + place.shadow_usd_nanos
        return usd_nanos * 1_000 // max(1, offer.flavor.gpu_milli)
