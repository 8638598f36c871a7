"""One future of a job, from its submission to its end, by the very ``decide`` that will run it.

Only the world is imagined: spot comes and goes as the sky says, nodes boot, training goes on, saves
and restores take their time. What the job does in it is asked of ``decide``, with a snapshot that
holds this job alone and the room that others leave it. So a quote follows the policy, whatever the
policy comes to be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from jobs.durations import US_PER_MS
from jobs.reasons import Reason
from scheduler.decide import decide
from scheduler.market import shared
from scheduler.needs import is_sure
from scheduler.plan import Place, Plan
from scheduler.quote_attempt import Try, begin, requeued, running, saved
from scheduler.quote_sky import FOREVER_US, Sky
from scheduler.quote_stage import Stage
from scheduler.snapshot import LiveAttempt

MOST_DECISIONS = 4_000
"""A future that asks more often than this is given up as one without an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the job; None = it never came to that before the horizon."""

    start_us: int | None
    finish_us: int | None
    cost_nanos: int
    evictions: int
    decisions: int
    flavor: str  # of the first attempt, "" without one
    reason: Reason  # the last that was given


class Walk:
    """Follows one job through one sky; ``run`` gives what became of it."""

    def __init__(self, stage: Stage, sky: Sky) -> None:
        """Stand at the submission."""
        self._stage, self._sky, self._throng = stage, sky, stage.throng(sky)
        self._job = stage.job
        self._at_us = stage.now_us
        self._cost_nanos = self._decisions = 0
        self._start_us: int | None = None
        self._flavor = ""

    def run(self) -> Outcome:
        """Go on until the job is done or the horizon is reached."""
        done = False
        while not done and self._goes_on():
            plan = self._decide(None)
            if plan.places:
                done = self._attempt(plan.places[0], plan)
            else:
                self._note(plan)
                self._at_us = self._next_us(plan)
        return Outcome(
            start_us=self._start_us,
            finish_us=self._at_us if done else None,
            cost_nanos=self._cost_nanos,
            evictions=self._job.evictions,
            decisions=self._decisions,
            flavor=self._flavor,
            reason=self._job.reason,
        )

    def _goes_on(self) -> bool:
        return self._at_us < self._stage.horizon_us and self._decisions < MOST_DECISIONS

    # -- asking ---------------------------------------------------------------------------

    def _decide(self, one: Try | None) -> Plan:
        self._decisions += 1
        mine = self._stage.takes(one.row.flavor) if one else {}
        view = self._stage.view(self._sky, self._throng, self._at_us, mine=mine)
        if one is None:
            return decide(replace(view, queued=(self._job,)))
        if not one.continuous:
            self._job = saved(self._job, one.saved_ms(self._at_us), at_us=self._at_us)
        live = LiveAttempt(job=self._job, attempt=one.seen(self._at_us))
        return decide(replace(view, live=(live,)))

    def _note(self, plan: Plan) -> None:
        for defer in plan.defers:
            self._job = replace(self._job, reason=defer.reason, sentence=defer.sentence)

    def _next_us(self, plan: Plan) -> int:
        """Give when the answer may be another: the plan's wake, spot, or the others."""
        due = (
            plan.wake_at_us,
            self._throng.next_us(),
            self._flip_us(),
            self._stage.horizon_us,
        )
        return max(self._at_us + US_PER_MS, min(at for at in due if at is not None))

    def _flip_us(self) -> int:
        flips = (self._sky.until_us(name, self._at_us) for name in self._stage.spots)
        return min(flips, default=FOREVER_US)

    # -- an attempt -----------------------------------------------------------------------

    def _attempt(self, place: Place, plan: Plan) -> bool:
        """Live through an attempt; whether the job is done after it."""
        one = self._begin(place)
        while True:
            self._at_us = max(self._at_us + 1, self._due_us(one, plan))
            if self._at_us >= min(one.ends_us, self._stage.horizon_us):
                return self._finish(one)
            if self._at_us >= one.dies_us:
                return self._die(one)
            plan = self._decide(one)
            if plan.preempts:
                return self._leave(one, plan.preempts[0].reason)

    def _begin(self, place: Place) -> Try:
        flavor = self._stage.flavor(place.flavor)
        if self._start_us is None:
            self._start_us, self._flavor = self._at_us, flavor.name
        sure = is_sure(flavor)
        dies_us = FOREVER_US if sure else self._sky.until_us(flavor.name, self._at_us)
        one = begin(self._job, place, flavor, at_us=self._at_us, dies_us=dies_us)
        self._job = running(self._job, place)
        return one

    def _due_us(self, one: Try, plan: Plan) -> int:
        """Give when something happens next; on sure capacity a change of spot counts as well."""
        dues = [one.ends_us, one.dies_us, self._stage.horizon_us]
        if plan.wake_at_us is not None:
            dues.append(plan.wake_at_us)
        if not self._job.on_safety_net and one.dies_us == FOREVER_US:
            dues.append(self._flip_us())
        if self._at_us < one.trains_us and self._stage.planned and not self._quiet(one):
            dues.append(one.trains_us)
        return min(dues)

    def _quiet(self, one: Try) -> bool:
        """Whether its first step changes nothing: it is always saved, and on spot."""
        return self._job.spec.checkpoint_interval == 0 and one.dies_us < FOREVER_US

    def _finish(self, one: Try) -> bool:
        self._at_us = min(one.ends_us, self._stage.horizon_us)
        self._pay(one)
        return self._at_us >= one.ends_us

    def _die(self, one: Try) -> bool:
        """The cloud takes a node: what the notice lets it save is saved."""
        notice_us, save_ms = self._stage.notice_us(one.row.flavor), self._job.spec.save
        self._at_us = one.dies_us
        if one.continuous:
            self._at_us = min(one.dies_us + notice_us, one.ends_us)
            if self._at_us >= one.ends_us:
                return self._finish(one)
            kept_ms = one.done_ms(self._at_us)
        else:
            in_time = 0 < save_ms * US_PER_MS <= notice_us
            kept_ms = one.done_ms(self._at_us) if in_time else one.saved_ms(self._at_us)
            self._at_us += min(notice_us, save_ms * US_PER_MS)
        self._requeue(one, kept_ms, Reason.EVICTED)
        return False

    def _leave(self, one: Try, reason: Reason) -> bool:
        """We take it back: it saves within the grace that it is given."""
        kept_ms, save_ms = one.done_ms(self._at_us), self._job.spec.save
        if not one.continuous:
            fits = save_ms <= self._stage.grace_ms
            kept_ms = kept_ms if fits else one.saved_ms(self._at_us)
            self._at_us += min(save_ms, self._stage.grace_ms) * US_PER_MS
        self._requeue(one, kept_ms, reason)
        return False

    def _requeue(self, one: Try, kept_ms: int, reason: Reason) -> None:
        self._pay(one)
        self._job = saved(self._job, kept_ms, at_us=self._at_us)
        self._job = requeued(self._job, reason, at_us=self._at_us)
        self._at_us += US_PER_MS

    def _pay(self, one: Try) -> None:
        spec, flavor = self._job.spec, self._stage.flavor(one.row.flavor)
        node = self._stage.cost(flavor.name, one.row.created_us, self._at_us)
        self._cost_nanos += shared(node * spec.nodes, spec=spec, flavor=flavor)
