"""Taking the process that stands ready on this node, instead of a cold start."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.agent_clock import now_us
from cluster.attempt_worker_child import Trainee
from cluster.standby_host import SOCKET_SUFFIX
from cluster.standby_keeper import FOLDER

_ANSWER_S = 5.0
_LENGTH = struct.Struct(">I")
_KILLED = -9
_READ_BYTES = 4_096


class AdoptedChild(Trainee):
    """A training process that stood ready; its host, the parent, says how it ended."""

    def __init__(self, link: socket.socket, *, pid: int, rank: int, spool: Path) -> None:
        """``link`` is the connection to its host, which kills it when that is closed."""
        super().__init__(rank=rank, spool=spool, pid=pid)
        self._link = link
        self._code: int | None = None

    def poll(self) -> int | None:
        """Give the exit code once it is gone; what it left behind is killed then."""
        if self._code is None and select.select([self._link], [], [], 0)[0]:
            said = _line(self._link)
            # Without a word the host was killed, and the child with it.
            self._code = int(said.get("code", _KILLED))
            self._link.close()
            self.kill()
        return self._code


def take_standby(
    command: list[str],
    *,
    rank: int,
    folder: Path,
    environment: Mapping[str, str],
    spool: Path,
    scratch: Path,
) -> AdoptedChild | None:
    """Give the process that became the command; None where a cold start is needed."""
    variables = {**environment, "LOWTIDE_ADOPTED_US": str(now_us())}
    request = {"command": command, "cwd": str(folder), "environment": variables}
    for path in (scratch / FOLDER).glob(f"*{SOCKET_SUFFIX}"):
        link = _connected(path)
        if link is None:
            continue
        with suppress(OSError, ValueError):
            pid = _asked(link, request, spool=spool).get("pid")
            if pid:
                return AdoptedChild(link, pid=int(pid), rank=rank, spool=spool)
        link.close()  # if it was taken after all, its host ends it now
    return None


def _connected(path: Path) -> socket.socket | None:
    """Connect to a host; by its folder's descriptor, as a socket's path may not be long."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(_ANSWER_S)
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            link.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
    except OSError:
        link.close()
        path.unlink(missing_ok=True)  # of a host that was killed
        return None
    return link


def _asked(link: socket.socket, request: dict[str, Any], *, spool: Path) -> dict[str, Any]:
    body = json.dumps(request).encode()
    with spool.open("ab") as output:
        socket.send_fds(link, [_LENGTH.pack(len(body))], [output.fileno()])
    link.sendall(body)
    return _line(link)


def _line(link: socket.socket) -> dict[str, Any]:
    """Read one line; an empty answer when the other end is gone."""
    text = b""
    with suppress(OSError):
        while not text.endswith(b"\n"):
            data = link.recv(_READ_BYTES)
            if not data:
                return {}
            text += data
    found: dict[str, Any] = json.loads(text or b"{}")
    return found
