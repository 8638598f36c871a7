"""Deadlines that share one or two nodes that stay: whoever starts there by choice harms nobody.

CI plays a few worlds under every policy; the mark ``slow`` plays many. Spot dies at bad moments.
"""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jobs.durations import US_PER_S
from jobs.reasons import Reason
from jobs.spec import JobSpec
from scheduler.audit_store import audit_store
from scheduler.sim_unmet import missed
from scheduler.simulation import Result
from scheduler.spot_policy import POLICIES
from tests.simulation.crowded_world import crowded
from tests.simulation.hostile_world import (
    MOMENTS,
    HostileSimulation,
    Strike,
    a_flavor,
    a_world,
    up,
)

pytestmark = pytest.mark.simulation
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # tracing lines is slow

seeds = st.integers(min_value=0, max_value=1 << 20)
strikes = st.lists(
    st.builds(
        Strike,
        moment=st.sampled_from(MOMENTS),
        after_us=st.sampled_from((0, 1, 999_999, 240 * US_PER_S)),
        noticed=st.booleans(),
    ),
    max_size=4,
)


def check(result: Result) -> None:
    """Every deadline that was admitted is met, and the books are clean."""
    late = {job.id: job for job in result.jobs.values() if missed(result, job)}
    assert not late, f"missed: {late}"
    assert audit_store(result.store) == []


@pytest.mark.parametrize("tariffs", [False, True])
@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(seed=seeds, fates=strikes)
@settings(max_examples=3, phases=PHASES)
def test_no_deadline_is_missed_where_sure_nodes_are_scarce(
    policy: str, tariffs: bool, seed: int, fates: list[Strike]
) -> None:
    """Whatever else is there, with and without deadlines, under every policy."""
    world = crowded(seed, tariffs=tariffs)
    check(HostileSimulation(world, strikes=fates, policy=policy).run())


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("tariffs", [False, True])
@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(seed=seeds, fates=strikes)
@settings(max_examples=300, phases=PHASES)
def test_no_deadline_is_missed_in_many_crowded_worlds(
    policy: str, tariffs: bool, seed: int, fates: list[Strike]
) -> None:
    """The same, deeper."""
    world = crowded(seed, tariffs=tariffs)
    check(HostileSimulation(world, strikes=fates, policy=policy).run())


def play(specs: list[JobSpec], *, policy: str = "on-demand", nodes: int = 1) -> Result:
    """Play jobs that all come at once on so many nodes that boot in ten minutes."""
    sure = up(a_flavor("on-demand", usd=3, boot_s=600), nodes)
    return HostileSimulation(a_world([sure], specs), policy=policy).run()


def reasons(result: Result, name: str) -> list[Reason]:
    """Give why a job waited or started, in order."""
    ids = {job.id for job in result.jobs.values() if job.spec.name == name}
    events = (record.event for record in result.store.records())
    return [
        event.reason
        for event in events
        if getattr(event, "job_id", None) in ids
        and event.kind in {"job-deferred", "attempt-leased"}
    ]


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_start_by_choice_leaves_the_node_to_who_has_less_time(policy: str) -> None:
    """The long job is older and more important, but the short one would be too late after it."""
    specs = [
        JobSpec(name="long", work="8h", deadline="40h", priority=5),
        JobSpec(name="short", work="1h", deadline="3h"),
    ]
    result = play(specs, policy=policy)
    check(result)
    assert not result.refused
    assert reasons(result, "long")[0] is Reason.WAITS_FOR_DEADLINES


def test_who_waits_is_told_for_whom() -> None:
    """The sentence names the job, its deadline and the flavor."""
    specs = [
        JobSpec(name="long", work="8h", deadline="40h", priority=5),
        JobSpec(name="short", work="1h", deadline="3h"),
    ]
    result = play(specs)
    told = [
        record.event.sentence
        for record in result.store.records()
        if record.event.kind == "job-deferred" and record.event.reason is Reason.WAITS_FOR_DEADLINES
    ]
    short = next(job.id for job in result.jobs.values() if job.spec.name == "short")
    assert told[0] == (
        f"Waits: on-demand is kept for {short}, which needs it to be done by 15 Feb 03:00 UTC; "
        "it would not be free again in time."
    )


def test_a_job_without_a_deadline_makes_way_once() -> None:
    """It uses the node until the deadline needs it, and does not come back in between."""
    specs = [
        JobSpec(name="free", work="8h", checkpoint_interval=0, priority=5),
        *[JobSpec(name=name, work="1h", deadline="6h") for name in ("one", "two")],
    ]
    result = play(specs, policy="greedy")
    check(result)
    free = next(job for job in result.jobs.values() if job.spec.name == "free")
    assert free.preemptions == 1
    assert free.ended


def test_a_gang_finds_its_nodes_together() -> None:
    """A job on one of two nodes must not run into the time of the gang that needs both."""
    specs = [
        JobSpec(name="single", work="8h", deadline="60h", priority=5),
        JobSpec(name="gang", work="1h", deadline="6h", nodes=2),
    ]
    result = play(specs, nodes=2)
    check(result)
    assert not result.refused
