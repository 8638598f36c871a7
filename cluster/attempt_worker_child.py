"""Training children: their environment, their start, their output, their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cluster import attempt_worker_exec
from cluster.worker_wire import Go, WorkerOrder

_TAIL_BYTES = 4_000
_TAIL_LINES = 12
_NICE = 5  # the cluster's own processes stay responsive while training takes every core
_OURS_ONLY = ("RAY_", "LOWTIDE_NODE_DIR")  # Ray's cluster token among them


def child_environment(
    order: WorkerOrder,
    *,
    rank: int,
    go: Go,
    control: Path,
    folder: Path,
    inherited: Mapping[str, str],
) -> dict[str, str]:
    """Give a child's environment: inherited, then the user's, then what we promise.

    The code's folder leads ``PYTHONPATH``, so that the user's own ``scheduler.py`` or ``jobs/``
    wins over anything installed.
    """
    spec = order.spec
    base = {key: text for key, text in inherited.items() if not key.startswith(_OURS_ONLY)}
    local = rank - order.ranks.start
    environment = {
        "OMP_NUM_THREADS": str(max(1, spec.cpus // spec.processes)),
        "PYTHONUNBUFFERED": "1",
        **_loopback(go.host),
        **{key: text for key, text in base.items() if key != "OMP_NUM_THREADS"},
        **spec.env,
        "LOWTIDE_JOB_ID": order.job_id,
        "LOWTIDE_ATTEMPT_ID": order.attempt_id,
        "LOWTIDE_EPOCH": str(order.epoch),
        "LOWTIDE_CHECKPOINT_URI": order.storage,
        "LOWTIDE_CONTROL": str(control),
        "RANK": str(rank),
        "WORLD_SIZE": str(order.world_size),
        "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(spec.processes),
        "MASTER_ADDR": go.host,
        "MASTER_PORT": str(go.port),
    }
    paths = (str(folder), spec.env.get("PYTHONPATH", ""), base.get("PYTHONPATH", ""))
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if spec.checkpoint_interval is not None:
        # 0 = continuously; on this wire 0 would mean the automatic cadence.
        environment["LOWTIDE_CHECKPOINT_INTERVAL_MS"] = str(max(1, spec.checkpoint_interval))
    return environment


def _loopback(host: str) -> dict[str, str]:
    if not host.startswith("127."):
        return {}
    return {"GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0"}


class Child:
    """One training process. Start it from a thread that lives as long as the worker."""

    def __init__(
        self,
        command: list[str],
        *,
        rank: int,
        folder: Path,
        environment: Mapping[str, str],
        spool: Path,
    ) -> None:
        """Start it in a session of its own, both output streams appended to ``spool``."""
        self.rank = rank
        self.spool = spool
        shim = [sys.executable, "-I", "-S", attempt_worker_exec.__file__, str(os.getpid())]
        with spool.open("ab") as output:
            self._process = subprocess.Popen(
                [*shim, *command],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        with suppress(ProcessLookupError, PermissionError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICE)

    @property
    def pid(self) -> int:
        """Its process id, and that of its session."""
        return self._process.pid

    def poll(self) -> int | None:
        """Give the exit code once it is gone; what it left behind is killed then."""
        code = self._process.poll()
        if code is not None:
            self._kill_group()
        return code

    def kill(self) -> None:
        """SIGKILL it and what it started."""
        self._kill_group()
        with suppress(ProcessLookupError):
            self._process.kill()

    def tail(self) -> str:
        """Give the last lines that it wrote."""
        with self.spool.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def python_command(script: str, *, args: tuple[str, ...]) -> list[str]:
    """Give the command that runs a user's script."""
    return [sys.executable, script, *args]
