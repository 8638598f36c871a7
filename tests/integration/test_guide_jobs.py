"""The guide to jobs: each of its examples works as it stands, against a real server."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.cli.app import run
from tests.guide import ROOT
from tests.integration.served import Served

pytestmark = pytest.mark.integration

GUIDE = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run one server."""
    server = Served(tmp_path_factory.mktemp("home"))
    yield server.lead()
    server.stop()


@pytest.fixture(autouse=True)
def at_home(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with a script, with the server's address and token."""
    token = (served.home.folder / "token").read_text(encoding="ascii").strip()
    monkeypatch.setenv("LOWTIDE_SERVER", served.server.url)
    monkeypatch.setenv("LOWTIDE_TOKEN", token)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print('trained')\n")


def test_every_kind_of_example_is_run() -> None:
    """No block is in a language that the test below does not run."""
    assert {kind for kind, _ in BLOCKS} == {"sh", "python", "yaml"}


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example(number: int, tmp_path: Path) -> None:
    """Commands end well, programs run, files are accepted."""
    kind, text = BLOCKS[number]
    if kind == "python":
        done = subprocess.run(
            [sys.executable, "-c", text],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3_000:]
    elif kind == "yaml":
        (tmp_path / "jobs.yaml").write_text(text)
        assert run(["submit", "--from", "jobs.yaml"]) == 0
    else:
        for line in text.splitlines():
            assert run(shlex.split(line)[1:]) == 0, line
