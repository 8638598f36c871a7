"""Why a job is as it is, and what would change that: the decision, asked again with one change.

The reason and the sentence are those of the job's row, which the last cycle wrote. What would
release a waiting job is found by asking ``decide`` about the same snapshot with one wish changed,
so that no advice is given that the next cycle would not follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cluster.offers import Offer
from jobs.durations import US_PER_MS
from jobs.reasons import HELP, Reason
from jobs.rows import AttemptRow, JobRow
from jobs.states import JobState
from scheduler.admission import obstacles
from scheduler.explain_moves import next_move
from scheduler.explain_releases import Release, releases
from scheduler.market import MS_PER_HOUR, Choice, Market
from scheduler.needs import is_sure
from scheduler.placement import Pools
from scheduler.snapshot import Snapshot
from scheduler.spot_policy import case_of
from scheduler.wishes import Case

SHOWN_AHEAD = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A flavor as the job sees it now. Amounts are of the job's rest, nano-dollars."""

    flavor: str
    allowed: bool
    obstacles: tuple[str, ...]  # why it is not
    room: bool  # for the whole gang, before those ahead took theirs
    usd_nanos_per_hour: int  # of a node
    cost_usd_nanos: int | None = None  # of the rest from now on, expected evictions included
    effective_usd_nanos_per_hour: int | None = None  # of useful work
    latest_start_us: int | None = None
    cheaper_from_us: int | None = None  # the cheapest later start whose price is known
    cheaper_usd_nanos: int | None = None  # what it would cost then


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything that ``lowtide explain`` says."""

    id: str
    at_us: int  # when the scheduler looked
    state: JobState
    reason: Reason
    help: str
    sentence: str
    deadline_us: int | None
    latest_start_us: int | None  # on sure capacity
    slack_ms: int | None  # until then
    ahead: int  # jobs that go before it
    ahead_ids: tuple[str, ...]  # the first of them, in order
    next: str  # what will happen, "" when nothing more
    alternatives: tuple[Alternative, ...]
    releases: tuple[Release, ...]


def explain(snapshot: Snapshot, row: JobRow, *, attempts: Iterable[AttemptRow] = ()) -> Explanation:
    """Explain a job from what the last cycle saw.

    Args:
        snapshot: what that cycle saw.
        row: the job as it is now.
        attempts: its attempts.
    """
    market, waits = Market(snapshot), row.state is JobState.QUEUED
    case = None if row.ended else case_of(row, market=market)
    latest_us = case.latest_us if case is not None and waits else None
    ahead = _ahead(snapshot, row) if waits else []
    return Explanation(
        id=row.id,
        at_us=snapshot.now_us,
        state=row.state,
        reason=row.reason,
        help=HELP[row.reason],
        sentence=row.sentence,
        deadline_us=row.deadline_us,
        latest_start_us=latest_us,
        slack_ms=None if latest_us is None else (latest_us - snapshot.now_us) // US_PER_MS,
        ahead=len(ahead),
        ahead_ids=tuple(job.id for job in ahead[:SHOWN_AHEAD]),
        next=next_move(row, tuple(attempts), market=market),
        alternatives=() if case is None else tuple(_alternatives(snapshot, case)),
        releases=tuple(releases(snapshot, row, ahead=ahead)) if waits else (),
    )


def _ahead(snapshot: Snapshot, row: JobRow) -> list[JobRow]:
    """Give who goes before it among those that wait: by priority, then by age."""
    mine = (-row.spec.priority, row.submitted_us, row.id)
    others = ((-job.spec.priority, job.submitted_us, job.id, job) for job in snapshot.queued)
    return [
        one[3]
        for one in sorted(others, key=lambda one: one[:3])
        if one[:3] < mine and not one[3].held and not one[3].cancel_requested
    ]


def _alternatives(snapshot: Snapshot, case: Case) -> Iterator[Alternative]:
    choices = {choice.flavor.name: choice for choice in (*case.all_spots, *case.sures)}
    pools = Pools(snapshot)
    found = [
        _alternative(offer, choices.get(offer.flavor.name), case, pools=pools)
        for offer in snapshot.offers
    ]
    yield from sorted(found, key=lambda one: (not one.allowed, one.cost_usd_nanos or 0, one.flavor))


def _alternative(offer: Offer, choice: Choice | None, case: Case, *, pools: Pools) -> Alternative:
    spec, price = case.job.spec, offer.usd_nanos_per_hour
    if choice is None:
        return Alternative(
            flavor=offer.flavor.name,
            allowed=False,
            obstacles=tuple(obstacles(spec, offer)),
            room=False,
            usd_nanos_per_hour=price,
        )
    work_ms = case.job.remaining_ms() or MS_PER_HOUR
    last_us = case.latest_us if is_sure(offer.flavor) else case.last_us(choice)
    later = None
    if last_us is not None:
        later = case.market.best_start(case.job, choice, before_us=last_us)
    cheaper = later if later is not None and later[0] < choice.cost_nanos else None
    return Alternative(
        flavor=offer.flavor.name,
        allowed=True,
        obstacles=(),
        room=pools.cost(choice, spec) is not None,
        usd_nanos_per_hour=price,
        cost_usd_nanos=choice.cost_nanos,
        effective_usd_nanos_per_hour=choice.cost_nanos * MS_PER_HOUR // work_ms,
        latest_start_us=last_us,
        cheaper_from_us=None if cheaper is None else cheaper[1],
        cheaper_usd_nanos=None if cheaper is None else cheaper[0],
    )
