"""The bounds are bounds: no run is cheaper, and where everything can be tried they are exact."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.durations import US_PER_S
from jobs.spec import JobSpec, Market
from scheduler.bound import single_job
from scheduler.bound_lp import several_jobs
from scheduler.scenario import Arrival, Capacity, Scenario
from scheduler.sim_report import report
from scheduler.simulation import price_book
from scheduler.simulator import simulate
from scheduler.spot_policy import POLICIES

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
@settings(max_examples=15, phases=PHASES)
def test_no_run_of_one_job_is_cheaper_than_its_bound(seed: int, policy: str) -> None:
    """Whatever a policy does with a job that meets its deadline, hindsight is not dearer."""
    figures = report(simulate(a_world(seed, jobs=1), policy=policy))
    if figures["unfinished"] or figures["deadline_misses"] or figures["refused"]:
        return
    assert figures["bound_kind"] == "dp"
    assert figures["cost_usd"] >= figures["bound_usd"] > 0


@given(seed=st.integers(min_value=0, max_value=1 << 20), policy=st.sampled_from(sorted(POLICIES)))
@settings(max_examples=10, phases=PHASES)
def test_no_run_of_several_jobs_is_cheaper_than_the_bound(seed: int, policy: str) -> None:
    """The linear program is a bound on the bill of the whole queue."""
    figures = report(simulate(a_world(seed, jobs=6), policy=policy))
    if figures["unfinished"] or figures["deadline_misses"] or figures["refused"] > 4:
        return
    assert figures["bound_kind"] == "lp"
    assert figures["cost_usd"] >= figures["bound_usd"] > 0


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
