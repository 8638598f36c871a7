"""Keeps one agent process per cluster alive, for ``lowtide up``.

An agent outlives the server on purpose: it keeps the training going while the server is away.
So it gets a session of its own (Ctrl-C does not reach it), writes its output to a file, and a
later ``up`` takes a living one over instead of starting a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import psutil
import structlog

from cluster.processes import created_at, is_running, kill_trees
from cluster.providers.local import LocalProvider, kill_node
from cluster.providers.local_head import end_head, head_lives
from cluster.providers.local_state import load_state
from scheduler.agent_process import home_of
from scheduler.home import Home

_LOOK_S = 0.3
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0
_DOWN_S = 20.0
_log = structlog.get_logger("lowtide.agents")

Command = Callable[[str, str], Sequence[str]]
"""Gives the command line of an agent from its cluster's name and the server's URL."""


class Agents:
    """The agents of all clusters of an installation."""

    def __init__(self, clusters: Sequence[str], *, home: Home, command: Command) -> None:
        """Start nothing yet."""
        self._agents = [_Agent(name, home=home, command=command) for name in clusters]

    def start(self, url: str) -> None:
        """Take over or start each agent, and start it again whenever it dies."""
        for agent in self._agents:
            agent.start(url)

    def stop(self, *, down: bool) -> None:
        """Look after them no more; with ``down`` end them, and then their local nodes."""
        for agent in self._agents:
            agent.leave()
        for agent in self._agents:
            if down:
                agent.end()


class _Agent:
    """One agent. ``_pid`` and ``_created`` name its process, which may be another's child."""

    def __init__(self, cluster: str, *, home: Home, command: Command) -> None:
        self._cluster = cluster
        self._folder = home_of(home, cluster)
        self._log_path = self._folder / "agent.log"
        self._pid_path = self._folder / "agent.json"
        self._command = command
        self._url = ""  # of the server that the process was told of
        self._pid, self._created = self._remembered()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, url: str) -> None:
        self._thread = threading.Thread(
            target=self._watch, args=(url,), name=f"agent {self._cluster}", daemon=True
        )
        self._thread.start()

    def leave(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def end(self) -> None:
        """End the agent, then the nodes that it started on this machine."""
        self._end_process()
        self._pid_path.unlink(missing_ok=True)
        end_local_nodes(self._folder / "cluster")

    def _end_process(self) -> None:
        """SIGTERM (nodes and training live on), and after a while SIGKILL to its whole tree."""
        if not self._lives():
            return
        process = psutil.Process(self._pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_DOWN_S)
        except psutil.TimeoutExpired:
            _log.warning("agent does not end, killing it", cluster=self._cluster)
            kill_trees([process])
        self._pid = 0

    def _watch(self, url: str) -> None:
        pause_s = _FIRST_PAUSE_S
        if self._url != url:
            self._end_process()  # it looks for a server that has moved; its successor finds all
        while not self._stop.is_set():
            if self._lives():
                pause_s = max(_FIRST_PAUSE_S, pause_s * 0.98)  # forgets old deaths in a minute
                self._stop.wait(_LOOK_S)
                continue
            if self._pid:
                _log.warning("agent died", cluster=self._cluster, log=str(self._log_path))
                self._pid = 0
                self._stop.wait(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
            if not self._stop.is_set():
                self._spawn(url)

    def _lives(self) -> bool:
        if not self._pid:
            return False
        with contextlib.suppress(ChildProcessError):  # an adopted one is another's child
            os.waitpid(self._pid, os.WNOHANG)
        return is_running(self._pid, created=self._created)

    def _spawn(self, url: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        command = list(self._command(self._cluster, url))
        with self._log_path.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            # Not Popen: it objects to a child that is meant to outlive us.
            self._pid = os.posix_spawn(
                command[0],
                command,
                os.environ,  # noqa: TID251 - handed on as it is
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, nothing.fileno(), 0),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                ],
                setsid=True,
            )
        self._created = created_at(self._pid) or 0.0
        aside = self._pid_path.with_suffix(f".{os.getpid()}")
        told = {"pid": self._pid, "created": self._created, "url": url}
        aside.write_bytes(orjson.dumps(told))
        aside.replace(self._pid_path)

    def _remembered(self) -> tuple[int, float]:
        try:
            data = orjson.loads(self._pid_path.read_bytes())
            self._url = str(data["url"])
            return int(data["pid"]), float(data["created"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0, 0.0


def end_local_nodes(folder: Path) -> None:
    """Kill the raylets and the head of a local cluster whose agent is gone, and remember when.

    The next agent reports these ends, so that nobody pays for the time in between.
    """
    state = load_state(folder / "local.json")
    if state is None:
        return
    if head_lives(state):
        provider = LocalProvider(folder)
        for node_id in provider.node_ids():
            provider.release(node_id)
    for node in state.nodes.values():
        if not node.gone:
            kill_node(state, node)
    end_head(state)
