"""The examples of docs/budgets.md work as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.budget_settings import parse_budgets
from scheduler.cli.app import run
from tests.guide import ROOT
from tests.integration.served import Served

pytestmark = pytest.mark.integration


def blocks(kind: str) -> list[str]:
    """Give the guide's blocks of one language."""
    text = (ROOT / "docs" / "budgets.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Run a server that the commands find."""
    server = Served(tmp_path / "home")
    monkeypatch.setenv("LOWTIDE_HOME", str(server.home.folder))
    yield server.lead()
    server.stop()


def test_the_file_is_read_and_applied(served: Served, tmp_path: Path) -> None:
    """Every field of the guide's file, and the two commands below it."""
    (text,) = blocks("yaml")
    assert [one.name for one in parse_budgets(text, source="guide")] == [
        "ads-monthly",
        "search-nights",
        "launch",
        "everybody-soft",
    ]
    file = tmp_path / "budgets.yaml"
    file.write_text(text)
    assert run(["budgets", "apply", "-f", str(file), "--dry-run"]) == 0
    assert run(["budgets", "apply", "-f", str(file), "--why", "plan"]) == 0
    assert len(served.http.get("/v1/budgets").json()["budgets"]) == 4


def test_the_commands(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """Each ends well, and the last one leaves nothing behind."""
    (commands,) = blocks("console")
    for line in commands.splitlines():
        assert run(shlex.split(line)[1:]) == 0, line
    assert "maps-weekly" in capsys.readouterr().out
    assert served.http.get("/v1/budgets").json()["budgets"] == []


def test_the_python_example(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what is left of the budget that it set."""
    (code,) = blocks("python")
    exec(compile(code, "guide", "exec"), {})  # noqa: S102 - the guide's own words
    assert "ads-daily 120.0 open" in capsys.readouterr().out
    assert served.http.get("/v1/budgets").json()["budgets"] == []
