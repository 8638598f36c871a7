"""When to save: the interval rule, as pure integer functions.

Save when `hazard x (1 - r) x t^2 / 2 >= C`: the work that an eviction is expected to destroy (the
Young/Daly argument, Young 1974, Daly 2006) has grown as large as what a save costs. `t` is the
training time since the last saved state, `r` the chance that a notice arrives and a save fits it,
`C` the training time that a save costs: its stall plus the share of the upload that slows training
(NOT the upload's duration).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

MIN_INTERVAL_US: Final = 1_000_000
"""Never save more often than this by the automatic rule, however cheap a save looks."""
DEFAULT_HAZARD_PPB_PER_S: Final = 92_593
"""One eviction every three hours, until the scheduler says better."""
DEFAULT_INTERFERENCE_PPM: Final = 220_000
"""Measured: 0.22 training-seconds lost per second of upload when the uploader stands apart."""
DEFAULT_COST_US: Final = 250_000
"""Assumed cost of the first save, before one was measured."""
_PPM: Final = 1_000_000
_SCALE: Final = 10**21  # ppb per s x ppm x us^2 against 2 x us: 1e9 x 1e6 x 1e12 / 1e6


@dataclass(frozen=True, slots=True)
class Cadence:
    """What the rule knows now. With `interval_us` > 0 the fixed interval decides instead."""

    interval_us: int = 0
    hazard_ppb_per_s: int = DEFAULT_HAZARD_PPB_PER_S
    """Evictions expected per 10^9 seconds of running."""
    notice_ppm: int = 0
    """`r`: chance in parts per million that a notice comes and a fresh save fits it."""
    cost_us: int = DEFAULT_COST_US
    """`C`: training time lost to one save."""


def save_cost_us(stall_us: int, *, upload_us: int, interference_ppm: int) -> int:
    """Return `C`: the stall plus the part of the upload that training feels."""
    return stall_us + upload_us * interference_ppm // _PPM


def measured(cadence: Cadence, *, stall_us: int, upload_us: int) -> Cadence:
    """Return `cadence` with the cost of the save that just ended."""
    cost = save_cost_us(stall_us, upload_us=upload_us, interference_ppm=DEFAULT_INTERFERENCE_PPM)
    return replace(cadence, cost_us=cost)


def is_due(cadence: Cadence, *, unsaved_us: int) -> bool:
    """Say whether a save should start at this step boundary, `unsaved_us` after the last one."""
    if cadence.interval_us > 0:
        return unsaved_us >= cadence.interval_us
    if unsaved_us < MIN_INTERVAL_US:
        return False
    at_risk = cadence.hazard_ppb_per_s * (_PPM - cadence.notice_ppm) * unsaved_us**2
    return at_risk >= 2 * cadence.cost_us * _SCALE


def fits_budget(budget_us: int, *, expected_us: int | None) -> bool:
    """Say whether a fresh save of `expected_us` (None: never measured) fits a drain's budget."""
    if budget_us <= 0:
        return False
    return expected_us is None or expected_us <= budget_us
