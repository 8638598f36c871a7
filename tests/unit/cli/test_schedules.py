"""``lowtide schedules`` against a small real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.archive import pack
from jobs.codec import to_data
from jobs.recurrence import ScheduleSpec
from jobs.state import State
from scheduler.ids import CountedIds
from scheduler.schedule_desk import ScheduleDesk, schedule_view
from tests.unit.cli.conftest import Lowtide
from tests.unit.jobs_client.tiny_api import TinyApi


def view() -> dict[str, Any]:
    """Give a schedule as the server answers it."""
    spec = ScheduleSpec.model_validate(
        {
            "name": "nightly",
            "cron": "30 2 * * *",
            "time_zone": "Europe/Berlin",
            "job": {"script": "train.py"},
        }
    )
    row = ScheduleDesk(State(), CountedIds()).trial(spec, now_us=1_796_083_200_000_000)
    return {**schedule_view(row, now_us=row.made_us), "schedule": {**to_data(row), "id": "n-1"}}


def test_a_schedule_is_made_from_options(api: TinyApi, lowtide: Lowtide, tmp_path: Path) -> None:
    """The code goes up once; the next five occurrences are shown in the schedule's zone."""
    (tmp_path / "train.py").write_text("print()")
    archive = pack(tmp_path)
    api.on_each("HEAD", f"/v1/code/{archive.sha256}", (404, b""), (200, b""))
    api.on("PUT", f"/v1/code/{archive.sha256}", {"new": True}, status=201)
    api.on("POST", "/v1/schedules", view(), status=201)
    zone = ("--time-zone", "Europe/Berlin")
    made = lowtide(
        "schedules", "add", "train.py", "--cron", "30 2 * * *", *zone, "--deadline", "6h"
    )
    assert made.code == 0, made.err
    lines = made.out.splitlines()
    assert lines[0] == "schedule n-1 is made"
    assert lines[1].strip() == "Tue 01 Dec 2026 02:30 CET"
    assert len(lines) == 6
    sent = api.asked("POST", "/v1/schedules")[-1].data
    assert (sent["name"], sent["cron"], sent["job"]["deadline"]) == ("train", "30 2 * * *", "6h")
    assert sent["job"]["code"] == archive.sha256


def test_a_schedule_is_made_from_a_file(api: TinyApi, lowtide: Lowtide, tmp_path: Path) -> None:
    """The script lies beside the file; an option wins."""
    (tmp_path / "train.py").write_text("print()")
    text = "name: nightly\ncron: 30 2 * * *\noverlap: queue\njob: {script: train.py, gpus: 2}\n"
    (tmp_path / "nightly.yaml").write_text(text)
    api.on("POST", "/v1/schedules", view())
    given = ("--from", "nightly.yaml", "--overlap", "replace", "--dry-run", "--json")
    assert lowtide("schedules", "add", *given).data["schedule"]["id"] == "n-1"
    [sent] = [one.data for one in api.asked("POST", "/v1/schedules")]
    assert (sent["overlap"], sent["job"]["gpus"]) == ("replace", "2")


def test_a_wrong_schedule_is_refused_here(lowtide: Lowtide, tmp_path: Path) -> None:
    """One line of cause, one of remedy, nothing sent."""
    (tmp_path / "train.py").write_text("print()")
    refused = lowtide("schedules", "add", "train.py", "--cron", "2 * *")
    assert refused.code == 2
    assert "cron" in refused.err


@pytest.mark.parametrize(("verb", "says"), [("pause", "is paused"), ("resume", "goes on")])
def test_it_is_looked_at_paused_and_removed(
    api: TinyApi, lowtide: Lowtide, verb: str, says: str
) -> None:
    """Each with its sentence, and with the server's answer as JSON."""
    api.on("GET", "/v1/schedules", {"schedules": [view()]})
    api.on("GET", "/v1/schedules/n-1", view())
    api.on("POST", f"/v1/schedules/n-1/{verb}", view())
    api.on("DELETE", "/v1/schedules/n-1", view())
    assert "n-1" in lowtide("schedules", "ls").out
    assert lowtide("schedules", "show", "n-1").out.count("Dec 2026 02:30 CET") == 5
    assert says in lowtide("schedules", verb, "n-1").out
    assert "removed" in lowtide("schedules", "rm", "n-1").out
    assert lowtide("schedules", "ls", "--json").data == [view()]
