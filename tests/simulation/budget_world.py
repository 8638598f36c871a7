"""Worlds of jobs, price jumps and evictions under budgets, and an independent sum of their money.

``Witness`` plays a world tick by tick and adds the money up from the ledger's entries and the
journal's reservations alone; it asks no code of the scheduler what was spent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.budget import Budget
from jobs.budget_events import MoneyReserved
from jobs.events import AttemptEnded
from jobs.ledger.entries import EntryKind
from jobs.spec import JobSpec, Market
from scheduler.scenario import Arrival, Capacity, Scenario
from scheduler.simulation import Result, Simulation
from scheduler.snapshot import PolicySettings

S = 1_000_000
HOUR = 3_600 * S
DAY = 24 * HOUR
USD = 1_000_000_000
START = 1_767_225_600 * S  # 2026-01-01T00:00Z
LIST_USD = 4


def flavor(name: str, market: Market, *, usd: int, nodes: int, boot_s: int = 120) -> Flavor:
    """Give a flavor of two GPUs a node, 4 $ an hour on demand."""
    return Flavor(
        name=name,
        cluster="east",
        market=market,
        accelerator="V100",
        region="east",
        zone="east-1",
        gpu_milli=2_000,
        cpus=64,
        max_nodes=nodes,
        usd_nanos_per_hour=usd * USD,
        list_usd_nanos_per_hour=LIST_USD * USD,
        boot_ms=boot_s * 1_000,
        notice_ms=30_000,
        idle_release_ms=60_000,
    )


def series(values: Sequence[int], *, step_us: int) -> StepSeries:
    """Give steps of equal length from the beginning on."""
    return StepSeries.regular(list(values), start_us=START, step_us=step_us)


def world(
    jobs: Iterable[tuple[int, JobSpec]],
    *,
    budgets: Sequence[Budget] = (),
    prices_usd: Sequence[float] = (1,),
    spot_nodes: Sequence[int] = (3,),
    sure_nodes: int = 2,
    step_us: int = HOUR,
    days: int = 8,
) -> Scenario:
    """Give a scenario of one spot and one on-demand flavor; a price is at most the list price."""
    spot = flavor("spot-a", Market.SPOT, usd=1, nodes=max(spot_nodes))
    sure = flavor("sure", Market.ON_DEMAND, usd=LIST_USD, nodes=sure_nodes)
    arrivals = [Arrival(at_us=START + at_us, spec=spec) for at_us, spec in jobs]
    return Scenario(
        start_us=START,
        end_us=START + days * DAY,
        capacities=(
            Capacity(
                flavor=spot,
                limits=series(spot_nodes, step_us=step_us),
                prices=series([round(usd * USD) for usd in prices_usd], step_us=step_us),
            ),
            Capacity(flavor=sure, limits=series([sure_nodes], step_us=step_us)),
        ),
        arrivals=tuple(sorted(arrivals, key=lambda one: one.at_us)),
        budgets=tuple(budgets),
    )


@dataclass
class Witness:
    """Adds up what the jobs of an owner cost, without a look at the scheduler's own sums."""

    pieces: list[tuple[int, int, int]] = field(default_factory=list)  # start, end, nano-dollars
    reserved: dict[str, tuple[int, int]] = field(default_factory=dict)  # attempt -> rate, until
    most: dict[int, int] = field(default_factory=dict)  # period -> most spent + reserved

    def spent(self, from_us: int, until_us: int) -> int:
        """Give the money of a stretch of time."""
        return sum(
            nanos * (min(end, until_us) - max(start, from_us)) // (end - start)
            for start, end, nanos in self.pieces
            if start < until_us and end > from_us
        )

    def committed(self, from_us: int, until_us: int, at_us: int) -> int:
        """Give what is spent in a period so far and may still be."""
        open_money = sum(
            rate * max(0, min(until, until_us) - at_us) // HOUR
            for rate, until in self.reserved.values()
        )
        return self.spent(from_us, min(at_us, until_us)) + open_money


def play(
    scenario: Scenario, *, settings: PolicySettings | None = None
) -> tuple[Result, Simulation]:
    """Play a scenario to its end."""
    simulation = Simulation(scenario, settings=settings or PolicySettings(margin_percent=0))
    return simulation.run(), simulation


def witness_of(
    result: Result, job_ids: Iterable[str], *, periods: Sequence[tuple[int, int]]
) -> Witness:
    """Read ledger and journal once; ``most`` holds the most that was committed in each period.

    It is looked at whenever money was reserved and whenever a piece of spending ended.
    """
    wanted = set(job_ids)
    found = Witness(pieces=list(_pieces(result, wanted)))
    for event in (record.event for record in result.store.records()):
        if isinstance(event, MoneyReserved) and event.attempt_id.rpartition("/")[0] in wanted:
            found.reserved[event.attempt_id] = (event.usd_nanos_per_hour, event.until_us)
            _look(found, periods, event.at_us)
        elif isinstance(event, AttemptEnded):
            _look(found, periods, event.at_us)
            found.reserved.pop(event.attempt_id, None)
    for start, end in periods:
        found.most[start] = max(found.most.get(start, 0), found.spent(start, end))
    return found


def _pieces(result: Result, wanted: set[str]) -> Iterator[tuple[int, int, int]]:
    for entry in result.store.entries():
        for leg in entry.postings if entry.kind is EntryKind.USAGE else ():
            attempt_id = leg.account.removeprefix("attempt:").rpartition(":")[0]
            if leg.account.startswith("attempt:") and attempt_id.rpartition("/")[0] in wanted:
                yield entry.start_us, entry.end_us, leg.usd_nanos


def _look(found: Witness, periods: Sequence[tuple[int, int]], at_us: int) -> None:
    for start, end in periods:
        if at_us < end:
            committed = found.committed(start, end, max(at_us, start))
            found.most[start] = max(found.most.get(start, 0), committed)


def teams(result: Result) -> Mapping[str, list[str]]:
    """Give the jobs of each team."""
    found: dict[str, list[str]] = {}
    for job in result.jobs.values():
        found.setdefault(job.spec.team, []).append(job.id)
    return found
