"""A client of a tiny server, in an empty environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.client import Client
from tests.unit.jobs_client.tiny_api import TOKEN, TinyApi


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own installation leaks into a test."""
    monkeypatch.delenv("LOWTIDE_SERVER", raising=False)
    monkeypatch.delenv("LOWTIDE_TOKEN", raising=False)
    monkeypatch.setenv("LOWTIDE_HOME", str(tmp_path / "home"))


@pytest.fixture
def api() -> TinyApi:
    """A server's routes."""
    return TinyApi()


@pytest.fixture
def client(api: TinyApi) -> Iterator[Client]:
    """A client of that server."""
    with api.serving() as url, Client(url, token=TOKEN, patience_s=3) as made:
        yield made


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A folder with a training script."""
    folder = tmp_path / "project"
    folder.mkdir()
    path = folder / "train.py"
    path.write_text("print('hello')\n")
    return path
