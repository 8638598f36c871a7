"""What one training has learned about its saves, and what follows: is one due, does one fit. Pure.

It holds the last saves, the last step times and the belief about evictions, and is told the time:
it reads no clock. The rule itself is `cadence`, the budget of a notice `notice_budget`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from statistics import median_low
from typing import Final

from checkpointing.cadence import (
    DEFAULT_INTERFERENCE_PPM,
    MIN_INTERVAL_US,
    Cadence,
    Tariff,
    interval_us,
    is_due,
    is_urgent,
    save_cost_us,
    save_fee_usd_nanos,
)
from checkpointing.hazard_posterior import HazardPosterior, Risk
from checkpointing.notice_budget import (
    KEPT_SAVES,
    DrainPlan,
    SaveSample,
    expected_save_us,
    expected_upload_us,
    fit_ppm,
    plan_drain,
    usual_new_bytes,
    usual_stall_us,
    usual_upload_us,
)

KEPT_STEPS: Final = 64
ENOUGH_STEPS: Final = 5
"""Of each kind, before the measured interference replaces the constant."""
RECKON_US: Final = 200_000
"""Medians and beliefs do not change from step to step, and steps may be short."""
RETRY_US: Final = 5_000_000
"""After a failed save the next is not due before this time; it doubles with each failure."""
_MOST_DOUBLINGS: Final = 5
_PPM: Final = 1_000_000


def interference_ppm(quiet_us: Sequence[int], *, busy_us: Sequence[int]) -> int:
    """Give the share of training that is lost while an upload runs, by the medians of step times.

    Medians, so that an evaluation or a compilation inside a step does not count. The constant of
    `cadence` until there are enough steps of both kinds.
    """
    if min(len(quiet_us), len(busy_us)) < ENOUGH_STEPS:
        return DEFAULT_INTERFERENCE_PPM
    quiet, busy = median_low(quiet_us), median_low(busy_us)
    return _PPM * max(0, busy - quiet) // max(1, busy)


class Pacer:
    """Decides for one rank. All instants are of one clock that never goes back."""

    def __init__(self, cadence: Cadence, *, tariff: Tariff, at_us: int) -> None:
        """Know nothing yet but `cadence` and what the store charges."""
        self._cadence = cadence
        self._tariff = tariff
        self._risk = Risk()
        self._posterior = HazardPosterior.of(self._risk)
        self._believed_us = at_us
        self._saves: deque[SaveSample] = deque(maxlen=KEPT_SAVES)
        self._quiet: deque[int] = deque(maxlen=KEPT_STEPS)
        self._busy: deque[int] = deque(maxlen=KEPT_STEPS)
        self._snapshot_us = self._safe_us = self._tried_us = self._retry_us = at_us
        self._failures = 0
        self._hurried = False
        self._reckoned: tuple[int, Cadence, int, int | None] | None = None

    # ------------------------------------------------------------------ what happens

    def set_interval(self, fixed_us: int) -> None:
        """Use a fixed interval; 0 returns to the rule."""
        self._cadence = replace(self._cadence, interval_us=fixed_us)

    def heed(self, risk: Risk, *, at_us: int) -> None:
        """Take over what the scheduler knows now; what was lived through since then adds to it."""
        self._risk, self._posterior = risk, HazardPosterior.of(risk)
        self._believed_us = at_us
        self._reckoned = None

    def hurry(self) -> None:
        """An eviction is near: the next boundary is due, unless a save costs more than it saves."""
        self._hurried = True

    def restart_clock(self, at_us: int) -> None:
        """Count from now: the state is as saved."""
        self._snapshot_us = self._safe_us = self._tried_us = at_us

    def stepped(self, duration_us: int, *, uploading: bool) -> None:
        """Learn from a step that ran wholly with, or wholly without, an upload in flight."""
        (self._busy if uploading else self._quiet).append(duration_us)

    def began(self, at_us: int) -> None:
        """A snapshot was taken; it is in flight."""
        self._snapshot_us = self._tried_us = at_us
        self._hurried = False

    def succeeded(self, sample: SaveSample) -> None:
        """The save in flight is committed."""
        self._safe_us = self._snapshot_us
        self._failures = 0
        self._saves.append(sample)
        self._reckoned = None

    def failed(self, at_us: int) -> None:
        """The save in flight protects nothing: count from the last one that does."""
        self._snapshot_us = self._safe_us
        self._retry_us = at_us + (RETRY_US << min(self._failures, _MOST_DOUBLINGS))
        self._failures += 1

    # ------------------------------------------------------------------ what follows

    @property
    def automatic(self) -> bool:
        """Whether the rule decides, and no fixed interval."""
        return not self._cadence.interval_us

    def cadence(self, at_us: int) -> Cadence:
        """Give the rule's inputs as they are known now."""
        belief = self._posterior.lived(at_us - self._believed_us)
        return replace(
            self._cadence,
            hazard_ppb_per_s=belief.hazard_ppb_per_s,
            notice_ppm=self._notice_ppm(),
            cost_us=self._cost_us(),
            fee_usd_nanos=save_fee_usd_nanos(usual_new_bytes(self._saves), tariff=self._tariff),
            usd_nanos_per_hour=self._risk.usd_nanos_per_hour,
        )

    def interval_us(self, at_us: int) -> int:
        """Give the interval that holds now."""
        return interval_us(self.cadence(at_us))

    def is_due(self, at_us: int, *, steps_left: int | None = None) -> bool:
        """Say whether a save should start at this boundary."""
        if self._cadence.interval_us:
            return is_due(self._cadence, unsaved_us=at_us - self._tried_us)
        if self._failures and at_us < self._retry_us:
            return False
        unsaved_us = at_us - self._snapshot_us
        if unsaved_us < MIN_INTERVAL_US:
            return False
        known, due_us, step_us = self._reckon(at_us)
        if unsaved_us < due_us and not self._hurried:
            return False
        if self._hurried and is_urgent(known, unsaved_us=unsaved_us):
            return True
        rest_us = None if steps_left is None or step_us is None else steps_left * step_us
        return is_due(known, unsaved_us=unsaved_us, rest_us=rest_us)

    def expected_save_us(self) -> int | None:
        """Give the time that a fresh save takes, pessimistically; None while none was measured."""
        return expected_save_us(self._saves)

    def plan_drain(
        self, budget_us: int, *, in_flight_since_us: int | None, at_us: int
    ) -> DrainPlan:
        """Say what the budget is good for; see `notice_budget.plan_drain`."""
        return plan_drain(
            budget_us,
            expected_us=self.expected_save_us(),
            in_flight_us=self._still_us(in_flight_since_us, at_us),
        )

    def _still_us(self, since_us: int | None, at_us: int) -> int | None:
        if since_us is None:
            return None
        expected_us = expected_upload_us(self._saves) if self._saves else 0
        return max(0, since_us + expected_us - at_us)

    def _cost_us(self) -> int:
        if not self._saves:
            return self._cadence.cost_us
        share = interference_ppm(self._quiet, busy_us=self._busy)
        upload_us = usual_upload_us(self._saves)
        return save_cost_us(
            usual_stall_us(self._saves), upload_us=upload_us, interference_ppm=share
        )

    def _notice_ppm(self) -> int:
        if not self._risk.notice_ms:
            return 0
        fits = fit_ppm(
            self._saves, notice_us=self._risk.notice_ms * 1_000, boundary_us=self._step_us() or 0
        )
        return self._risk.noticed_ppm * fits // _PPM

    def _step_us(self) -> int | None:
        steps = [*self._quiet, *self._busy]
        return median_low(steps) if steps else None

    def _reckon(self, at_us: int) -> tuple[Cadence, int, int | None]:
        """Give the rule's inputs, its interval and the usual step, as of the last 0.2 s."""
        if not self._reckoned or not 0 <= at_us - self._reckoned[0] < RECKON_US:
            known = self.cadence(at_us)
            self._reckoned = at_us, known, interval_us(known), self._step_us()
        return self._reckoned[1:]
