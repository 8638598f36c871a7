"""How attempt workers come to run on nodes: the Protocol, and plain processes of this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cluster.worker_wire import WorkerOrder
from jobs.codec import encode

Failed = Callable[[str, str], None]
"""Told (attempt id, one line of why) when workers could not be started; from any thread."""


class WorkerLauncher(Protocol):
    """Starts and ends the workers of gangs; never blocks the caller on the world."""

    def start(self, orders: Sequence[WorkerOrder], *, addresses: Sequence[str]) -> None:
        """Start a worker per order on the node of that address; idempotent by attempt id."""

    def stand_by(self, address: str) -> None:
        """Keep a process with its imports done ready on the node, where that can be; idempotent."""

    def end(self, attempt_id: str) -> None:
        """Kill what is left of an attempt's workers; idempotent, also for an unknown id."""

    def sweep(self, keep: Sequence[str]) -> None:
        """End all attempts but these: nobody else knows of them."""

    def close(self) -> None:
        """Let go; workers live on."""


class ProcessLauncher:
    """Workers as processes of this machine, for tests and for nodes without Ray."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Workers get this environment."""
        self._environment = dict(environment)
        self.processes: dict[str, list[subprocess.Popen[bytes]]] = {}

    def start(self, orders: Sequence[WorkerOrder], *, addresses: Sequence[str]) -> None:
        """Start them here, whatever their addresses."""
        attempt_id = orders[0].attempt_id
        if attempt_id not in self.processes:
            self.processes[attempt_id] = [self._spawn(order) for order in orders]

    def stand_by(self, address: str) -> None:
        """Nothing stands ready here: a test that wants it keeps its own."""

    def end(self, attempt_id: str) -> None:
        """Kill them; their children die with them."""
        for process in self.processes.pop(attempt_id, []):
            process.kill()
            process.wait()

    def sweep(self, keep: Sequence[str]) -> None:
        """End all but these."""
        for attempt_id in sorted(set(self.processes) - set(keep)):
            self.end(attempt_id)

    def close(self) -> None:
        """Nothing is held."""

    def _spawn(self, order: WorkerOrder) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.attempt_worker"],
            env=self._environment,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(encode(order))
        process.stdin.close()
        return process
