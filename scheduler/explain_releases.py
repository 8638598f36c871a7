"""What would release a waiting job: one wish changed, and ``decide`` asked again.

Each release that needs no waiting was tried: with it, this very cycle starts the job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from jobs import spec as specs
from jobs.durations import US_PER_S, show_duration
from jobs.reasons import Reason
from jobs.rows import JobRow
from jobs.spec import NANOS_PER_USD
from scheduler.admission import obstacles
from scheduler.decide import decide
from scheduler.market import Market
from scheduler.needs import is_sure
from scheduler.plan import Place, Plan
from scheduler.sentences import show_instant, show_usd
from scheduler.snapshot import Snapshot
from scheduler.spot_policy import nominate
from scheduler.wishes import Wait

MOST_AHEAD = 200
"""So many of those ahead take part when a change is tried."""
_LATER_H = (1, 3, 6, 12, 24, 48)
_MOST_USD_CENTS = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Something that would let the job start."""

    what: str  # for people, with the money
    by: str  # "itself", "owner" or "operator"
    at_us: int | None = None  # when, where it happens by itself
    usd_nanos: int | None = None  # more than the cheapest way for the rest, or less (negative)
    flavor: str = ""  # where it would start


def releases(snapshot: Snapshot, row: JobRow, *, ahead: Sequence[JobRow]) -> Iterator[Release]:
    """Give what would release a waiting job, what needs nobody first."""
    if row.held:
        yield Release(what=f"its owner resumes it: `lowtide resume {row.id}`", by="owner")
        return
    trial = _Trial(snapshot, row, ahead)
    if not trial.market.allowed(row.spec):
        yield from _nearest(snapshot, row)
    else:
        yield from _by_itself(trial)
        yield from _by_money(trial)
        yield from _by_rank(trial)
    yield from _by_rules(trial)
    yield from _by_time(trial)


class _Trial:
    """The snapshot with this job alone behind those ahead of it."""

    def __init__(self, snapshot: Snapshot, row: JobRow, ahead: Sequence[JobRow]) -> None:
        self.snapshot, self.row, self.ahead = snapshot, row, ahead[:MOST_AHEAD]
        self.market = Market(snapshot)

    def plan(self, row: JobRow) -> Plan:
        """Ask what would be decided if the job were like this."""
        return decide(replace(self.snapshot, queued=(*self.ahead, row)))

    def place(self, row: JobRow) -> Place | None:
        """Give where the job would start now."""
        return next((one for one in self.plan(row).places if one.job_id == row.id), None)

    def asking(self, **wishes: object) -> JobRow:
        """Give the job with other wishes."""
        return replace(self.row, spec=self.row.spec.model_copy(update=wishes))

    def flat(self, row: JobRow, flavor: str) -> int:
        """Give what its rest costs on a flavor at the price of now."""
        choices = {choice.flavor.name: choice for choice in self.market.choices(row)}
        return self.market.flat_cost(row, choices[flavor], at_us=self.market.now_us)

    def least(self) -> int | None:
        """Give what its rest costs on the cheapest allowed flavor, with room or without."""
        costs = [
            self.market.flat_cost(self.row, choice, at_us=self.market.now_us)
            for choice in self.market.choices(self.row)
        ]
        return min(costs, default=None)

    def more(self, row: JobRow, flavor: str) -> int | None:
        """Give what a flavor costs more than the cheapest allowed one."""
        least = self.least()
        return None if least is None else self.flat(row, flavor) - least


_PLAIN = {
    Reason.NEW: "the next cycle, which looks at it",
    Reason.WAITS_FOR_JOB: "the end of the jobs that it comes after",
    Reason.WAITS_FOR_ARRAY: "the end of another element of its array",
    Reason.WAITS_FOR_TURN: "the start of those whose turn is before its own",
    Reason.WAITS_FOR_DEADLINES: "the end of jobs whose deadlines need the room, or more capacity",
    Reason.WAITS_FOR_BUDGET: "the next period of the budget that pays for it, or a higher limit",
    Reason.RETRY_AFTER_FAILURE: "the end of the pause before it is tried again",
    Reason.HEARTBEAT_LOST: "the end of the pause before it is tried again",
    Reason.OPERATOR: "the end of the pause before it is tried again",
}
"""What a job waits for when there is no more to say than that."""


def _by_itself(trial: _Trial) -> Iterator[Release]:
    """What the job waits for, and when it stops to wait for it."""
    row, market = trial.row, trial.market
    (answer,) = nominate([row], market=market)
    wait = answer if isinstance(answer, Wait) else answer.otherwise
    later = sorted(at_us for at_us in wait.wakes_us if at_us > market.now_us)
    nodes = f"{row.spec.nodes} node" + ("" if row.spec.nodes == 1 else "s")
    if row.reason is Reason.WAITS_FOR_SPOT:
        names = ", ".join(_names(trial, sure=False))
        yield Release(what=f"spot returning: {nodes} of {names}", by="itself")
        if later:
            text = f"its slack used up: it goes on-demand by {show_instant(later[-1])}"
            yield Release(what=text, by="itself", at_us=later[-1])
    elif row.reason is Reason.WAITS_FOR_WINDOW and later:
        text = f"the cheaper time beginning at {show_instant(later[0])}"
        yield Release(what=text, by="itself", at_us=later[0])
    elif row.reason is Reason.WAITS_FOR_CAPACITY:
        names = ", ".join((*_names(trial, sure=False), *_names(trial, sure=True)))
        yield Release(what=f"room for {nodes} on one of {names}", by="itself")
    elif row.reason is Reason.WAITS_FOR_BUDGET and row.spec.budget_usd is not None:
        return  # its own budget: the missing amount is said in money
    elif row.reason in _PLAIN:
        yield Release(what=_PLAIN[row.reason], by="itself")


def _names(trial: _Trial, *, sure: bool) -> list[str]:
    offers = trial.market.allowed(trial.row.spec)
    return [one.flavor.name for one in offers if is_sure(one.flavor) is sure]


def _by_money(trial: _Trial) -> Iterator[Release]:
    """A bigger budget, and sure capacity at once."""
    row = trial.row
    if row.reason is Reason.WAITS_FOR_BUDGET and row.spec.budget_usd is not None:
        cents = _missing_cents(trial)
        if cents is not None:
            more = cents * NANOS_PER_USD // 100
            yield Release(what=f"{show_usd(more)} more budget", by="owner", usd_nanos=more)
    sure = tuple(one for one in specs.Market if one is not specs.Market.SPOT)
    asked = trial.asking(markets=sure)
    if row.reason in {Reason.WAITS_FOR_SPOT, Reason.WAITS_FOR_WINDOW}:
        place = trial.place(replace(asked, deadline_us=None))
        if place is not None:
            more_nanos = trial.more(asked, place.flavor) or 0
            yield Release(
                what=f"starting on {place.flavor} at once (--market on-demand): "
                f"{show_usd(more_nanos)} more",
                by="owner",
                usd_nanos=more_nanos,
                flavor=place.flavor,
            )


def _missing_cents(trial: _Trial) -> int | None:
    """Give the least addition to its own budget with which it starts, in cents."""
    known = trial.row.spec.budget_usd or Decimal(0)

    def starts(cents: int) -> bool:
        return trial.place(trial.asking(budget_usd=known + Decimal(cents) / 100)) is not None

    low, high = 0, 1
    while high < _MOST_USD_CENTS and not starts(high):
        low, high = high, high * 4
    if high >= _MOST_USD_CENTS:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if starts(middle) else (middle, high)
    return high


def _by_rank(trial: _Trial) -> Iterator[Release]:
    """A higher priority, where others ahead are what it waits for."""
    if not trial.ahead or trial.row.reason is not Reason.WAITS_FOR_CAPACITY:
        return
    rank = max(job.spec.priority for job in trial.ahead) + 1
    place = trial.place(trial.asking(priority=min(rank, 1_000)))
    if place is not None:
        text = f"going before the others (--priority {min(rank, 1_000)})"
        yield Release(what=text, by="owner", flavor=place.flavor)


_RULES = ("regions", "accelerators", "markets")


def _by_rules(trial: _Trial) -> Iterator[Release]:
    """Each of its own rules given up."""
    for rule in _RULES:
        if not getattr(trial.row.spec, rule):
            continue
        asked = trial.asking(**{rule: ()})
        place = trial.place(asked)
        if place is None:
            continue
        more = trial.more(asked, place.flavor)
        flavor = trial.market.offers[place.flavor].flavor
        value = getattr(flavor, rule.removesuffix("s"))
        price = "" if more is None else f": {_more(more)}"
        yield Release(
            what=f"allowing {rule.removesuffix('s')} {value} ({place.flavor}){price}",
            by="owner",
            usd_nanos=more,
            flavor=place.flavor,
        )


def _more(usd_nanos: int) -> str:
    return f"{show_usd(abs(usd_nanos))} {'more' if usd_nanos >= 0 else 'less'}"


def _by_time(trial: _Trial) -> Iterator[Release]:
    """A later deadline, for one that is at risk or that would have to take dear capacity."""
    row = trial.row
    if row.deadline_us is None or row.reason is not Reason.WAITS_FOR_CAPACITY:
        return
    for hours in _LATER_H:
        later = replace(row, deadline_us=row.deadline_us + hours * 3_600 * US_PER_S)
        place = trial.place(later)
        if place is not None:
            by = show_duration(hours * 3_600_000)
            yield Release(what=f"a deadline {by} later", by="owner", flavor=place.flavor)
            return


def _nearest(snapshot: Snapshot, row: JobRow) -> Iterator[Release]:
    """The flavor that comes nearest, and what stands in the way."""
    found = [(obstacles(row.spec, offer), offer.flavor.name) for offer in snapshot.offers]
    if not found:
        yield Release(what="flavors being configured, or an agent that brings nodes", by="operator")
        return
    texts, name = min(found, key=lambda one: (len(one[0]), one[1]))
    yield Release(what=f"{name} comes nearest, but {' and '.join(texts)}", by="operator")
