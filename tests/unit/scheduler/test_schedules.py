"""Schedules in the loop: what an occurrence does, also after an outage, all of it journaled."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.errors import ConflictError, LowtideError, UnknownSubjectError
from jobs.fold import replay
from jobs.recurrence import Outcome, ScheduleRow, ScheduleSpec
from jobs.rows import JobRow
from jobs.states import JobState
from scheduler import commands as cmd
from scheduler.audit_store import audit_store
from tests.unit.scheduler.test_controller import World

HOUR_S = 3_600


def scheduled(world: World, **fields: Any) -> str:
    """Let a job be submitted every hour, and give the schedule's id."""
    job = {"script": "t.py", **fields.pop("job", {})}
    spec = ScheduleSpec.model_validate(
        {"name": "hourly", "cron": "0 * * * *", "job": job, **fields}
    )
    view = world.ask(cmd.MakeSchedule(spec=spec, owner="ada"))
    return str(view["schedule"]["id"])


def tick(world: World, at_s: int) -> int | None:
    """Let the loop look at an instant, and give when it wants to look again, in seconds."""
    world.clock.advance_to(at_s * 1_000_000)
    wake_us = world.controller.tick().wake_at_us
    return None if wake_us is None else wake_us // 1_000_000


def row(world: World) -> ScheduleRow:
    """Give the one schedule."""
    [only] = world.controller.state.schedules.values()
    return only


def jobs(world: World) -> list[JobRow]:
    """Give all jobs in the order of their submission."""
    return sorted(world.controller.state.jobs.values(), key=lambda job: job.submitted_us)


def test_an_occurrence_is_a_job_named_with_its_instant() -> None:
    """The loop wakes for it; deadline and tags count from it; the journal rebuilds all of it."""
    world = World()
    schedule_id = scheduled(world, job={"deadline": "90m", "work": "10m", "tags": {"model": "a"}})
    wake_s = tick(world, 60)
    assert wake_s is not None
    assert wake_s <= HOUR_S
    tick(world, HOUR_S)
    [job] = jobs(world)
    assert job.spec.label == "hourly-19700101T0100Z"
    assert job.owner == "ada"
    assert job.spec.tags == {"model": "a", "lowtide-schedule": schedule_id}
    assert job.spec.env["LOWTIDE_SCHEDULED_AT"] == "1970-01-01T01:00:00+00:00"
    assert job.deadline_us == (HOUR_S + 90 * 60) * 1_000_000
    assert row(world).next_us == 2 * HOUR_S * 1_000_000
    assert replay(world.store.records()).schedules == world.controller.state.schedules
    assert not audit_store(world.store)


@pytest.mark.parametrize(
    ("overlap", "outcomes", "count"),
    [
        ("skip", [Outcome.SUBMITTED, Outcome.SKIPPED, Outcome.SKIPPED], 1),
        ("queue", [Outcome.SUBMITTED, Outcome.SUBMITTED, Outcome.SKIPPED], 2),
        ("replace", [Outcome.SUBMITTED, Outcome.SUBMITTED, Outcome.SUBMITTED], 3),
    ],
)
def test_an_occurrence_minds_the_one_before_it(
    overlap: str, outcomes: list[Outcome], count: int
) -> None:
    """Skip leaves it out, queue lets one wait, replace ends the one that is on."""
    world = World()
    scheduled(world, overlap=overlap)
    seen = []
    for hour in (1, 2, 3):
        tick(world, hour * HOUR_S)
        seen.append(row(world).last_outcome)
    assert seen == outcomes
    made = jobs(world)
    assert len(made) == count
    if overlap == "queue":
        assert [one.job for one in made[1].spec.after] == [made[0].id]
        assert made[1].state is JobState.QUEUED
    if overlap == "replace":
        assert [job.cancel_requested for job in made] == [True, True, False]


@pytest.mark.parametrize(("rule", "count"), [("one", 1), ("none", 0)])
def test_at_most_one_occurrence_is_caught_up_after_an_outage(rule: str, count: int) -> None:
    """Five and a half hours away: the last of five is submitted, or none."""
    world = World()
    scheduled(world, catch_up=rule)
    again = World(world.store, holder="two", at_s=5 * HOUR_S + 1_800)
    again.controller.tick()
    assert len(jobs(again)) == count
    assert row(again).missed == 5 - count
    assert row(again).last_us == 5 * HOUR_S * 1_000_000
    assert row(again).next_us == 6 * HOUR_S * 1_000_000


def test_an_occurrence_that_is_refused_ends_nothing() -> None:
    """The sentence says why, and the next one is due as ever."""
    world = World()
    scheduled(world, job={"gpus": 64})
    tick(world, HOUR_S)
    assert not jobs(world)
    assert row(world).last_outcome is Outcome.REFUSED
    assert "No flavor can hold" in row(world).sentence
    assert row(world).next_us == 2 * HOUR_S * 1_000_000


def test_a_schedule_is_paused_resumed_and_removed() -> None:
    """While it is paused nothing is due, and nothing of that is caught up."""
    world = World()
    schedule_id = scheduled(world)
    world.ask(cmd.HoldSchedule(schedule_id=schedule_id, held=True))
    tick(world, 3 * HOUR_S)
    assert not jobs(world)
    view = world.ask(cmd.HoldSchedule(schedule_id=schedule_id, held=False))
    assert view["next"][:2] == [4 * HOUR_S * 1_000_000, 5 * HOUR_S * 1_000_000]
    world.ask(cmd.RemoveSchedule(schedule_id=schedule_id))
    tick(world, 9 * HOUR_S)
    assert not jobs(world)
    with pytest.raises(UnknownSubjectError):
        world.ask(cmd.RemoveSchedule(schedule_id=schedule_id))
    assert not audit_store(world.store)


def test_a_name_is_taken_once_and_a_trial_leaves_nothing() -> None:
    """A dry run shows the next occurrences."""
    world = World()
    spec = ScheduleSpec.model_validate(
        {"name": "hourly", "cron": "0 * * * *", "job": {"script": "t.py"}}
    )
    view = world.ask(cmd.MakeSchedule(spec=spec, dry_run=True))
    assert len(view["next"]) == 5
    assert not world.controller.state.schedules
    scheduled(world)
    with pytest.raises(ConflictError, match="already"):
        scheduled(world)
    with pytest.raises(LowtideError, match="cron"):
        scheduled(world, name="wrong", cron="99 * * * *")
