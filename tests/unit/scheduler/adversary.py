"""One job against a hostile spot market, in a small loop of its own around ``decide``.

Spot comes and goes and kills at the worst moments; sure capacity is always there and boots in
exactly its boot time. A step is a millisecond of useful work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jobs.durations import US_PER_MS
from jobs.reasons import Reason
from jobs.rows import AttemptRow, JobRow, RestorePoint
from jobs.spec import Market
from jobs.states import AttemptState, JobState
from scheduler.decide import decide
from scheduler.snapshot import LiveAttempt, PolicySettings, Snapshot
from tests.unit.scheduler.worlds import an_offer

_FAR = 1 << 60


@dataclass(frozen=True)
class Fate:
    """What befalls a spot attempt.

    It boots ``lag_us`` longer than it should; it is taken so long after its ``since`` (the lease,
    its first step, the moment of its first save), after a notice of that length; and its saves
    may come to nothing.
    """

    since: Literal["lease", "train", "save"] = "lease"
    after_us: int = 0
    notice_us: int = 0
    lag_us: int = 0
    saves: bool = True


class Duel:
    """Runs a job to its end; ``finish_us`` is when that was."""

    def __init__(
        self,
        job: JobRow,
        flavors: Sequence,
        *,
        settings: PolicySettings,
        toggles: Sequence[int],
        fates: Sequence[Fate],
        shy_us: int | None = None,
    ) -> None:
        """Spot has room until the first toggle, then none, and so on.

        The n-th spot attempt has the n-th fate. With ``shy_us``, spot comes just so long before
        a waiting job would look again.
        """
        self.now_us = 0
        self.job = replace(job, total_steps=job.work_ms)
        self.flavors = {flavor.name: flavor for flavor in flavors}
        self.settings = settings
        self.toggles = list(toggles)
        self.fates = list(fates)
        self.fate = Fate()
        self.shy_us = shy_us
        self.attempt: AttemptRow | None = None
        self.dies_us = self.over_us = self.train_us = _FAR
        self.saved_ms = 0  # durable work
        self.begun_ms = 0  # durable work when the attempt began
        self.ticks = 0

    def play(self) -> int:
        """Give the instant at which all work is done."""
        while True:
            self.ticks += 1
            assert self.ticks < 5_000, "the loop makes no progress"
            plan = decide(self._snapshot())
            if plan.preempts:
                self._drain(self.now_us + plan.preempts[0].grace_ms * US_PER_MS)
                if self.attempt is None:
                    continue
            if plan.places:
                self._start(plan.places[0].flavor, plan.places[0].reason)
            if self.shy_us is not None and self.attempt is None and plan.wake_at_us:
                self.toggles.append(plan.wake_at_us - self.shy_us)
            due = [at for at in (plan.wake_at_us, *self._world()) if at and at > self.now_us]
            assert due, f"nothing will ever happen: {plan}"
            self._advance(min(due))
            if self.job.work_ms <= self._done_ms():
                return self.now_us

    def _snapshot(self) -> Snapshot:
        room = (1 - sum(at <= self.now_us for at in self.toggles) % 2) * 4
        offers = tuple(
            an_offer(flavor, room=room if flavor.market is Market.SPOT else 4)
            for flavor in self.flavors.values()
        )
        live = (LiveAttempt(job=self.job, attempt=self.attempt),) if self.attempt else ()
        return Snapshot(
            now_us=self.now_us,
            queued=() if live else (self.job,),
            live=live,
            nodes=(),
            offers=offers,
            settings=self.settings,
        )

    def _start(self, flavor: str, reason: Reason) -> None:
        chosen, spec = self.flavors[flavor], self.job.spec
        restore_ms = spec.restore if self.job.attempts else 0
        self.train_us = self.now_us + (chosen.boot_ms + spec.setup + restore_ms) * US_PER_MS
        self.begun_ms, self.over_us, self.dies_us = self.saved_ms, _FAR, _FAR
        self.fate = Fate()
        if chosen.market is Market.SPOT and self.fates:
            self._doom(self.fates.pop(0))
        net = self.job.on_safety_net or reason is Reason.SAFETY_NET
        number = self.job.attempts + 1
        self.job = replace(self.job, state=JobState.ADMITTED, attempts=number, on_safety_net=net)
        self.attempt = AttemptRow(
            id=f"{self.job.id}/{number}",
            job_id=self.job.id,
            number=number,
            state=AttemptState.LEASED,
            reason=reason,
            cluster="",
            flavor=flavor,
            node_ids=("n",),
            gpu_milli=1_000,
            lease_id="",
            created_us=self.now_us,
        )

    def _doom(self, fate: Fate) -> None:
        """Meet an attempt's fate; its first step is known already."""
        self.fate = fate
        self.train_us += fate.lag_us
        save_us = self.train_us + (self.job.spec.checkpoint_interval or 0) * US_PER_MS
        since = {"lease": self.now_us, "train": self.train_us, "save": save_us}[fate.since]
        self.dies_us = max(self.now_us, since + fate.after_us)
        self.over_us = self.dies_us + fate.notice_us

    def _drain(self, until_us: int) -> None:
        """The adversary uses the whole grace, and saves nothing in it."""
        assert self.attempt is not None
        boot_us = self.flavors[self.attempt.flavor].boot_ms * US_PER_MS + self.fate.lag_us
        if self.now_us < self.attempt.created_us + boot_us:
            self._end()  # it never started
            return
        self.attempt = replace(self.attempt, state=AttemptState.DRAINING, draining_us=self.now_us)
        self.over_us = min(self.over_us, until_us)

    def _world(self) -> list[int]:
        if self.attempt is None:
            return self.toggles
        finish_us = self.train_us + self._wall_us(self.job.work_ms - self.begun_ms)
        busy = self.attempt.state is not AttemptState.DRAINING or self._continuous
        return [
            *self.toggles,
            self.train_us,
            self.over_us,
            self.dies_us,
            *([finish_us, self._next_save_us()] if busy else []),
        ]

    @property
    def _continuous(self) -> bool:
        return self.job.spec.checkpoint_interval == 0

    def _wall_us(self, work_ms: int) -> int:
        """Wall time of so much work in this attempt, stops for saves included."""
        spec = self.job.spec
        stops = 0 if self._continuous else max(0, work_ms - 1) // (spec.checkpoint_interval or 1)
        return (work_ms + stops * spec.save) * US_PER_MS

    def _next_save_us(self) -> int:
        spec = self.job.spec
        if self._continuous:
            return _FAR
        each_us = ((spec.checkpoint_interval or 1) + spec.save) * US_PER_MS
        return self.train_us + (max(0, self.now_us - self.train_us) // each_us + 1) * each_us

    def _done_ms(self) -> int:
        """Work that is done, durable or not."""
        if self.attempt is None:
            return self.saved_ms
        stopped = self.attempt.draining_us if not self._continuous else None
        trained_us = max(0, (stopped or self.now_us) - self.train_us)
        spec = self.job.spec
        if self._continuous:
            return self.begun_ms + trained_us // US_PER_MS
        each = (spec.checkpoint_interval or 1) + spec.save
        whole, part = divmod(trained_us // US_PER_MS, each)
        work = whole * (spec.checkpoint_interval or 1) + min(part, spec.checkpoint_interval or 1)
        return self.begun_ms + work

    def _advance(self, to_us: int) -> None:
        self.now_us = to_us
        if self.attempt is None:
            return
        draining = self.attempt.state is AttemptState.DRAINING
        if self.now_us >= self.train_us and not draining:
            self.attempt = replace(
                self.attempt, state=AttemptState.TRAINING, training_us=self.train_us
            )
            self._commit()
        if self.now_us >= self.dies_us and not draining:
            self.attempt = replace(
                self.attempt, state=AttemptState.DRAINING, draining_us=self.now_us
            )
        if self.now_us >= self.over_us:
            self._end()

    def _commit(self) -> None:
        """Make durable what the last whole interval held."""
        if self._continuous or not self.fate.saves:
            return
        spec, number = self.job.spec, self.job.attempts
        each_us = ((spec.checkpoint_interval or 1) + spec.save) * US_PER_MS
        whole = (self.now_us - self.train_us) // each_us
        saved_ms = self.begun_ms + whole * (spec.checkpoint_interval or 1)
        if saved_ms > self.saved_ms:
            self.saved_ms = min(saved_ms, self.job.work_ms)
            self._point(number)

    def _point(self, number: int) -> None:
        point = RestorePoint(
            step=self.saved_ms,
            snapshot_us=self.now_us,
            committed_us=self.now_us,
            manifest="",
            epoch=number,
        )
        self.job = replace(self.job, restore_point=point)

    def _end(self) -> None:
        if self._continuous:
            self.saved_ms = min(self._done_ms(), self.job.work_ms)
            self._point(self.job.attempts)
        self.attempt = None
        self.job = replace(self.job, state=JobState.QUEUED, queued_us=self.now_us)
