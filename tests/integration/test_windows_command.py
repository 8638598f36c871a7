"""`lowtide windows` on a real server: what holds, what a file would change, and what is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.cli.app import run
from scheduler.window_settings import FeedSettings, WindowSettings
from tests.integration.served import Served, settings, wait_until

pytestmark = pytest.mark.integration

IDLE = {"name": "idle", "flavors": ["od"], "price_percent": 0, "rests_on": "reserved-idle"}


@pytest.fixture(name="served")
def a_server(tmp_path: Path) -> Iterator[Served]:
    """Give a server with a window that is always open."""
    windows = (WindowSettings.model_validate(IDLE),)
    server = Served(tmp_path / "home", price_windows=windows)
    try:
        wait_until(lambda: server.http.get("/v1/windows").status_code == 200)
        yield server
    finally:
        server.stop()


def test_windows_are_listed_and_tried(served: Served) -> None:
    """The list says what holds; a trial lists what would, names mistakes, and changes nothing."""
    listed = served.http.get("/v1/windows").json()
    (idle,) = listed["windows"]
    assert (idle["name"], idle["open"], idle["rests_on"]) == ("idle", True, "reserved-idle")
    assert idle["prices"][0]["usd_nanos_per_hour"] == 0
    assert listed["learned"] == []  # nothing was observed for a week yet
    text = "price_windows:\n  - {name: half, price_percent: 50}\n"
    tried: dict[str, Any] = served.http.post("/v1/windows/trial", json={"text": text}).json()
    assert [one["name"] for one in tried["windows"]] == ["half"]
    assert tried["changes"] == []
    assert served.http.get("/v1/windows").json()["windows"] == listed["windows"]
    bad = {"text": text.replace("name: half", "name: half, regions: [moon]"), "source": "w.yaml"}
    refused = served.http.post("/v1/windows/trial", json=bad)
    assert refused.status_code in {400, 422}
    assert "w.yaml, line 2, field 'price_windows.0.regions'" in refused.text
    assert settings().windows == ()


def test_an_old_price_is_said_and_found_by_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A feed whose file was written hours ago: its price holds, with its age, and is a finding."""
    path = tmp_path / "prices.json"
    path.write_text('{"spot": 0.2, "od": -1}', encoding="utf-8")
    hours_ago = path.stat().st_mtime - 5 * 3_600
    os.utime(path, (hours_ago, hours_ago))
    server = Served(tmp_path / "home", price_feed=FeedSettings(file=str(path)))
    try:
        wait_until(lambda: server.http.get("/v1/windows").status_code == 200)
        (old,) = server.http.get("/v1/windows").json()["stale_prices"]
        assert old.startswith("The price of spot was last heard ")
        assert "5.0 h ago: decisions take it as 10 % dearer." in old
        monkeypatch.setenv("LOWTIDE_HOME", str(tmp_path / "home"))
        capsys.readouterr()  # the server logs into this process
        run(["doctor", "--json"])
        checks = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
        assert not checks["prices"]["ok"]
        assert "spot was last heard" in checks["prices"]["detail"]
    finally:
        server.stop()


def test_applied_windows_hold_at_once_and_after_a_restart(served: Served, tmp_path: Path) -> None:
    """They replace those of the file; prices follow from now on, and the audit agrees."""
    text = "price_windows:\n  - {name: half, flavors: [od], price_percent: 50}\n"
    assert served.http.post("/v1/windows", json={"text": text}).json() == {"applied": ["half"]}
    wait_until(lambda: _names(served) == ["half"])
    priced = {row["name"]: row["now"] for row in served.http.get("/v1/flavors").json()["flavors"]}
    assert priced["od"]["usd_nanos_per_hour"] == 450_000_000
    assert served.http.get("/v1/audit").json()["findings"] == []
    served.stop()
    again = Served(tmp_path / "home")
    try:
        wait_until(lambda: again.http.get("/v1/windows").status_code == 200)
        assert _names(again) == ["half"]
    finally:
        again.stop()


def _names(served: Served) -> list[str]:
    return [one["name"] for one in served.http.get("/v1/windows").json()["windows"]]
