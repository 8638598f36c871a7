"""What is promised of arrays, chains and priorities, over random worlds: checked at every tick."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.prices import StepSeries
from jobs.arrays import members
from jobs.recurrence import ScheduleSpec
from jobs.spec import JobSpec
from jobs.states import JobState
from scheduler.audit_store import audit_store
from scheduler.commands import MakeSchedule
from scheduler.scenario import Arrival, Capacity, Scenario
from scheduler.simulation import Simulation
from scheduler.snapshot import PolicySettings
from tests.unit.scheduler.worlds import HOUR, S, a_flavor

pytestmark = pytest.mark.simulation

START_US = 1_676_419_200 * S
SPOT, SURE = "spot-a", "sure"


class Watched(Simulation):
    """A simulation that looks at the rows after every tick."""

    def step(self, at_us: int) -> None:
        """Check what must hold at every instant."""
        super().step(at_us)
        jobs = self.controller.state.jobs
        up: dict[str, int] = {}
        for attempt_id in self.controller.state.live_attempts:
            job = jobs[self.controller.state.attempts[attempt_id].job_id]
            if job.array is not None:
                up[job.array.id] = up.get(job.array.id, 0) + 1
                most = job.array.max_parallel or job.array.size
                assert up[job.array.id] <= most, f"{job.array.id} has more than {most} up"
            for one in job.spec.after:
                for before in members(jobs, one.job):
                    assert before.ended, f"{job.id} started before {before.id} had ended"


def world(jobs: list[JobSpec], *, seed: int, nodes: int = 2) -> Scenario:
    """Give a scenario with spot that comes and goes, and some sure nodes."""
    random = Random(seed)
    levels = [random.choice((0, 1, 3)) for _ in range(12)] + [3]
    spot = a_flavor(SPOT, max_nodes=3, notice_ms=30_000)
    sure = a_flavor(SURE, usd=4, max_nodes=nodes)
    arrivals = [Arrival(at_us=START_US + random.choice((0, 0, HOUR)), spec=spec) for spec in jobs]
    arrivals.sort(key=lambda arrival: arrival.at_us)
    capacities = (
        Capacity(
            flavor=spot,
            limits=StepSeries.regular(levels, start_us=START_US, step_us=HOUR // 2),
            prices=None,
        ),
        Capacity(flavor=sure, limits=StepSeries((START_US,), (nodes,)), prices=None),
    )
    return Scenario(
        start_us=START_US,
        end_us=START_US + 400 * HOUR,
        seed=seed,
        probe=False,
        capacities=capacities,
        arrivals=tuple(arrivals),
        windows=(),
        budgets=(),
        egress_nanos_per_gb={},
    )


def play(scenario: Scenario) -> Any:
    """Play it to its end, and check what must hold at the end of every world."""
    settings = PolicySettings(margin_percent=0)
    simulation = Watched(scenario, settings=settings)
    result = simulation.run()
    assert not audit_store(result.store)
    return result


@st.composite
def some_jobs(draw: st.DrawFn) -> list[JobSpec]:
    """Draw jobs of all kinds; each may come after those before it."""
    made: list[JobSpec] = []
    for index in range(draw(st.integers(2, 5))):
        before = [f"job{n}" for n in range(index) if draw(st.booleans())][:2]
        size = draw(st.sampled_from((None, None, 2, 5)))
        made.append(
            JobSpec(
                name=f"job{index}",
                work=draw(st.sampled_from(("20m", "1h", "3h"))),
                checkpoint_interval=draw(st.sampled_from((0, "10m"))),
                deadline=draw(st.sampled_from((None, None, "3h", "5h", "9h", "30h"))),
                priority=draw(st.sampled_from((0, 0, 1, 5))),
                array=size,
                max_parallel=None if size is None else draw(st.sampled_from((None, 1, 2))),
                after=tuple(draw(st.sampled_from((name, f"{name}:ended"))) for name in before),
            )
        )
    return made


SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(jobs=some_jobs(), seed=st.integers(0, 99), nodes=st.integers(1, 2))
def test_nobody_starts_early_starves_or_is_lost(jobs: list[JobSpec], seed: int, nodes: int) -> None:
    """Order and caps hold at every tick, every accepted job ends, every deadline is met."""
    result = play(world(jobs, seed=seed, nodes=nodes))
    answered = {arrival.spec.label for arrival in result.job_ids.values()}
    for one in result.refused:  # its deadline, or its predecessor's refusal
        assert one.error.code in {"infeasible", "not-found"}, one.error
    assert len(result.jobs) == len(result.job_ids)
    assert answered or result.refused
    for row in result.jobs.values():
        assert row.state is JobState.SUCCEEDED, f"{row.id} {row.state}: {row.sentence}"
        assert row.deadline_us is None or row.ended_us is not None
        assert row.deadline_us is None or (row.ended_us or 0) <= row.deadline_us, row.id


def test_the_same_world_gives_the_same_journal() -> None:
    """Arrays, chains and stops included."""
    jobs = [
        JobSpec(name="a", work="2h", array=4, max_parallel=2),
        JobSpec(name="b", work="1h", after=("a",), priority=3, deadline="40h"),
        JobSpec(name="c", work="3h", priority=5),
    ]
    first, second = (play(world(jobs, seed=3)) for _ in range(2))
    assert list(first.store.records()) == list(second.store.records())


def test_two_deadlines_share_the_last_node_in_time() -> None:
    """No spot ever comes: one node does both, one after the other, and both are met."""
    jobs = [JobSpec(name=name, work="2h", deadline="4h30m", checkpoint_interval=0) for name in "ab"]
    scenario = world(jobs, seed=1, nodes=1)
    spot, sure = scenario.capacities
    dry = replace(spot, limits=StepSeries((START_US,), (0,)))
    arrivals = tuple(replace(one, at_us=START_US) for one in scenario.arrivals)
    result = play(replace(scenario, capacities=(dry, sure), arrivals=arrivals))
    assert not result.refused
    for row in result.jobs.values():
        assert row.ended_us is not None
        assert row.deadline_us is not None
        assert row.ended_us <= row.deadline_us


def test_a_stop_pays_and_is_not_answered_in_turn() -> None:
    """The important job takes the only node once; the other goes on after it."""
    jobs = [
        JobSpec(name="low", work="5h", checkpoint_interval="10m", markets=("on-demand",)),
        JobSpec(name="high", work="3h", priority=5, markets=("on-demand",)),
    ]
    scenario = world(jobs, seed=1, nodes=1)
    late = {"low": 0, "high": HOUR}
    arrivals = tuple(
        sorted(
            (replace(one, at_us=START_US + late[one.spec.name]) for one in scenario.arrivals),
            key=lambda one: one.at_us,
        )
    )
    result = play(replace(scenario, arrivals=arrivals))
    rows = {row.spec.name: row for row in result.jobs.values()}
    assert (rows["low"].preemptions, rows["high"].preemptions) == (1, 0)
    assert (rows["low"].attempts, rows["high"].attempts) == (2, 1)
    assert (rows["high"].ended_us or 0) < (rows["low"].ended_us or 0)
    told = [one.event.sentence for one in result.store.records() if "Makes way" in str(one.event)]
    assert len(told) == 1, "its price is in the journal"
    assert "$0." in told[0]


def test_a_schedule_is_replayed_by_the_simulator() -> None:
    """Each hour for half a day, in the same journal twice; occurrences are jobs like any other."""
    spec = ScheduleSpec.model_validate(
        {
            "name": "hourly",
            "cron": "0 * * * *",
            "overlap": "queue",
            "job": {"script": "t.py", "work": "20m", "deadline": "3h"},
        }
    )

    def played() -> Any:
        scenario = replace(world([], seed=5), end_us=START_US + 12 * HOUR)
        simulation = Watched(scenario, settings=PolicySettings(margin_percent=0))
        simulation.mailbox.call(MakeSchedule(spec=spec))
        return simulation.run()

    first, second = played(), played()
    assert list(first.store.records()) == list(second.store.records())
    done = [row for row in first.jobs.values() if row.state is JobState.SUCCEEDED]
    assert len(done) >= 8
    assert all((row.ended_us or 0) <= (row.deadline_us or 0) for row in done)
    assert not audit_store(first.store)
