"""The home folder: a private token that stays, and where the server is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from scheduler.home import Home, HomeError
from scheduler.ids import RandomIds


def test_the_token_is_private_and_stays(tmp_path: Path) -> None:
    """Only the owner may read it, and a second server gets the same one."""
    home = Home(tmp_path / "h")
    home.prepare()
    token = home.token(RandomIds())
    assert home.token(RandomIds()) == token
    assert (home.folder / "token").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.folder.iterdir()] == ["token"]


def test_a_server_forgets_only_itself(tmp_path: Path) -> None:
    """A server that stops late does not remove the file of the one that followed it."""
    home = Home(tmp_path)
    assert home.read_server() is None
    home.write_server(url="http://127.0.0.1:1", pid=2)
    home.forget_server("http://127.0.0.1:9")
    assert (home.read_server() or {})["url"] == "http://127.0.0.1:1"
    home.forget_server("http://127.0.0.1:1")
    assert home.read_server() is None


def test_only_a_server_that_is_surely_gone_is_dead(tmp_path: Path) -> None:
    """A living process, another machine and ourselves are never taken for dead."""
    home = Home(tmp_path)
    gone = subprocess.Popen(["true"])
    gone.wait()
    home.write_server(url="http://127.0.0.1:1", pid=gone.pid)
    server = home.read_server()
    assert server is not None
    assert home.is_dead(server)
    assert not home.is_dead({**server, "host": "elsewhere"})
    assert not home.is_dead({**server, "pid": os.getppid()})
    assert not home.is_dead({**server, "pid": os.getpid()})


def test_a_home_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    """A file in the way ends in a cause and a remedy that names LOWTIDE_HOME."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(HomeError, match="LOWTIDE_HOME"):
        Home(tmp_path / "file" / "h").prepare()
