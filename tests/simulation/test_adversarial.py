"""Named adversaries, each against every policy: no admitted deadline falls, whatever spot does.

Each test is a story about a cloud that keeps one kind of promise and breaks another. The jobs are
tight, so that a second lost in the arithmetic of slack is a miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jobs.durations import US_PER_S
from jobs.spec import JobSpec
from jobs.states import JobState
from scheduler.scenario import Capacity, Scenario
from scheduler.sim_report import report
from scheduler.simulation import Result
from scheduler.spot_policy import POLICIES
from tests.simulation.hostile_world import (
    MOMENTS,
    HostileSimulation,
    Moment,
    Strike,
    a_flavor,
    a_world,
    up,
)

pytestmark = pytest.mark.simulation
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # tracing lines is slow
QUICK = [
    pytest.param(moment, interval_s, marks=() if chosen else pytest.mark.slow)
    for moment, interval_s, chosen in (
        (moment, interval_s, (moment, interval_s) in {("boot", 0), ("save", 600), ("wake", None)})
        for moment in MOMENTS
        for interval_s in (0, 600, None)
    )
]
"""What CI plays; all others are slow."""
every_policy = pytest.mark.parametrize("policy", sorted(POLICIES))


def spec(*, slack_s: int = 9_000, interval_s: int | None = 600, **facts: object) -> JobSpec:
    """Two hours of work, and so much more than them until the deadline."""
    known: dict[str, object] = {"restore": 120, "setup": 30, "checkpoint_interval": interval_s}
    return JobSpec.model_validate({"work": 7_200, "deadline": 7_200 + slack_s, **known, **facts})


def sure(boot_s: int = 300, nodes: int = 1) -> Capacity:
    """Sure capacity that is always there and takes as long as it says."""
    return up(a_flavor("on-demand", usd=4, boot_s=boot_s), nodes)


def spot(*limits: int, zone: str = "a", boot_s: int = 120, notice_s: int = 0) -> Capacity:
    """Spot in a zone, step by step of a quarter of an hour."""
    flavor = a_flavor(f"spot-{zone}", usd=1, boot_s=boot_s, notice_s=notice_s, region=zone)
    return up(flavor, *limits or (4,))


def survives(result: Result) -> None:
    """Every job was admitted, succeeded, in time, for no less than it had to cost."""
    figures = report(result)
    assert (figures["refused"], figures["unfinished"], figures["deadline_misses"]) == (0, 0, 0), (
        figures["unmet"]
    )
    assert all(job.state is JobState.SUCCEEDED for job in result.jobs.values())
    assert figures["regret"] is None or figures["regret"] >= 1  # a bound of nothing has none


def play(world: Scenario, policy: str, strikes: Sequence[Strike] = (), **how: object) -> Result:
    """Run it through the production controller."""
    return HostileSimulation(world, strikes=strikes, policy=policy, **how).run()  # type: ignore[arg-type]


@every_policy
@pytest.mark.parametrize(("moment", "interval_s"), QUICK)
def test_spot_dies_at_the_same_bad_moment_each_time(
    policy: str, moment: Moment, interval_s: int | None
) -> None:
    """After the lease, the boot, the first step, before each save, before each look."""
    world = a_world([spot(), sure()], [spec(interval_s=interval_s)])
    survives(play(world, policy, [Strike(moment)] * 40))


@pytest.mark.parametrize("policy", ["lowtide", "greedy", "lowest-window"])
@pytest.mark.parametrize(("moment", "interval_s"), QUICK)
@pytest.mark.parametrize(("notice_s", "lag_s"), [(0, 0), (240, 0), (0, 400)])
def test_spot_comes_only_when_it_is_almost_too_late(
    policy: str, moment: Moment, interval_s: int | None, notice_s: int, lag_s: int
) -> None:
    """It tempts a waiting job a moment before its latest start, and dies at a bad moment."""
    slack_s = 9_000 if interval_s is not None else 14_000
    world = a_world(
        [spot(notice_s=notice_s), sure()], [spec(slack_s=slack_s, interval_s=interval_s)]
    )
    strikes = [Strike(moment, noticed=bool(notice_s))] * 40
    survives(play(world, policy, strikes, shy_us=2_000, lag_s=lag_s))


@every_policy
@pytest.mark.parametrize("probe", [False, True])
def test_a_zone_lies(policy: str, probe: bool) -> None:
    """It says that there is room, and every launch fails, at once or after the boot."""
    zones = [spot(zone="a", boot_s=300), spot(zone="b", boot_s=60)]
    world = a_world([*zones, sure()], [spec(slack_s=2_000), spec(slack_s=20_000)], probe=probe)
    world = replace(world, capacities=(*zones, sure(nodes=2)))
    survives(play(world, policy, liars=["spot-a", "spot-b"]))


@every_policy
def test_a_zone_takes_every_job_and_kills_it_at_once(policy: str) -> None:
    """The cheapest zone dies after each boot; the others are honest."""
    world = a_world([spot(zone="a", boot_s=0), sure()], [spec(slack_s=3_000)])
    survives(play(world, policy, [Strike("boot", after_us=1)] * 200))


@every_policy
def test_a_notice_is_shorter_than_promised(policy: str) -> None:
    """Two minutes are promised and none are given, while the job counts on saving in them."""
    world = a_world([spot(notice_s=120), sure()], [spec(interval_s=None, slack_s=12_000)])
    survives(play(world, policy, [Strike("train", after_us=900 * US_PER_S)] * 40))


@every_policy
def test_prices_jump_while_the_job_runs(policy: str) -> None:
    """Spot costs more than sure capacity every other step, and nobody knew."""
    jumping = up(a_flavor("spot-a", usd=1, boot_s=60), 4, usd=[0.5, 9, 0.1, 12] * 20)
    world = a_world([jumping, sure()], [spec(), spec(slack_s=30_000)])
    world = replace(world, capacities=(jumping, sure(nodes=2)))
    survives(play(world, policy, [Strike("save")] * 3))


@every_policy
def test_spot_is_free_for_a_while(policy: str) -> None:
    """A price of nothing is a price: it is taken, and nothing is divided by it."""
    free = up(a_flavor("spot-a", usd=1, boot_s=60), 1, 0, 1, 4, usd=[1, 0, 0, 2] * 10)
    world = a_world([free, spot(0, 4, 0, 4, zone="b"), sure(nodes=2)], [spec(), spec(interval_s=0)])
    survives(play(world, policy, [Strike("save")] * 3))


@every_policy
@pytest.mark.parametrize("boot_s", [0, 1_800])
def test_sure_capacity_boots_slowly(policy: str, boot_s: int) -> None:
    """Half an hour from launch to first step is slack that is not there."""
    world = a_world([spot(), sure(boot_s)], [spec(slack_s=boot_s + 2_500)])
    survives(play(world, policy, [Strike("save")] * 10))


@every_policy
def test_a_gang_loses_one_node(policy: str) -> None:
    """Four start together or not at all; one that goes takes all with it."""
    world = a_world([spot(4, 3, 4, 1, 4), sure(nodes=4)], [spec(nodes=4, slack_s=6_000)])
    survives(play(world, policy, [Strike("train", after_us=600 * US_PER_S - 1)] * 10))


@every_policy
def test_several_regions_fail_one_after_the_other(policy: str) -> None:
    """A job that is chased through three regions, egress paid, still ends in time."""
    zones = [
        spot(*limits, zone=zone) for zone, *limits in (("a", 4, 0), ("b", 0, 4, 0), ("c", 0, 0, 4))
    ]
    world = a_world(
        [*zones, sure()],
        [spec(checkpoint_gb=100, slack_s=5_000)],
        egress_nanos_per_gb={(x, y): 2 * 10**7 for x in "abc" for y in (*"abc", "here") if x != y},
    )
    survives(play(world, policy, [Strike("save", after_us=1)] * 5))


@every_policy
def test_the_barely_possible_is_admitted_and_met(policy: str) -> None:
    """Not a second of slack: boot, set-up and work fill the time to the deadline exactly."""
    world = a_world([spot(), sure(boot_s=300)], [spec(slack_s=330)])
    survives(play(world, policy, [Strike("lease")] * 5))


@given(
    policy=st.sampled_from(sorted(POLICIES)),
    slack_s=st.integers(min_value=330, max_value=20_000),
    interval_s=st.sampled_from((0, 60, 600, None)),
    save_s=st.sampled_from((0, 15)),
    boots_s=st.tuples(st.integers(0, 900), st.integers(0, 300)),
    notice_s=st.sampled_from((0, 30, 300)),
    shy_us=st.sampled_from((None, 1, 1_001, 10**6)),
    lag_s=st.sampled_from((0, 0, 100, 3_000)),
    strikes=st.lists(
        st.builds(
            Strike,
            moment=st.sampled_from(MOMENTS),
            after_us=st.sampled_from((0, 1, 29_999_999, 599_999_999)),
            noticed=st.booleans(),
        ),
        max_size=12,
    ),
)
@settings(max_examples=20, phases=PHASES)
def test_no_mixture_of_them_breaks_a_deadline(
    policy: str,
    slack_s: int,
    interval_s: int | None,
    save_s: int,
    boots_s: tuple[int, int],
    notice_s: int,
    shy_us: int | None,
    lag_s: int,
    strikes: list[Strike],
) -> None:
    """Any strikes, any boots, any slack from none on."""
    job = spec(slack_s=slack_s + 240, interval_s=interval_s, save=save_s)
    world = a_world([spot(boot_s=boots_s[0], notice_s=notice_s), sure(boots_s[1])], [job])
    result = play(world, policy, strikes, shy_us=shy_us, lag_s=lag_s)
    if not result.refused:  # its saves alone may take more than the slack
        survives(result)
