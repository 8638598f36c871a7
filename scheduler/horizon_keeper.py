"""When the plan ahead is worked out again: by the controller's clock, or when much has changed.

Between two solutions the last one holds. What counts as a change: a job came or went, a price or
the limit of a flavor moved. A solution that a limit cut off is dropped and the last one holds on
until it is stale; then there is none, and each job is decided for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from jobs.durations import US_PER_MS
from scheduler.horizon import Horizon
from scheduler.horizon_forecast import forecast, read
from scheduler.horizon_inflow import Arrivals
from scheduler.horizon_model import Program, Solution
from scheduler.snapshot import Snapshot
from scheduler.spot_policy import POLICIES

ITERATIONS = 200_000
"""Steps of the simplex method until a plan is given up: some seconds."""
_STALE = 6  # periods after which an old plan says nothing any more

Solver = Callable[[Program], Solution | None]
"""None = cut off by a limit, or no plan at all."""


def highs(*, wall_s: float | None = None) -> Solver:
    """Give the solver with its limits: of steps, and of seconds where a server must go on."""

    def solver(program: Program) -> Solution | None:
        from scheduler import horizon_solver  # noqa: PLC0415 - the library is loaded on demand

        try:
            return horizon_solver.solve(program, iterations=ITERATIONS, wall_s=wall_s)
        except horizon_solver.SolverLimitError:
            return None

    return solver


@dataclass(slots=True)
class HorizonKeeper:
    """Holds the last plan ahead of one controller."""

    solver: Solver = field(default_factory=highs)
    _last: Horizon | None = None
    _seen: object = None
    _tried_us: int | None = None
    _arrivals: Arrivals = field(default_factory=Arrivals)

    def into(self, snapshot: Snapshot) -> Snapshot:
        """Put the plan ahead into a snapshot, worked out again where that is due."""
        settings = snapshot.settings
        if not settings.horizon_ms or not POLICIES[settings.name].plans_ahead:
            return snapshot
        every_us = settings.horizon_ms * US_PER_MS
        seen = _signature(snapshot)
        if self._is_due(snapshot.now_us, seen, every_us=every_us):
            self._seen, self._tried_us = seen, snapshot.now_us
            self._last = self._renewed(snapshot, every_us=every_us)
        return replace(snapshot, horizon=self._last)

    def _is_due(self, now_us: int, seen: object, *, every_us: int) -> bool:
        if self._tried_us is None or now_us >= self._tried_us + every_us:
            return True
        return seen != self._seen and now_us > self._tried_us

    def _renewed(self, snapshot: Snapshot, *, every_us: int) -> Horizon | None:
        now_us, last = snapshot.now_us, self._last
        self._arrivals.note(snapshot.queued)
        given = forecast(snapshot, inflow=self._arrivals.rate(now_us))
        if given is None:
            return None
        found = self.solver(given.program)
        if found is not None:
            return read(given, found, again_us=now_us + every_us)
        if last is None or last.at_us + _STALE * every_us < now_us:
            return None
        return replace(last, again_us=now_us + every_us)


def _signature(snapshot: Snapshot) -> object:
    return (
        tuple((one.flavor.name, one.usd_nanos_per_hour, one.limit) for one in snapshot.offers),
        tuple(sorted(job.id for job in snapshot.queued if job.deadline_us is not None)),
        tuple(sorted(live.job.id for live in snapshot.live)),
    )
