"""The command line in this process, talking to a small real HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scheduler.cli.app import run
from tests.unit.jobs_client.tiny_api import TOKEN, TinyApi


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The one JSON value on standard output."""
        return json.loads(self.out)


Lowtide = Callable[..., Outcome]


@pytest.fixture
def lowtide(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Lowtide:
    """Run a command line, in an empty folder and without a server."""
    for name in ("LOWTIDE_SERVER", "LOWTIDE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOWTIDE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> Outcome:
        capfd.readouterr()
        code = run(args)
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return call


@pytest.fixture
def api(lowtide: Lowtide, monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyApi]:
    """A server that the command line finds."""
    made = TinyApi()
    with made.serving() as url:
        monkeypatch.setenv("LOWTIDE_SERVER", url)
        monkeypatch.setenv("LOWTIDE_TOKEN", TOKEN)
        yield made
