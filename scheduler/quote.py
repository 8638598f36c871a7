"""What a job will cost, when it will start and end, and how sure that is, before a cent is spent.

The futures of a job are followed one by one through ``decide`` (``scheduler.quote_walk``); a quote
is what they came to. Pure: the same snapshot and spec give the same quote.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from jobs.durations import US_PER_MS
from jobs.quotes import Quote, Quoted, QuotedWay
from jobs.spec import JobSpec
from scheduler.admission import check_admissible
from scheduler.market import MS_PER_HOUR, Market
from scheduler.needs import is_sure, overhead_ms, with_stalls_ms
from scheduler.quote_draws import key_of
from scheduler.quote_sky import Sky
from scheduler.quote_stage import Stage, newcomer
from scheduler.quote_walk import Outcome, Walk
from scheduler.quote_words import notes
from scheduler.snapshot import PolicySettings, Snapshot
from scheduler.survival import US_PER_HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How many futures are looked at: fewer where each takes many decisions, or dear ones.

    A decision gets dearer with the flavors that it chooses among, so ``decisions`` is how many
    there would be if there were but one.
    """

    futures: int
    fewest: int
    decisions: int


THOROUGH = Effort(futures=64, fewest=20, decisions=3_200)
ROUGH = Effort(futures=20, fewest=10, decisions=900)
"""For the other ways to ask: they see the same futures, so their differences are less rough."""
STRETCHES = (1.1, 1.25, 1.5, 2.0, 3.0)
"""Deadline choices: multiples of the time to the earliest finish on sure capacity."""
OURS = PolicySettings().name
_LONGEST_US = 60 * 24 * US_PER_HOUR


def quote(snapshot: Snapshot, spec: JobSpec, *, others: bool = True) -> Quote:
    """Quote a spec; ``others`` asks for the other ways and the cost-deadline curve too.

    Without a work estimate it is a quote for one hour of work.

    Raises:
        InfeasibleError: no flavor could ever hold it, or its deadline cannot be met.
    """
    check_admissible(
        spec,
        submitted_us=snapshot.now_us,
        offers=snapshot.offers,
        now_us=snapshot.now_us,
        settings=snapshot.settings,
    )
    asked = _alone(spec)
    outcomes, stage = _outcomes(snapshot, asked, effort=THOROUGH)
    quoted = _quoted(outcomes, snapshot, stage, per_hour=not spec.work)
    return Quote(
        name=spec.label,
        deadline_us=spec.deadline_us(submitted_us=snapshot.now_us),
        budget_usd_nanos=spec.budget_nanos,
        quoted=quoted,
        starts_permille=_starts(outcomes),
        evictions_permille=1_000 * sum(one.evictions for one in outcomes) // len(outcomes),
        ahead=len(stage.crowd.ahead),
        notes=tuple(notes(spec, quoted, stuck=outcomes[-1].reason)),
        ways=_ways(snapshot, asked) if others else (),
        curve=_curve(snapshot, asked, own=quoted) if others and spec.work else (),
    )


def earliest_finish_us(snapshot: Snapshot, spec: JobSpec) -> int:
    """Give when the job could be done on the quickest sure capacity (any, where there is none)."""
    offers = Market(snapshot).allowed(spec)
    sure = [one.flavor for one in offers if is_sure(one.flavor)] or [one.flavor for one in offers]
    job = newcomer(spec, now_us=snapshot.now_us)
    boot_ms = min(overhead_ms(job, flavor, restores=False) for flavor in sure)
    return snapshot.now_us + (boot_ms + with_stalls_ms(spec, job.work_ms)) * US_PER_MS


def percentile(values: Iterable[int | None], permille: int) -> int | None:
    """Give an order statistic, between neighbours by rank (n + 1) p; None counts as infinite."""
    known = list(values)
    finite = sorted(value for value in known if value is not None)
    ranked = (*finite, *[None] * (len(known) - len(finite)))
    place = min(max((len(known) + 1) * permille, 1_000), len(known) * 1_000)
    low, part = divmod(place, 1_000)
    first, second = ranked[low - 1], ranked[min(low, len(known) - 1)]
    if first is None or (second is None and part):
        return None
    return first + (0 if second is None else (second - first) * part // 1_000)


def _alone(spec: JobSpec) -> JobSpec:
    """Give one job of it that waits for nobody; for an hour of work where none is estimated."""
    given: dict[str, object] = {"after": (), "array": None, "max_parallel": None}
    if not spec.work:
        given |= {"work": MS_PER_HOUR, "deadline": None}
    return spec.model_copy(update=given)


def _outcomes(
    snapshot: Snapshot, spec: JobSpec, *, effort: Effort, span_us: int = 0
) -> tuple[Sequence[Outcome], Stage]:
    """Follow so many futures, or fewer where each takes many decisions."""
    stage = Stage(snapshot, spec, horizon_us=_horizon_us(snapshot, spec), span_us=span_us)
    # Without the deadline: all choices of it see the same futures.
    key = key_of(snapshot.now_us, spec.nodes, spec.work, spec.label)
    outcomes: list[Outcome] = []
    asked, most = 0, effort.decisions // (1 + len(stage.offers))
    while len(outcomes) < effort.futures and (len(outcomes) < effort.fewest or asked < most):
        sky = Sky.over(
            stage.offers,
            nodes=spec.nodes,
            now_us=snapshot.now_us,
            key=key,
            index=len(outcomes),
        )
        outcomes.append(Walk(stage, sky).run())
        asked += outcomes[-1].decisions
    return outcomes, stage


def _horizon_us(snapshot: Snapshot, spec: JobSpec) -> int:
    now_us, work_us = snapshot.now_us, (spec.work or 0) * US_PER_MS
    deadline_us = spec.deadline_us(submitted_us=now_us)
    if deadline_us is None:
        return now_us + max(_LONGEST_US, 4 * work_us)
    return deadline_us + max(deadline_us - now_us, 2 * work_us)


def _quoted(
    outcomes: Sequence[Outcome], snapshot: Snapshot, stage: Stage, *, per_hour: bool
) -> Quoted:
    costs = [None if one.finish_us is None else one.cost_nanos for one in outcomes]
    starts = [one.start_us for one in outcomes]
    ends = [one.finish_us for one in outcomes]
    deadline_us = stage.job.deadline_us
    missed = [end is None or end > deadline_us for end in ends] if deadline_us is not None else []
    return Quoted(
        at_us=snapshot.now_us,
        policy=snapshot.settings.name,
        futures=len(outcomes),
        cost_p50_usd_nanos=percentile(costs, 500),
        cost_p95_usd_nanos=percentile(costs, 950),
        start_p50_us=percentile(starts, 500),
        start_p95_us=percentile(starts, 950),
        finish_p50_us=percentile(ends, 500),
        finish_p95_us=percentile(ends, 950),
        miss_permille=1_000 * sum(missed) // len(outcomes),
        per_hour=per_hour,
    )


def _starts(outcomes: Sequence[Outcome]) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = {}
    for one in outcomes:
        counts[one.flavor] = counts.get(one.flavor, 0) + 1
    shares = ((name, 1_000 * count // len(outcomes)) for name, count in counts.items() if name)
    return tuple(sorted(shares, key=lambda pair: (-pair[1], pair[0])))


def _ways(snapshot: Snapshot, spec: JobSpec) -> tuple[QuotedWay, ...]:
    """Quote a start at once, and sure capacity alone."""
    found = []
    for name, policy in (("start now", "spot-now"), ("on-demand now", "on-demand")):
        settings = replace(snapshot.settings, name=policy)
        found.append(_way(name, replace(snapshot, settings=settings), spec))
    return tuple(found)


def _curve(snapshot: Snapshot, spec: JobSpec, *, own: Quoted) -> tuple[QuotedWay, ...]:
    """Quote other deadlines, the asked one (its ``own`` quote) among them, and none at all."""
    now_us = snapshot.now_us
    soonest_us = earliest_finish_us(snapshot, spec) - now_us
    mine_us = spec.deadline_us(submitted_us=now_us)
    spans = {round(stretch * soonest_us) for stretch in STRETCHES}
    found = [] if mine_us is None else [QuotedWay(name="yours", deadline_us=mine_us, quoted=own)]
    for span_us in sorted(spans - {(mine_us or 0) - now_us}):
        given = spec.model_copy(update={"deadline": span_us // US_PER_MS})
        shared_us = _shared_span_us(snapshot, soonest_us)
        found.append(_way("deadline", snapshot, given, span_us=shared_us))
    found.sort(key=lambda way: way.deadline_us or 0)
    if mine_us is None:
        return (*found, QuotedWay(name="yours", deadline_us=None, quoted=own))
    return (*found, _way("no deadline", snapshot, spec.model_copy(update={"deadline": None})))


def _shared_span_us(snapshot: Snapshot, soonest_us: int) -> int:
    """Give a span that lets the deadlines up to twice the earliest share the policy's tables."""
    return 2 * soonest_us if snapshot.settings.name == OURS else 0


def _way(name: str, snapshot: Snapshot, spec: JobSpec, *, span_us: int = 0) -> QuotedWay:
    outcomes, stage = _outcomes(snapshot, spec, effort=ROUGH, span_us=span_us)
    quoted = _quoted(outcomes, snapshot, stage, per_hour=False)
    return QuotedWay(name=name, deadline_us=stage.job.deadline_us, quoted=quoted)
