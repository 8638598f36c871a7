"""The demo's processes: a real S3 server, the Lowtide server with its agent, a real Ray cluster.

Everything lives in one folder and is ended by the handles that started it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import yaml

from cluster.local_s3 import S3Server, local_s3
from jobs.client import Client
from jobs.errors import LowtideError, UnreachableError
from scheduler.demo.cast import configuration
from scheduler.home import Home

_START_S = 60.0
_STOP_S = 30.0
_POLL_S = 0.2


@contextmanager
def running(folder: Path) -> Iterator[Client]:
    """Run the world for the length of a ``with`` block and give a client to it."""
    with local_s3(folder / "s3") as storage:
        environment = _environment(folder, storage)
        config = folder / "lowtide.yaml"
        settings = configuration(
            folder, storage=f"s3://{storage.bucket}/demo", now=datetime.now(UTC)
        )
        config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        server = _start(folder, config, environment)
        try:
            yield _client(folder, server)
        finally:
            _stop(server)


def _environment(folder: Path, storage: S3Server) -> dict[str, str]:
    return {**os.environ, **storage.environment(), "LOWTIDE_HOME": str(folder)}


def _start(folder: Path, config: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "scheduler.cli", "up", "--config", str(config), "--down"]
    with (folder / "up.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _client(folder: Path, server: subprocess.Popen[bytes]) -> Client:
    """Wait for the server and connect.

    Raises:
        UnreachableError: it did not come up; its last words are in the cause.
    """
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        home = Home(folder)
        found = home.read_server()
        if found is not None and (folder / "token").exists():
            token = (folder / "token").read_text(encoding="ascii").strip()
            client = Client(str(found["url"]), token=token)
            try:
                client.health()
            except LowtideError:
                time.sleep(_POLL_S)
                continue
            return client
        time.sleep(_POLL_S)
    lines = (folder / "up.log").read_text(encoding="utf-8", errors="replace").splitlines()
    raise UnreachableError(
        f"The demo's server did not come up: {' / '.join(lines[-3:])}",
        remedy=f"See {folder / 'up.log'}.",
    )


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is not None:
        return
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(_STOP_S)
