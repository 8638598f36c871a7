"""Process trees that must end whole: found by a mark in their environment and by descent.

A raylet's death leaves its workers behind for minutes, and a worker's death leaves its training
children. So everything that a node starts inherits ``LOWTIDE_NODE=<mark>`` and a session; ending a
node means to kill whatever carries the mark or is in the session, and its descendants, until
nothing is left. (The mark alone is not enough: Ray's workers overwrite their environment with a
process title. The session alone is not enough: training children have their own.)
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable

import psutil

from cluster.agent_clock import monotonic_us

NODE_MARK = "LOWTIDE_NODE"
_ROUNDS = 5
_ROUND_S = 1.0
_LOOK_S = 0.01
# The kernel tells when a process began by the boot time in whole seconds, and an adjusted wall
# clock moves that: the same process has been seen to be a second older.
_CLOCK_SLACK_S = 2.0


def marked(mark: str, *, name: str = NODE_MARK) -> list[psutil.Process]:
    """Give the living processes whose environment carries ``name=mark``."""
    return [process for process in psutil.process_iter() if _carries(process, name, mark)]


def is_running(pid: int, *, created: float) -> bool:
    """Whether the very process that had this pid at ``created`` still lives (zombies do not)."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < _CLOCK_SLACK_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def created_at(pid: int) -> float | None:
    """Give the creation time that tells this process from a later one with the same pid."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def in_session(leader: int, *, since: float) -> list[psutil.Process]:
    """Give the living members of the session that ``leader`` opened, none started before it."""
    return [process for process in psutil.process_iter() if _is_member(process, leader, since)]


def kill_marked(mark: str, *, name: str = NODE_MARK, session: int = 0, since: float = 0) -> bool:
    """SIGKILL all with the mark or in the session, and descendants; True when none is left."""
    for _ in range(_ROUNDS):
        found = marked(mark, name=name)
        if session:
            found += in_session(session, since=since)
        if not found:
            return True
        kill_trees(found)
    return False


def kill_trees(roots: Iterable[psutil.Process]) -> None:
    """SIGKILL processes and their descendants, and wait up to a second for their end."""
    doomed: dict[int, psutil.Process] = {}
    for root in roots:
        doomed[root.pid] = root
        with contextlib.suppress(psutil.NoSuchProcess):
            doomed.update((child.pid, child) for child in root.children(recursive=True))
    for process in doomed.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    # Not wait_procs: it also waits until somebody else has taken note of their end.
    until_us, pause = monotonic_us() + int(_ROUND_S * 1_000_000), threading.Event()
    while any(_lives(process) for process in doomed.values()) and monotonic_us() < until_us:
        pause.wait(_LOOK_S)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _carries(process: psutil.Process, name: str, mark: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(name) == mark
    except (psutil.Error, OSError):
        return False  # ended meanwhile, or another user's


def _is_member(process: psutil.Process, leader: int, since: float) -> bool:
    try:
        return (
            os.getsid(process.pid) == leader
            and process.create_time() > since - _CLOCK_SLACK_S
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except (psutil.Error, OSError):
        return False  # ended meanwhile, or another user's
