"""When to save: the interval rule, as pure integer functions.

Save when `hazard x (1 - r) x t^2 / 2 >= C + S / p`, at a step boundary, where

    t   training time since the last snapshot
    r   the chance that an eviction's notice arrives and a save fits into it
    C   training time that a save costs: its stall, and the share of its upload that slows training
        (NOT the duration of the upload)
    S   money that a save costs: requests and egress
    p   what an hour of the gang costs

In money, where it comes from. Saving every `t` costs `p C + S` each time, that is `(p C + S) / t`
per second. Evictions come at `hazard`; those that a notice does not disarm (1 - r) destroy `t / 2`
of work on average, so they cost `p x hazard x (1 - r) x t / 2` per second. The sum is least where
its derivative vanishes: `p x hazard x (1 - r) / 2 = (p C + S) / t^2`, which is the rule (Young
1974 for S = r = 0; the second order of Daly 2006 is below 1 % where hazard x C < 0.01).

- The price `p` enters only through `S / p`. Work and stalls are the same hours and cost the same
  price: were saves free of charge, dear and cheap nodes would save equally often. They are not: a
  thousand requests cost a fixed sum, which is hours of a cheap node and moments of a dear one. So
  dear nodes save sooner. What is stored does not count: retention keeps the same number of
  checkpoints whatever the interval is.
- What a restart costs (boot, imports, restore) is paid once per eviction however old the last save
  is: `p x hazard x restart` has no `t` in it, and vanishes from the derivative. It is left out.
- The work that an upload in flight does not protect yet adds `hazard x upload time`, which has no
  `t` in it either while `t >= upload time`. So `t` counts from the last SNAPSHOT, not from the
  last commit, and a save that would have to wait for the upload before it is not due. A save that
  FAILED protects nothing: then `t` counts from the snapshot of the last one that did not.
- Shortly before the end the final commit is near anyway: a save now insures `t` for only the
  `rest`, `hazard x (1 - r) x t x rest`, which pays only while `rest` is half an interval or more
  (and nothing is left unsaved beyond the ceiling).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Final

MIN_INTERVAL_US: Final = 1_000_000
"""Never save more often than this by the automatic rule, however cheap a save looks."""
MAX_INTERVAL_US: Final = 600_000_000
"""Never lose more than this, however calm it looks: estimates err, a belief may be an hour old, and
the plans of deadlines count on it. A save of half a second then costs 0.1 % of training."""
MAX_SHARE: Final = 200
"""But insurance against surprises alone costs at most 1 / 200 of training: a dear save raises
`MAX_INTERVAL_US` to this many times its cost."""
DEFAULT_HAZARD_PPB_PER_S: Final = 92_593
"""One eviction every three hours, until the scheduler says better."""
DEFAULT_INTERFERENCE_PPM: Final = 220_000
"""Measured: 0.22 training-seconds lost per second of upload when the uploader stands apart."""
DEFAULT_COST_US: Final = 250_000
"""Assumed cost of the first save, before one was measured."""
_PPM: Final = 1_000_000
_SCALE: Final = 10**21  # ppb per s x ppm x us^2 against 2 x us: 1e9 x 1e6 x 1e12 / 1e6
_US_PER_HOUR: Final = 3_600_000_000
_GB: Final = 10**9
_CHUNK_BYTES: Final = 16 << 20  # the smallest chunk that a big state is cut into
_RECORDS: Final = 3  # objects of a save beside its chunks: part, manifest, commit


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
    fee_usd_nanos: int = 0
    """`S`: money paid for one save."""
    usd_nanos_per_hour: int = 0
    """`p`: of the whole gang; 0 = unknown, then `S` decides nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What the store charges for writing."""

    put_usd_nanos: int = 0
    """Per request."""
    egress_usd_nanos_per_gb: int = 0
    """Per 10^9 bytes that leave the node's region."""


OBJECT_STORE: Final = Tariff(put_usd_nanos=5_000)
"""S3 and its like within a region: 0.005 USD per 1,000 requests, bytes are free."""


def save_fee_usd_nanos(new_bytes: int, *, tariff: Tariff) -> int:
    """Return `S`: what the store charges for a save that sends `new_bytes`."""
    puts = -(-new_bytes // _CHUNK_BYTES) + _RECORDS
    return puts * tariff.put_usd_nanos + new_bytes * tariff.egress_usd_nanos_per_gb // _GB


def save_cost_us(stall_us: int, *, upload_us: int, interference_ppm: int) -> int:
    """Return `C`: the stall plus the part of the upload that training feels."""
    return stall_us + upload_us * interference_ppm // _PPM


def whole_cost_us(cadence: Cadence) -> int:
    """Return `C + S / p`: what one save costs, expressed in training time."""
    if cadence.usd_nanos_per_hour <= 0:
        return cadence.cost_us
    return cadence.cost_us + cadence.fee_usd_nanos * _US_PER_HOUR // cadence.usd_nanos_per_hour


def floor_us(cadence: Cadence) -> int:
    """Return the least training time between two automatic saves: at least what one takes of it.

    Where lives are so short that the rule asks for more, no interval helps.
    """
    return max(MIN_INTERVAL_US, cadence.cost_us)


def ceiling_us(cadence: Cadence) -> int:
    """Return the most training time that the automatic rule leaves unsaved.

    Fees do not raise it: deadlines are planned in time, by people who know no fee.
    """
    return max(MAX_INTERVAL_US, MAX_SHARE * cadence.cost_us)


def interval_us(cadence: Cadence) -> int:
    """Return the `t` from which on a save is due; between `floor_us` and `ceiling_us`."""
    if cadence.interval_us > 0:
        return cadence.interval_us
    at_risk = cadence.hazard_ppb_per_s * max(0, _PPM - cadence.notice_ppm)
    if at_risk <= 0:
        return ceiling_us(cadence)
    squared = -(-2 * whole_cost_us(cadence) * _SCALE // at_risk)
    optimum = isqrt(squared - 1) + 1 if squared else 0
    return min(max(optimum, floor_us(cadence)), ceiling_us(cadence))


def is_due(cadence: Cadence, *, unsaved_us: int, rest_us: int | None = None) -> bool:
    """Say whether a save should start at this step boundary.

    Args:
        cadence: what is known.
        unsaved_us: training time since the last snapshot; see the module docstring.
        rest_us: training time until the final commit, None where nobody knows.
    """
    due_us = interval_us(cadence)
    if unsaved_us < due_us:
        return False
    if cadence.interval_us > 0 or rest_us is None or 2 * rest_us >= due_us:
        return True
    return unsaved_us + rest_us > ceiling_us(cadence)


def is_urgent(cadence: Cadence, *, unsaved_us: int) -> bool:
    """Say whether a save should start now that an eviction is near: work outweighs the save."""
    return unsaved_us >= max(floor_us(cadence), whole_cost_us(cadence))
