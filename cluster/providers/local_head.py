"""The Ray head of a local cluster: started once, found again by whoever comes later."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

from cluster.agent_clock import monotonic_us
from cluster.processes import kill_marked, marked
from cluster.providers.local_ray import head_command, last_output, node_ip, ray_environment, spawn
from cluster.providers.local_state import LocalState
from cluster.ray_nodes import GcsView
from jobs.errors import UnreachableError

HEAD = "head"
_START_US = 60_000_000
_POLL_S = 0.1
_SOCKET_ROOM = 40  # a unix socket's path has 107 bytes, Ray needs about 65 of them below its folder


def new_state() -> LocalState:
    """Give the state of a cluster that was never started.

    Ray reads its token once per process, so a process that has one keeps to it.
    """
    token = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(16)
    return LocalState(instance=secrets.token_hex(6), token=token)


def head_lives(state: LocalState) -> bool:
    """Whether the head's processes run and its control store answers."""
    if not state.address or not marked(state.mark(HEAD)) or not _listens(state.address):
        return False
    os.environ.update(ray_environment(state.token))
    return any(node.is_head and node.alive for node in GcsView(state.address).nodes())


def start_head(state: LocalState, *, folder: Path) -> LocalState:
    """Start a head and wait until it takes nodes (5 s on two quiet cores).

    Raises:
        UnreachableError: it did not come up within a minute; its last output is the cause.
    """
    kill_marked(state.mark(HEAD))
    os.environ.update(ray_environment(state.token))
    port = _free_port()
    started = replace(state, temp_dir=_short_folder(), address=f"{node_ip(0)}:{port}")
    process = spawn(
        head_command(port=port, temp_dir=started.temp_dir),
        mark=state.mark(HEAD),
        folder=folder,
        extra=ray_environment(state.token),
    )
    until_us = monotonic_us() + _START_US
    pause = threading.Event()
    while not head_lives(started):
        if process.poll() not in {None, 0} or monotonic_us() > until_us:
            kill_marked(state.mark(HEAD))
            raise UnreachableError(
                f"Ray did not start on this machine: {last_output(folder)}.",
                remedy=f"Read {folder / 'ray-start.log'}; is there memory, and room in /dev/shm?",
            )
        pause.wait(_POLL_S)
    return started


def end_head(state: LocalState) -> None:
    """Kill the head and remove Ray's folder."""
    kill_marked(state.mark(HEAD))
    if state.temp_dir:
        shutil.rmtree(state.temp_dir, ignore_errors=True)


def _listens(address: str) -> bool:
    """Whether somebody listens: Ray's client would wait for 5 s where nobody does."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((node_ip(0), 0))
        return int(probe.getsockname()[1])


def _short_folder() -> str:
    base = tempfile.gettempdir()
    if len(base) > _SOCKET_ROOM and sys.platform != "win32":
        base = "/tmp"  # noqa: S108 - mkdtemp makes a private folder in it
    return tempfile.mkdtemp(prefix="lt-", dir=base)
