"""The bounds are bounds: no run is cheaper, and where everything can be tried they are exact."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import product
from random import Random

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.durations import US_PER_S
from jobs.spec import JobSpec, Market
from scheduler.bound import CELLS, hindsight, past_of, single_job
from scheduler.bound_lp import several_jobs
from scheduler.earliest import earliest_finish_us
from scheduler.scenario import Arrival, Capacity, Scenario
from scheduler.sim_bound import lower_bound
from scheduler.sim_report import job_rows, report
from scheduler.simulation import price_book
from scheduler.simulator import simulate
from scheduler.spot_policy import POLICIES
from scheduler.windows import PriceWindow

START_US = 1_676_419_200 * US_PER_S
STEP_S = 300
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # tracing lines is slow

pytestmark = pytest.mark.simulation


def capacity(
    name: str, limits: list[int], *, usd: float, boot_s: int = 0, notice_s: int = 0
) -> Capacity:
    """A flavor of one-GPU nodes whose limit changes every five minutes."""
    flavor = Flavor(
        name=name,
        cluster="sim",
        market=Market.ON_DEMAND if name == "sure" else Market.SPOT,
        accelerator="V100",
        region="here",
        zone=name,
        gpu_milli=1_000,
        cpus=64,
        usd_nanos_per_hour=round(usd * 10**9),
        list_usd_nanos_per_hour=3_000_000_000,
        max_nodes=max(limits),
        boot_ms=boot_s * 1_000,
        notice_ms=notice_s * 1_000,
        idle_release_ms=0,
    )
    series = StepSeries.regular(limits, start_us=START_US, step_us=STEP_S * US_PER_S)
    return Capacity(flavor=flavor, limits=series)


def scenario(capacities: list[Capacity], arrivals: list[Arrival]) -> Scenario:
    """A world of at most a week."""
    return Scenario(
        start_us=START_US,
        end_us=START_US + 7 * 86_400 * US_PER_S,
        capacities=tuple(capacities),
        arrivals=tuple(arrivals),
    )


def a_world(seed: int, *, jobs: int) -> Scenario:
    """Two spot zones that come and go, sure capacity beside them, and some jobs."""
    random = Random(seed)
    boot_s, notice_s = random.choice((0, 60, 120, 300)), random.choice((0, 30, 120))
    traces = [[random.choice((0, 0, 1, 3)) for _ in range(random.randrange(4, 40))] for _ in "ab"]
    capacities = [
        capacity(name, trace, usd=random.uniform(0.5, 2), boot_s=boot_s, notice_s=notice_s)
        for name, trace in zip("ab", traces, strict=True)
    ]
    capacities.append(capacity("sure", [2 * jobs], usd=3, boot_s=boot_s))
    arrivals = []
    for _ in range(jobs):
        work_s = random.choice((299, 600, 1_800, 4_000))
        spec = JobSpec(
            nodes=random.choice((1, 1, 2)),
            work=work_s,
            deadline=random.choice((None, 2 * work_s + 1_200, 5 * work_s + 1_200)),
            setup=random.choice((0, 20)),
            restore=random.choice((0, 45)),
            save=random.choice((0, 15)),
            checkpoint_interval=random.choice((0, 300, None)),
        )
        arrivals.append(Arrival(at_us=START_US + random.randrange(2_000) * US_PER_S, spec=spec))
    arrivals.sort(key=lambda arrival: arrival.at_us)
    return scenario(capacities, arrivals)


@given(seed=st.integers(min_value=0, max_value=1 << 20), policy=st.sampled_from(sorted(POLICIES)))
@settings(max_examples=5, phases=PHASES)
def test_no_run_of_one_job_is_cheaper_than_its_bound(seed: int, policy: str) -> None:
    """Whatever a policy does with a job that meets its deadline, hindsight is not dearer."""
    figures = report(simulate(a_world(seed, jobs=1), policy=policy))
    assert figures["bound_kind"] == "dp"
    assert figures["bound_usd"] is None or figures["cost_usd"] >= figures["bound_usd"] > 0
    assert (figures["bound_usd"] is None) == (figures["bound_jobs"] == 0)


@given(seed=st.integers(min_value=0, max_value=1 << 20), policy=st.sampled_from(sorted(POLICIES)))
@settings(max_examples=4, phases=PHASES)
def test_no_run_of_several_jobs_is_cheaper_than_the_bound(seed: int, policy: str) -> None:
    """The linear program is a bound on the bill of the whole queue."""
    figures = report(simulate(a_world(seed, jobs=6), policy=policy))
    assert figures["bound_kind"] in {"dp", "lp"}
    assert figures["bound_usd"] is None or figures["cost_usd"] >= figures["bound_usd"] > 0


ODD_WINDOWS = (
    PriceWindow(name="half", start_s=0, end_s=3_600 * 12, price_percent=50),
    PriceWindow(
        name="night",
        start_s=79_200,
        end_s=7_200,
        time_zone="Asia/Kolkata",
        tariff_usd_nanos_per_hour=200_000_000,
    ),
    PriceWindow(name="free", days=(2, 5), start_s=68_400, end_s=72_000, price_percent=0),
)


def an_odd_world(seed: int) -> Scenario:
    """All that a scenario can hold at once: windows, moving prices, shares, gangs, egress."""
    random = Random(seed)
    world = a_world(seed, jobs=random.choice((1, 2, 5)))
    capacities = []
    for index, one in enumerate(world.capacities):
        prices = [round(random.uniform(0, 3) * 10**9) for _ in range(random.choice((1, 12)))]
        series = StepSeries.regular(prices, start_us=START_US, step_us=700 * US_PER_S)
        flavor = replace(
            one.flavor,
            region=f"region-{index}",
            gpu_milli=random.choice((1_000, 2_000)),
            market=one.flavor.market if random.random() < 0.8 else Market.RESERVED,
            usd_nanos_per_hour=prices[0],
            idle_release_ms=random.choice((0, 60_000)),
        )
        capacities.append(replace(one, flavor=flavor, prices=series if len(prices) > 1 else None))
    arrivals = []
    for arrival in world.arrivals:
        gpus = Decimal(random.choice(("0.25", "0.5", "1")))
        spec = arrival.spec.model_copy(update={"gpus": gpus, "priority": random.choice((0, 9))})
        arrivals.append(replace(arrival, spec=spec))
    return replace(
        world,
        capacities=tuple(capacities),
        arrivals=tuple(arrivals),
        windows=tuple(window for window in ODD_WINDOWS if random.random() < 0.5),
        probe=random.random() < 0.3,
        end_us=START_US + random.choice((3_600, 7 * 86_400)) * US_PER_S,
        egress_nanos_per_gb={("region-0", "region-1"): 10**8},
    )


@example(seed=386_751, policy="greedy")  # who made way took the place again, for ever
@given(seed=st.integers(min_value=0, max_value=1 << 20), policy=st.sampled_from(sorted(POLICIES)))
@settings(max_examples=12, phases=PHASES)
def test_the_bound_holds_in_any_scenario(seed: int, policy: str) -> None:
    """Windows, tariffs, prices that move to zero, shares of nodes, missed and unfinished jobs."""
    result = simulate(an_odd_world(seed), policy=policy)
    floor = lower_bound(result)
    figures = report(result, floor=floor)
    assert (floor.usd is None) == (figures["bound_jobs"] == 0)
    assert figures["cost_usd"] >= (floor.usd or 0.0)
    assert figures["regret"] is None or figures["regret"] >= 1
    for row in job_rows(result, floor=floor):
        assert row.get("bound_usd") is None or row["cost_usd"] >= row["bound_usd"], row


@pytest.mark.parametrize("cells", [1_000, 100_000, 10_000_000])
def test_a_coarser_bound_is_a_lower_bound_too(cells: int) -> None:
    """Fewer cells make it looser, never wrong."""
    world = a_world(11, jobs=1)
    (arrival,) = world.arrivals
    past = past_of(world, book=price_book(world))
    due_us = arrival.at_us + 40_000 * US_PER_S
    fine, coarse = (
        hindsight(
            arrival.spec, submitted_us=arrival.at_us, deadline_us=due_us, past=past, cells=size
        ).usd
        for size in (CELLS, cells)
    )
    assert fine is not None
    assert coarse is not None
    assert coarse <= fine * (1 + 1e-9)


def test_a_job_without_a_deadline_may_wait_for_every_window() -> None:
    """An hour a week is free: who has time for ever pays nothing, however long the work is."""
    window = PriceWindow(name="free", days=(2,), start_s=0, end_s=3_600, price_percent=0)
    spec = JobSpec(work=100 * 3_600)
    world = replace(
        scenario([capacity("sure", [1], usd=3)], [Arrival(at_us=START_US, spec=spec)]),
        windows=(window,),
        end_us=START_US + 3_000 * 86_400 * US_PER_S,
    )
    assert single_job(world, world.arrivals[0], book=price_book(world)).usd == 0
    short = replace(world, end_us=START_US + 101 * 3_600 * US_PER_S)
    usd = single_job(short, short.arrivals[0], book=price_book(short)).usd
    assert usd == pytest.approx(3 * 99, rel=0.02)


def test_who_could_not_be_served_is_named() -> None:
    """Why, and by when anybody could have done it; the bound is about the others."""
    specs = [
        JobSpec(name="fine", work=600, deadline=3_600),
        JobSpec(name="hopeless", work=7_200, deadline=600),
        JobSpec(name="endless", work=10 * 86_400),
        JobSpec(name="nowhere", work=600, markets=(Market.SPOT,)),
    ]
    world = scenario(
        [capacity("a", [0], usd=1), capacity("sure", [2], usd=3, boot_s=60)],
        [
            *(Arrival(at_us=START_US, spec=spec) for spec in specs),
            Arrival(
                at_us=START_US + 365 * 86_400 * US_PER_S, spec=JobSpec(name="next year", work=9)
            ),
        ],
    )
    figures = report(simulate(world))
    assert figures["bound_jobs"] == 1
    assert figures["cost_usd"] > figures["bound_usd"] > 0
    told = {row["name"]: row for row in figures["unmet"]}
    assert set(told) == {"hopeless", "endless", "nowhere", "next year"}
    assert told["next year"]["state"] == "not submitted"
    assert told["endless"]["why"].endswith("before the simulation ended.")
    assert 1 <= figures["regret"] < 1.5
    assert told["hopeless"]["state"] == "refused"
    assert "earliest finish" in told["hopeless"]["why"]
    assert told["hopeless"]["earliest_finish_s"] == pytest.approx(7_260, abs=20)


@pytest.mark.parametrize(("boot_s", "restore_s"), [(0, 0), (300, 0), (300, 600)])
def test_the_earliest_finish_is_exact_on_the_grid(boot_s: int, restore_s: int) -> None:
    """Up for 3 slots, down for 2, up for good: by hand."""
    up = [1, 1, 1, 0, 0, 1]
    spec = JobSpec(work=4 * STEP_S, restore=restore_s)
    world = scenario(
        [capacity("a", up, usd=1, boot_s=boot_s)], [Arrival(at_us=START_US, spec=spec)]
    )
    first_us = earliest_finish_us(
        spec, submitted_us=START_US, past=past_of(world, book=price_book(world))
    )
    lost = (boot_s + restore_s) // STEP_S
    expected = 5 + lost + 4 - (3 - boot_s // STEP_S)
    assert first_us is not None
    assert (first_us - START_US) // US_PER_S == expected * STEP_S


def test_the_bound_of_a_job_on_sure_capacity_is_its_bill() -> None:
    """Nothing to choose: work, boot and set-up at one price."""
    spec = JobSpec(work=3_600, setup=60, deadline=7_200)
    world = scenario(
        [capacity("sure", [1], usd=3, boot_s=240)], [Arrival(at_us=START_US, spec=spec)]
    )
    bound = single_job(world, world.arrivals[0], book=price_book(world))
    assert bound.usd == pytest.approx(3 * (3_600 + 300) / 3_600, rel=1e-6)


def test_the_bound_is_infinite_when_the_deadline_is_out_of_reach() -> None:
    """Half an hour of work does not fit into ten minutes."""
    spec = JobSpec(work=1_800, deadline=600)
    world = scenario([capacity("sure", [1], usd=3)], [Arrival(at_us=START_US, spec=spec)])
    book = price_book(world)
    assert single_job(world, world.arrivals[0], book=book).usd is None
    assert several_jobs(world, world.arrivals, book=book).usd is None


def brute_force(available: tuple[int, ...], *, work: int, first: int, again: int) -> float:
    """Try every way to spend each slot: nothing, spot (1 a slot) or sure (3 a slot)."""
    best = float("inf")
    for choice in product((0, 1, 3), repeat=len(available)):
        if any(place == 1 and not up for place, up in zip(choice, available, strict=True)):
            continue
        done, before, left, began = 0, 0, 0, False
        for place in choice:
            if place and place != before:
                left, began = (again if began else first), began or done > 0
            if place and left == 0:
                done += 1
                began = True
            elif place:
                left -= 1
            before = place
        if done >= work:
            best = min(best, sum(choice))
    return best


@pytest.mark.parametrize("available", [(1, 1, 0, 1, 1, 1, 0, 0), (0, 1, 1, 1, 0, 1, 1, 0)])
@pytest.mark.parametrize(("work", "boot", "restore"), [(3, 1, 1), (4, 1, 0), (2, 0, 2), (5, 0, 0)])
def test_the_dynamic_program_finds_what_trying_everything_finds(
    available: tuple[int, ...], work: int, boot: int, restore: int
) -> None:
    """On eight slots the optimum is exact."""
    spec = JobSpec(work=work * STEP_S, restore=restore * STEP_S, deadline=len(available) * STEP_S)
    world = scenario(
        [
            capacity("spot", list(available), usd=12, boot_s=boot * STEP_S),
            capacity("sure", [1], usd=36, boot_s=boot * STEP_S),
        ],
        [Arrival(at_us=START_US, spec=spec)],
    )
    bound = single_job(world, world.arrivals[0], book=price_book(world))
    expected = brute_force(available, work=work, first=boot, again=boot + restore)
    if expected == float("inf"):
        assert bound.usd is None
    else:
        assert bound.usd == pytest.approx(expected, rel=1e-6)
