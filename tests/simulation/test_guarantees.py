"""What holds whatever happens, through the production controller in virtual time.

The cloud here is hostile: spot dies at the worst moments, with and without notice, prices jump,
zones lie about their room. Sure capacity keeps its promises. CI draws a few worlds; the mark
``slow`` draws many.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jobs.durations import US_PER_S
from jobs.spec import JobSpec
from jobs.states import JobState
from scheduler.audit_store import audit_store
from scheduler.scenario import Scenario
from scheduler.sim_bound import lower_bound
from scheduler.sim_report import read_journal, report
from scheduler.sim_unmet import missed
from scheduler.simulation import Result
from scheduler.spot_policy import POLICIES
from tests.simulation.hostile_world import (
    MOMENTS,
    START_US,
    HostileSimulation,
    Strike,
    a_flavor,
    a_random_world,
    a_world,
    up,
)

pytestmark = pytest.mark.simulation
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # tracing lines is slow

seeds = st.integers(min_value=0, max_value=1 << 20)
policies = st.sampled_from(sorted(POLICIES))
strikes = st.lists(
    st.builds(
        Strike,
        moment=st.sampled_from(MOMENTS),
        after_us=st.sampled_from((0, 0, 1, 999_999, 240 * US_PER_S)),
        noticed=st.booleans(),
    ),
    max_size=8,
)
liars = st.lists(st.sampled_from(("spot-a", "spot-b")), max_size=1)


def play(seed: int, policy: str, fates: list[Strike], lying: list[str], *, jobs: int) -> Result:
    """Play a random world under a policy."""
    world = a_random_world(seed, jobs=jobs)
    known = [name for name in lying if name in world.flavors]
    return HostileSimulation(world, strikes=fates, liars=known, policy=policy).run()


def check(result: Result) -> None:
    """Hold every promise against what happened."""
    arrivals = len(result.scenario.arrivals)
    assert len(result.job_ids) + len(result.refused) == arrivals, "a job was lost at submit"
    late = {job.id: job for job in result.jobs.values() if missed(result, job)}
    assert not late, f"missed: {late}"
    open_jobs = [job for job in result.jobs.values() if not job.ended]
    assert all(job.deadline_us is None for job in open_jobs)
    assert all(job.state is JobState.SUCCEEDED for job in result.jobs.values() if job.ended)
    assert all(job.reason and job.sentence for job in open_jobs if job.state is JobState.QUEUED)
    assert audit_store(result.store) == []
    floor = lower_bound(result, cells=200_000)  # coarse: it is a bound as well
    assert report(result, floor=floor)["cost_usd"] >= (floor.usd or 0)


@given(seed=seeds, policy=policies, fates=strikes, lying=liars, jobs=st.sampled_from((1, 1, 3)))
@settings(max_examples=15, phases=PHASES)
def test_nothing_that_was_promised_is_broken(
    seed: int, policy: str, fates: list[Strike], lying: list[str], jobs: int
) -> None:
    """No admitted deadline is missed, no job lost, clean books, no cost below the bound."""
    check(play(seed, policy, fates, lying, jobs=jobs))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(seed=seeds, fates=strikes, lying=liars, jobs=st.sampled_from((1, 2, 6)))
@settings(max_examples=300, phases=PHASES)
def test_nothing_that_was_promised_is_broken_in_many_worlds(
    policy: str, seed: int, fates: list[Strike], lying: list[str], jobs: int
) -> None:
    """The same, deeper."""
    check(play(seed, policy, fates, lying, jobs=jobs))


@given(seed=seeds, policy=policies, fates=strikes)
@settings(max_examples=6, phases=PHASES)
def test_the_same_world_gives_the_same_journal(seed: int, policy: str, fates: list[Strike]) -> None:
    """Every decision, sentence and posting, byte for byte."""
    first, again = (play(seed, policy, fates, [], jobs=2) for _ in "ab")
    assert read_journal(first) == read_journal(again)


@given(
    seed=seeds,
    policy=policies,
    fates=strikes,
    ticks=st.lists(st.integers(min_value=1, max_value=300), max_size=4),
)
@settings(max_examples=12, phases=PHASES)
def test_a_server_that_dies_changes_no_ending(
    seed: int, policy: str, fates: list[Strike], ticks: list[int]
) -> None:
    """New controllers on the same store: the same jobs succeed, every promise is kept."""
    world = a_random_world(seed, jobs=2)
    steady = HostileSimulation(world, strikes=fates, policy=policy).run()
    shaken = HostileSimulation(world, strikes=fates, policy=policy, dies_after=ticks).run()
    check(shaken)
    ends = [{job.id: job.state for job in one.jobs.values()} for one in (steady, shaken)]
    assert ends[0] == ends[1]


def starving(seed: int, *, jobs: int) -> Scenario:
    """Spot comes only after three hours and then stays; nobody has a deadline, a few are urgent."""
    random = Random(seed)
    specs = [
        JobSpec(
            name=f"job-{index}",
            work=random.choice((600, 1_800)),
            nodes=random.choice((1, 1, 2)),
            gpus=random.choice(("0.5", "1")),
            priority=random.choice((0, 0, 3)),
            checkpoint_interval=random.choice((0, 600)),
            deadline=random.choice((None, None, None, 40_000)),
        )
        for index in range(jobs)
    ]
    spot = a_flavor("spot-a", usd=1, boot_s=120, notice_s=30)
    sure = a_flavor("on-demand", usd=3, boot_s=120)
    needed = sum(spec.nodes for spec in specs if spec.deadline is not None)
    capacities = [up(spot, *[0] * 12, *[2, 0, 2, 1, 2, 0, 2]), up(sure, max(1, needed))]
    at_s = [random.randrange(0, 9_000) for _ in specs]
    return a_world(capacities, specs, at_s=at_s)


@given(seed=seeds, policy=policies, fates=strikes, jobs=st.integers(min_value=1, max_value=8))
@settings(max_examples=12, phases=PHASES)
def test_nobody_starves(seed: int, policy: str, fates: list[Strike], jobs: int) -> None:
    """Once there is room for good, the queue is worked off, one after the other at the worst.

    After the last change of the world each job needs a boot, its work from its last save on, and
    a back-off of at most an hour for each failed launch; nothing else may hold it up.
    """
    world = starving(seed, jobs=jobs)
    result = HostileSimulation(world, strikes=fates, policy=policy).run()
    check(result)
    assert all(job.ended for job in result.jobs.values())
    quiet_us = START_US + 19 * 900 * US_PER_S
    each_us = (120 + 1_800 + 600 + 60 + 120) * US_PER_S
    limit_us = quiet_us + (jobs + len(fates)) * each_us
    for job in result.jobs.values():
        assert (job.ended_us or 0) <= max(limit_us, job.deadline_us or 0), job


def test_the_oldest_of_equals_goes_first() -> None:
    """One node, ten equal jobs: they are served in the order in which they came."""
    specs = [JobSpec(name=f"job-{index}", work=600) for index in range(10)]
    spot = up(a_flavor("spot-a", usd=1, boot_s=60), 1)
    result = HostileSimulation(a_world([spot], specs, at_s=range(0, 100, 10))).run()
    ends = [(job.ended_us, job.submitted_us) for job in result.jobs.values()]
    assert sorted(ends) == sorted(ends, key=lambda pair: pair[1])
