"""When the plan ahead is worked out again: by the controller's clock, or when much has changed.

Between two solutions the last one holds. What counts as a change: a job came, started or ended,
the limit of a flavor moved, or its price by more than a little. A solution that a limit cut off
is dropped and the last one holds on until it is stale; then there is none, and each job is decided
for itself.
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
_MOVED_PERMILLE = 20
"""A price that moved by more than this part is another price."""
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
    _seen: _Seen | None = None
    _tried_us: int = 0
    _arrivals: Arrivals = field(default_factory=Arrivals)

    def into(self, snapshot: Snapshot) -> Snapshot:
        """Put the plan ahead into a snapshot, worked out again where that is due."""
        settings = snapshot.settings
        if not settings.horizon_ms or not POLICIES[settings.name].plans_ahead:
            return snapshot
        every_us = settings.horizon_ms * US_PER_MS
        seen = _Seen.of(snapshot)
        if self._is_due(snapshot.now_us, seen, every_us=every_us):
            self._seen, self._tried_us = seen, snapshot.now_us
            self._last = self._renewed(snapshot, every_us=every_us)
        return replace(snapshot, horizon=self._last)

    def _is_due(self, now_us: int, seen: _Seen, *, every_us: int) -> bool:
        if self._seen is None or now_us >= self._tried_us + every_us:
            return True
        return now_us > self._tried_us and self._seen.changed_much(seen)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the last plan rested on."""

    queued: tuple[str, ...]
    live: tuple[str, ...]
    limits: tuple[tuple[str, int], ...]
    prices: tuple[int, ...]

    @classmethod
    def of(cls, snapshot: Snapshot) -> _Seen:
        """Note it."""
        queued = (job.id for job in snapshot.queued if job.deadline_us is not None)
        return cls(
            queued=tuple(sorted(queued)),
            live=tuple(sorted(one.attempt.id for one in snapshot.live)),
            limits=tuple((offer.flavor.name, offer.limit) for offer in snapshot.offers),
            prices=tuple(offer.usd_nanos_per_hour for offer in snapshot.offers),
        )

    def changed_much(self, now: _Seen) -> bool:
        """Whether what is now makes another plan likely."""
        return (
            (now.queued, now.live) != (self.queued, self.live)
            or now.limits != self.limits
            or any(
                abs(new - old) * 1_000 > old * _MOVED_PERMILLE
                for new, old in zip(now.prices, self.prices, strict=True)
            )
        )
