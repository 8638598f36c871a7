"""The money of a cycle: what each budget still covers, at the price now and at the highest.

A hard budget binds by the CAP: the highest price that an attempt's node can have while it runs.
That is its list price, or the price of now or a known next one where that is higher. An attempt
gets its reservation at the cap, for as long as its worst finish takes or as its budgets cover; it
must have left when that ends. It costs less on most days, so money comes back while it runs and
the reservation is drawn out; but were the price to jump to the cap, no limit would be passed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cluster.offers import Offer
from jobs.budget import Action, Budget, Burn, Period, pays_for
from jobs.durations import US_PER_MS
from jobs.rows import AttemptRow, JobRow
from jobs.spec import JobSpec
from scheduler.budget_periods import open_until_us
from scheduler.budget_view import FOREVER_US, US_PER_HOUR, BudgetView, cost_of, own_row, reserved_of
from scheduler.market import Market
from scheduler.plan import Reservation
from scheduler.snapshot import PolicySettings, Snapshot

SLOP_MS = 2_000
"""Between the end of the grace and the end of the bill: the loop and the agent take their time."""
CUSHION_NANOS = 100_000
"""Kept back of every budget for roundings: a share of an entry may be a nano more than its part."""
_SEVERITY = {action: rank for rank, action in enumerate(Action)}


@dataclass(slots=True)
class Purse:
    """One budget during a cycle. Amounts shrink as starts take from it."""

    view: BudgetView
    now_us: int
    left: int  # of the present period
    next_left: int  # of the period after it, 0 where none follows
    expected: int = 0  # what running attempts come to in this period at the price of now
    pace: int = 0  # and what they cost an hour now
    claimed: int = 0  # kept for waiting jobs that go first
    next_claimed: int = 0
    claimant: str = ""  # the first of those jobs

    @property
    def terms(self) -> Budget:
        """What the budget says."""
        return self.view.row.terms

    @property
    def hard(self) -> bool:
        """Whether its limit and its hours bind what runs."""
        return self.terms.hard

    @property
    def is_short(self) -> bool:
        """Whether more is committed than the limit covers: it was lowered, or is new."""
        later = self.next_left if self.view.next_reserved_usd_nanos else 0
        return self.hard and min(self.left, later) < -CUSHION_NANOS

    @property
    def action(self) -> Action | None:
        """The severest action of the thresholds that were crossed."""
        crossed = [
            one.action
            for one in self.terms.thresholds
            if one.percent <= self.view.row.crossed_percent
        ]
        return max(crossed, key=_SEVERITY.__getitem__, default=None)

    def is_at(self, action: Action) -> bool:
        """Whether that action, or a severer one, is called for."""
        return self.action is not None and _SEVERITY[self.action] >= _SEVERITY[action]

    def reach_us(self, rate: int, *, claims: bool = True) -> int:
        """Give until when a rate (nano-dollars an hour) can be paid from now on, 0 without money.

        With ``claims``, what is kept for others is not touched.
        """
        if not self.hard:
            return FOREVER_US
        if not self._is_on():
            return 0
        open_us = open_until_us(self.terms, self.now_us)
        covered_us = self._covered_us(rate, claims=claims)
        return covered_us if open_us is None else min(covered_us, open_us)

    def _is_on(self) -> bool:
        row = self.view.row
        if row.terms.period is not Period.ONCE or row.until_us is None:
            return True
        return row.from_us <= self.now_us < row.until_us

    def _covered_us(self, rate: int, *, claims: bool) -> int:
        end_us = self.view.row.until_us
        money = self.left - (self.claimed if claims else 0)
        if money <= 0:
            return 0
        until_us = self.now_us + money * US_PER_HOUR // max(1, rate)
        if end_us is None or until_us < end_us:
            return until_us
        later = max(0, self.next_left - (self.next_claimed if claims else 0))
        # The period after the next one is not planned: a reservation ends with the next.
        span_us = end_us - self.view.row.from_us
        return end_us + min(later * US_PER_HOUR // max(1, rate), span_us)

    def take(self, rate: int, expected: int, *, until_us: int) -> None:
        """Reserve a rate until an instant, of which the price of now is ``expected``."""
        now, later = cost_of(rate, until_us=until_us, row=self.view.row, now_us=self.now_us)
        self.left -= now
        self.next_left -= later
        self.expected += cost_of(
            expected, until_us=until_us, row=self.view.row, now_us=self.now_us
        )[0]

    def give_back(self, attempt: AttemptRow) -> None:
        """Void what an attempt has reserved."""
        now, later = reserved_of(attempt, row=self.view.row, now_us=self.now_us)
        self.left += now
        self.next_left += later

    def claim(self, need: int, job_id: str) -> None:
        """Keep money for a job that waits: of this period if it can come in it, else of the next.

        Without this, later and smaller jobs could take every dollar before it is enough.
        """
        self.claimant = self.claimant or job_id
        if need <= self.left + self.view.reserved_usd_nanos or self.view.row.until_us is None:
            self.claimed += need
        else:
            self.next_claimed += min(need, self.terms.limit_usd_nanos)

    def ahead(self, need: int) -> int:
        """Give by how much a start that costs ``need`` would run ahead of an even burn."""
        row = self.view.row
        if self.terms.burn is not Burn.EVEN or row.until_us is None:
            return 0
        gone_us = min(self.now_us, row.until_us) - row.from_us
        accrued = row.limit_usd_nanos * gone_us // (row.until_us - row.from_us)
        allowed = accrued + row.limit_usd_nanos * self.terms.allowance_percent // 100
        whole = self.view.spent_usd_nanos + self.expected + self.claimed
        return max(0, whole + min(need, row.limit_usd_nanos) - allowed)

    def accrues_us(self, missing: int) -> int:
        """Give when so much more of an even burn will have accrued: at the period's end at last."""
        row = self.view.row
        assert row.until_us is not None, f"nothing accrues in {row.name}"
        span_us = row.until_us - row.from_us
        wait_us = -(-missing * span_us // max(1, row.limit_usd_nanos))
        return min(self.now_us + wait_us, row.until_us)


@dataclass(slots=True)
class Purses:
    """All budgets of a cycle, found by job."""

    now_us: int
    _all: list[Purse] = field(default_factory=list)
    _own: dict[str, Purse] = field(default_factory=dict)  # by job
    _known: dict[tuple[object, ...], tuple[Purse, ...]] = field(default_factory=dict)

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot, *, market: Market) -> Purses:
        """Open the purses, with what runs already taken out."""
        purses = cls(now_us=snapshot.now_us)
        for view in snapshot.budgets:
            purse = _open(view, now_us=snapshot.now_us)
            if view.row.source == "job":
                purses._own[dict(view.row.terms.owner)["job"]] = purse
            else:
                purses._all.append(purse)
        if purses._all or purses._own:
            for one in snapshot.live:
                purses._expect(one.job, one.attempt, market=market)
        return purses

    def _own_of(self, job: JobRow) -> Purse | None:
        if job.spec.budget_usd is None:
            return None
        row = None if job.id in self._own else own_row(job)
        if row is not None:  # nobody has said that anything was spent of it
            view = BudgetView(row=row, spent_usd_nanos=0)
            self._own[job.id] = _open(view, now_us=self.now_us)
        return self._own.get(job.id)

    def _expect(self, job: JobRow, attempt: AttemptRow, *, market: Market) -> None:
        offer = market.offers.get(attempt.flavor)
        if offer is None:
            return
        rate = rate_now(job.spec, offer)
        rest_us = job.remaining_ms(step=job.step) * US_PER_MS
        for purse in self.of(job):
            until_us = attempt.reserved_until_us or self.now_us + rest_us
            row = purse.view.row
            purse.pace += rate
            purse.expected += cost_of(rate, until_us=until_us, row=row, now_us=self.now_us)[0]

    @property
    def all(self) -> Iterable[Purse]:
        """The budgets that somebody set, in order of name."""
        return self._all

    def of(self, job: JobRow) -> tuple[Purse, ...]:
        """Give the purses that pay for a job, its own last."""
        own = self._own_of(job)
        if not self._all:
            return () if own is None else (own,)
        tagged = any(name == "job" for purse in self._all for name, _ in purse.terms.owner)
        key = (job.spec.team, *sorted(job.spec.tags.items()), job.id if tagged else "")
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = tuple(
                purse
                for purse in self._all
                if pays_for(purse.terms.owner, job_id=job.id, spec=job.spec)
            )
        return found if own is None else (*found, own)


def _open(view: BudgetView, *, now_us: int) -> Purse:
    follows = view.row.terms.period not in {Period.ONCE, Period.TOTAL}
    next_left = view.row.terms.limit_usd_nanos - view.next_reserved_usd_nanos if follows else 0
    return Purse(
        view=view,
        now_us=now_us,
        left=view.left_usd_nanos - CUSHION_NANOS,
        next_left=next_left - CUSHION_NANOS,
    )


def rate_now(spec: JobSpec, offer: Offer) -> int:
    """Give what a job costs an hour on a flavor at the price of now, nano-dollars, rounded up."""
    return _share(offer.usd_nanos_per_hour, spec, offer)


def rate_at_most(spec: JobSpec, offer: Offer) -> int:
    """Give what a job can cost an hour on a flavor: at its cap (see the module docstring)."""
    known = (price for _, price in offer.next_prices)
    cap = max(offer.list_usd_nanos_per_hour, offer.usd_nanos_per_hour, *known, 0)
    return _share(cap, spec, offer)


def _share(price: int, spec: JobSpec, offer: Offer) -> int:
    flavor = offer.flavor
    part, whole = (
        (spec.gpu_milli, flavor.gpu_milli) if flavor.gpu_milli else (spec.cpus, max(1, flavor.cpus))
    )
    return spec.nodes * -(-price * part // whole)


def grace_ms(spec: JobSpec, settings: PolicySettings) -> int:
    """Give how long an attempt may take to save when its money ends."""
    return max(settings.drain_grace_ms, spec.save)


def lead_us(spec: JobSpec, settings: PolicySettings) -> int:
    """Give how long before the end of its reservation an attempt must begin to leave."""
    return (grace_ms(spec, settings) + SLOP_MS + settings.margin_ms) * US_PER_MS


def reserve(
    mine: Iterable[Purse], spec: JobSpec, offer: Offer, *, until_us: int, again: bool = False
) -> Reservation | None:
    """Take a reservation from a job's purses; None where none of them is hard.

    With ``again`` it replaces another one, whose attempt is expected to cost what it costs.
    """
    listed = list(mine)
    rate = rate_at_most(spec, offer)
    for purse in listed:
        purse.take(rate, 0 if again else rate_now(spec, offer), until_us=until_us)
    if not any(purse.hard for purse in listed):
        return None
    return Reservation(usd_nanos_per_hour=rate, until_us=until_us)
