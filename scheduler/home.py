"""The folder of an installation: token, database, and where the running server is.

``token`` (mode 0600) is what clients and agents show; ``server.json`` holds ``url`` and ``pid``
while a server runs; ``lowtide.db`` and ``storage/`` are the embedded defaults.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from jobs.errors import LowtideError
from scheduler.ids import IdSource

_PRIVATE = 0o600


class HomeError(LowtideError):
    """The home folder cannot be used."""

    code = "home"


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below one folder, and the few files that we write there."""

    folder: Path

    @property
    def database_url(self) -> str:
        """The embedded database."""
        return f"sqlite:///{self.folder / 'lowtide.db'}"

    @property
    def storage(self) -> str:
        """The embedded object store: a folder."""
        return str(self.folder / "storage")

    @property
    def server_file(self) -> Path:
        """Where the running server says its URL and process id."""
        return self.folder / "server.json"

    def prepare(self) -> None:
        """Create the folder, readable by its owner alone.

        Raises:
            HomeError: it cannot be created.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HomeError(
                f"The folder {self.folder} cannot be made: {error.strerror}.",
                remedy="Set LOWTIDE_HOME to a folder that you may write.",
            ) from error

    def token(self, ids: IdSource) -> str:
        """Give the installation's secret; the first caller makes it.

        Written aside and linked into place, so that two servers starting at once agree.
        """
        path = self.folder / "token"
        if not path.exists():
            aside = self.folder / f".token-{os.getpid()}"
            _write_private(aside, ids.token().encode() + b"\n")
            try:
                os.link(aside, path)
            except FileExistsError:
                pass  # another server was first: its token holds
            finally:
                aside.unlink()
        return path.read_text(encoding="ascii").strip()

    def write_server(self, *, url: str, pid: int, holder: str = "") -> None:
        """Say where the server is; readers see the old or the new, never a part.

        ``holder`` is the name under which it holds the leader's lease.
        """
        aside = self.server_file.with_suffix(f".{pid}")
        told = {"url": url, "pid": pid, "host": socket.gethostname(), "holder": holder}
        _write_private(aside, orjson.dumps(told))
        aside.replace(self.server_file)

    def read_server(self) -> dict[str, Any] | None:
        """Give ``url``, ``pid``, ``host`` and ``holder`` of the last server, None without one."""
        try:
            data: dict[str, Any] = orjson.loads(self.server_file.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return None
        return data

    def forget_server(self, url: str) -> None:
        """Remove ``server.json`` if it still names the server at ``url``."""
        if (self.read_server() or {}).get("url") == url:
            self.server_file.unlink(missing_ok=True)

    def is_dead(self, server: Mapping[str, Any]) -> bool:
        """Whether what ``read_server`` gave is surely over; only its own machine can tell."""
        if server.get("host") != socket.gethostname() or server.get("pid") == os.getpid():
            return False
        try:
            os.kill(int(server["pid"]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
