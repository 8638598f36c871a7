"""What fits into a notice: estimates from the last saves, and what to do with the time. Pure.

A notice is a budget. A fresh save costs a stall (the copy into the arena) and the upload of what
changed; both are estimated from the last saves with a pessimistic quantile, because a save that
is begun and does not end is worth nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from statistics import median_low
from typing import Final

KEPT_SAVES: Final = 8
"""How many of the last saves the estimates rest on: speeds change with the hour and the node."""
MARGIN_US: Final = 100_000
"""For what no save has measured: the decision itself, the last word to the worker."""
_PPM: Final = 1_000_000
_QUARTER: Final = 4
_ALIKE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveSample:
    """One save that ended well."""

    stall_us: int
    upload_us: int
    """From the snapshot to the commit."""
    state_bytes: int
    new_bytes: int
    """Bytes that were sent: the rest was in the store."""

    @property
    def total_us(self) -> int:
        """How long it took from the step boundary to the commit."""
        return self.stall_us + self.upload_us


class DrainPlan(Enum):
    """What to do between a notice and the end."""

    FRESH = auto()
    """Let the save in flight end, if there is one, and take a fresh one."""
    FINISH = auto()
    """Only the save in flight can still end."""
    LEAVE = auto()
    """Neither fits: leave at once, and say what is lost."""


def expected_stall_us(samples: Sequence[SaveSample]) -> int:
    """Give the stall of the next save, at its upper quartile."""
    return _high([sample.stall_us for sample in samples])


def expected_upload_us(samples: Sequence[SaveSample]) -> int:
    """Give the upload time of the next save: dirty bytes at the lower quartile of the speed.

    The share that is dirty is the upper quartile of the last saves, of the newest state's size.
    """
    dirty_ppm = _high([_PPM * s.new_bytes // max(1, s.state_bytes) for s in samples])
    dirty_bytes = samples[-1].state_bytes * dirty_ppm // _PPM
    # A save of few bytes is all latency: it says nothing about the speed of many.
    alike = [s for s in samples if _ALIKE * s.new_bytes >= dirty_bytes] or samples
    slowness = _high([s.upload_us * _PPM // max(1, s.new_bytes) for s in alike])  # us per MB
    return max(dirty_bytes * slowness // _PPM, min(sample.upload_us for sample in samples))


def expected_save_us(samples: Sequence[SaveSample]) -> int | None:
    """Give the time that a fresh save takes to its commit, None while none was measured."""
    if not samples:
        return None
    return expected_stall_us(samples) + expected_upload_us(samples) + MARGIN_US


def fit_ppm(samples: Sequence[SaveSample], *, notice_us: int, boundary_us: int) -> int:
    """Give the chance that a save fits a notice, from the saves that would have.

    One imagined save that does not fit is added: a few good ones do not make certainty.

    Args:
        samples: the last saves.
        notice_us: how long before the end the notice comes.
        boundary_us: how long it takes to the next step boundary, where a save can begin.
    """
    need_us = boundary_us + MARGIN_US
    fitting = sum(sample.total_us + need_us <= notice_us for sample in samples)
    return _PPM * fitting // (len(samples) + 1)


def plan_drain(budget_us: int, *, expected_us: int | None, in_flight_us: int | None) -> DrainPlan:
    """Say what the budget is good for.

    Args:
        budget_us: time that is left.
        expected_us: what a fresh save takes; None = never measured, and then it is tried.
        in_flight_us: what the save in flight still takes, as far as known; None = there is none.
    """
    waiting_us = in_flight_us or 0
    if budget_us > 0 and (expected_us is None or waiting_us + expected_us <= budget_us):
        return DrainPlan.FRESH
    if in_flight_us is not None and budget_us > 0:
        return DrainPlan.FINISH
    return DrainPlan.LEAVE


def usual_stall_us(samples: Sequence[SaveSample]) -> int:
    """Give the median stall, for the interval rule; 0 without samples."""
    return median_low([sample.stall_us for sample in samples]) if samples else 0


def usual_upload_us(samples: Sequence[SaveSample]) -> int:
    """Give the median upload time, for the interval rule; 0 without samples."""
    return median_low([sample.upload_us for sample in samples]) if samples else 0


def usual_new_bytes(samples: Sequence[SaveSample]) -> int:
    """Give the median of what a save sends; 0 without samples."""
    return median_low([sample.new_bytes for sample in samples]) if samples else 0


def _high(values: Sequence[int]) -> int:
    """Give the upper quartile; of few values their largest."""
    ranked = sorted(values)
    return ranked[-1 - len(ranked) // _QUARTER] if ranked else 0
