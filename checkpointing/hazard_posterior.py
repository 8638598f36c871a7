"""How likely it is that the cloud ends this attempt: a belief that every second sharpens. Pure.

Evictions are a Poisson process of unknown rate; the belief about the rate is a gamma distribution,
"`a` evictions in `b` of exposure", whose mean a / b is the hazard. It is conjugate: living for `T`
gives a / (b + T), an eviction gives (a + 1) / b. The scheduler knows `a` and `b` best, from all
nodes of the flavor; the attempt adds what it lives through.

The same formula is age-aware for free. Spells of spot capacity are heavy-tailed, their hazard
falls with their age as A / (age + a0), and that is this belief with a = A and b = a0 + age: a
mixture of calm and nervous places, of which those that have lasted are the calm ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final

MILLION: Final = 1_000_000
_PPB: Final = 10**9
_US_PER_MS: Final = 1_000
_MS_PER_HOUR: Final = 3_600_000
JUMP_PERCENT: Final = 20
"""News of the hazard that differ by less are not worth a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """What the scheduler knows of one attempt: of its whole gang, on its flavor, at its price.

    Without a scheduler: one eviction in three hours, and no notice of it. It is a message from
    the worker to the child as well, at the start and whenever it `is_news`.
    """

    kind: ClassVar[str] = "risk"
    evictions_ppm: int = MILLION
    """`a` above, in millionths of an eviction."""
    exposure_ms: int = 3 * _MS_PER_HOUR
    """`b` above: running time of the gang in which they were seen."""
    notice_ms: int = 0
    """How long before an eviction its notice comes; 0 = none ever comes."""
    noticed_ppm: int = 0
    """Share of the evictions that keep this promise, in millionths."""
    usd_nanos_per_hour: int = 0
    """What an hour of the gang costs; 0 = unknown, and then money decides nothing."""


@dataclass(frozen=True, slots=True)
class HazardPosterior:
    """The belief at an instant; both numbers are of the gang."""

    evictions_ppm: int
    exposure_us: int

    @classmethod
    def of(cls, risk: Risk) -> HazardPosterior:
        """Give the scheduler's belief, to which nothing was added yet."""
        return cls(max(0, risk.evictions_ppm), max(1, risk.exposure_ms * _US_PER_MS))

    @property
    def hazard_ppb_per_s(self) -> int:
        """Evictions expected in 10^9 s of running."""
        return self.evictions_ppm * _PPB // self.exposure_us

    def lived(self, duration_us: int) -> HazardPosterior:
        """Give the belief after `duration_us` without an eviction."""
        return replace(self, exposure_us=self.exposure_us + max(0, duration_us))

    def evicted(self) -> HazardPosterior:
        """Give the belief after one more eviction."""
        return replace(self, evictions_ppm=self.evictions_ppm + MILLION)


def is_news(told: Risk | None, *, present: Risk) -> bool:
    """Say whether what was told is so far from the present that it must be told again."""
    if told is None:
        return True
    was, now = (HazardPosterior.of(risk).hazard_ppb_per_s for risk in (told, present))
    return (
        _jumped(was, now)
        or _jumped(told.usd_nanos_per_hour, present.usd_nanos_per_hour)
        or _jumped(told.noticed_ppm, present.noticed_ppm)
        or told.notice_ms != present.notice_ms
    )


def _jumped(was: int, now: int) -> bool:
    return abs(now - was) * 100 > JUMP_PERCENT * max(was, now)
