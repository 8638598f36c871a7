"""Stops at checkpoints under random and hostile tariffs: deadlines hold, nothing thrashes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.spec import NANOS_PER_USD, JobSpec, Market
from jobs.states import JobState
from scheduler.bound import single_job
from scheduler.scenario import Arrival, Capacity, Scenario
from scheduler.sim_report import add_up
from scheduler.simulation import price_book
from scheduler.simulator import simulate

HOUR_S = 3_600
HOUR_US = HOUR_S * 1_000_000
START_US = 1_796_083_200_000_000


def a_scenario(cents: list[int], jobs: list[JobSpec], *, known_h: int, boot_s: int) -> Scenario:
    """Give sure capacity for all at a price for each hour, published so far ahead."""
    nanos = [cent * NANOS_PER_USD // 100 for cent in cents]
    flavor = Flavor(
        name="gpu",
        cluster="sim",
        market=Market.ON_DEMAND,
        accelerator="any",
        region="here",
        zone="here",
        gpu_milli=1_000,
        cpus=8,
        usd_nanos_per_hour=nanos[0],
        list_usd_nanos_per_hour=NANOS_PER_USD,
        max_nodes=len(jobs),
        boot_ms=boot_s * 1_000,
    )
    return Scenario(
        start_us=START_US,
        end_us=START_US + 400 * HOUR_US,
        capacities=(
            Capacity(
                flavor=flavor,
                limits=StepSeries((START_US,), (len(jobs),)),
                prices=StepSeries.regular(nanos, start_us=START_US, step_us=HOUR_US),
                known_ahead_us=known_h * HOUR_US,
            ),
        ),
        arrivals=tuple(Arrival(at_us=START_US, spec=spec) for spec in jobs),
    )


def a_spec(
    work_s: int, slack_s: int, *, boot_s: int = 0, interval_s: int = 0, save_s: int = 0
) -> JobSpec:
    """Give a job that may wait so long beyond its boot and its work."""
    saves_s = save_s * (work_s // interval_s + 1) if interval_s else 0
    return JobSpec(
        work=float(work_s),
        restore=60.0,
        save=float(save_s),
        deadline=float(boot_s + work_s + saves_s + slack_s),
        checkpoint_interval=float(interval_s),
    )


@settings(max_examples=5, deadline=None)
@given(
    cents=st.lists(st.integers(0, 500), min_size=30, max_size=60),
    works_h=st.lists(st.integers(1, 12), min_size=1, max_size=2),
    slack_h=st.integers(0, 30),
    known_h=st.sampled_from([1, 12, 36, 400]),
    boot_s=st.sampled_from([0, 120, 1_800]),
    interval_s=st.sampled_from([0, 900]),
)
def test_a_deadline_is_never_missed_for_money(
    cents: list[int],
    works_h: list[int],
    slack_h: int,
    known_h: int,
    boot_s: int,
    interval_s: int,
) -> None:
    """Whatever the tariff does, each job ends in time, and stops at most once for each step."""
    jobs = [
        a_spec(
            hours * HOUR_S,
            slack_h * HOUR_S,
            boot_s=boot_s,
            interval_s=interval_s,
            save_s=20 if interval_s else 0,
        )
        for hours in works_h
    ]
    result = simulate(a_scenario(cents, jobs, known_h=known_h, boot_s=boot_s))
    assert not result.refused
    for job in result.jobs.values():
        assert job.state is JobState.SUCCEEDED
        assert job.deadline_us is not None
        assert (job.ended_us or 0) <= job.deadline_us
        assert job.preemptions <= len(cents)


@settings(max_examples=5, deadline=None)
@given(
    cents=st.lists(st.integers(1, 500), min_size=30, max_size=40),
    work_h=st.integers(1, 10),
    slack_h=st.integers(0, 24),
)
def test_ours_lies_between_the_bound_and_one_stretch(
    cents: list[int], work_h: int, slack_h: int
) -> None:
    """Never below the exact bound; hardly above the cheapest single stretch."""
    world = a_scenario(
        cents, [a_spec(work_h * HOUR_S, slack_h * HOUR_S, boot_s=120)], known_h=400, boot_s=120
    )
    bound = single_job(world, world.arrivals[0], book=price_book(world)).usd
    ours, single = (
        add_up(simulate(world, policy=policy)).bill_nanos / NANOS_PER_USD
        for policy in ("lowtide", "lowest-window")
    )
    assert bound is not None
    assert bound <= ours <= single * 1.1 + 0.1
