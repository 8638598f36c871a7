"""Schedules, arrays and groups come out of every store as they went in."""

from __future__ import annotations

from dataclasses import replace

from jobs.fold import replay
from jobs.recurrence import Outcome, ScheduleSpec
from jobs.schedule_events import OccurrenceDue, ScheduleHeld, ScheduleMade, ScheduleRemoved
from jobs.store import JobStore
from jobs.wants import ArrayPlace
from tests.builders import HOUR_US, START_US, History, a_job


def a_nightly_history() -> History:
    """Give a schedule that occurred once, one that was removed, and an array of two."""
    spec = ScheduleSpec.model_validate(
        {
            "name": "nightly",
            "cron": "30 2 * * *",
            "time_zone": "Europe/Berlin",
            "ends": "2027-01-01T00:00:00+01:00",
            "job": {"script": "train.py", "deadline": "6h", "array": {"count": 2}},
        }
    )
    history = History()
    for name in ("nightly-1", "nightly-2"):
        made = ScheduleMade(
            at_us=history.now_us, schedule_id=name, spec=spec, owner="ada", next_us=START_US
        )
        history.add(name, made)
    for index in range(2):
        place = ArrayPlace(id="night", index=index, size=2, max_parallel=1)
        event = a_job(f"night.{index}").at(history.now_us).submitted()
        group = ("night", "other") if index == 0 else ()
        history.add(event.job_id, replace(event, array=place, group=group))
    due = OccurrenceDue(
        at_us=history.now_us,
        schedule_id="nightly-1",
        due_us=START_US,
        outcome=Outcome.SUBMITTED,
        sentence="Submitted.",
        next_us=START_US + 24 * HOUR_US,
        job_ids=("night.0", "night.1"),
        missed=3,
    )
    history.add("nightly-1", due)
    held = ScheduleHeld(at_us=history.now_us, schedule_id="nightly-1", held=True, next_us=None)
    history.add("nightly-1", held)
    gone = ScheduleRemoved(at_us=history.now_us, schedule_id="nightly-2")
    return history.add("nightly-2", gone)


def test_what_was_committed_is_loaded_and_listed(store: JobStore) -> None:
    """Rows, journal and list agree; a removed schedule is kept but not listed."""
    epoch = store.acquire_leadership("one", now_us=0, ttl_us=1_000)
    assert epoch is not None
    history = a_nightly_history()
    store.commit(history.batch(), epoch=epoch)
    loaded = store.load()
    assert loaded.schedules == history.state.schedules
    assert loaded.jobs == history.state.jobs
    assert replay(store.records()).schedules == loaded.schedules
    [row] = store.schedules()
    assert (row.id, row.submitted, row.missed, row.held) == ("nightly-1", 1, 3, True)
    assert row.job_ids == ("night.0", "night.1")
    assert loaded.jobs["night.0"].group == ("night", "other")
    assert loaded.jobs["night.1"].array == ArrayPlace(id="night", index=1, size=2, max_parallel=1)
