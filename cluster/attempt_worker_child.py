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
from jobs.spec import JobSpec

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
    local = rank - order.ranks.start
    environment = {
        **_loopback(go.host),
        **general_environment(spec, inherited=inherited),
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
    environment["PYTHONPATH"] = _joined(str(folder), environment["PYTHONPATH"])
    if spec.checkpoint_interval is not None:
        # 0 = continuously; on this wire 0 would mean the automatic cadence.
        environment["LOWTIDE_CHECKPOINT_INTERVAL_MS"] = str(max(1, spec.checkpoint_interval))
    return environment


def general_environment(spec: JobSpec, *, inherited: Mapping[str, str]) -> dict[str, str]:
    """Give the part of a child's environment that all attempts of such jobs have here."""
    base = {key: text for key, text in inherited.items() if not key.startswith(_OURS_ONLY)}
    return {
        "OMP_NUM_THREADS": str(max(1, spec.cpus // spec.processes)),
        "PYTHONUNBUFFERED": "1",
        **{key: text for key, text in base.items() if key != "OMP_NUM_THREADS"},
        **spec.env,
        "PYTHONPATH": _joined(spec.env.get("PYTHONPATH", ""), base.get("PYTHONPATH", "")),
    }


def _joined(*paths: str) -> str:
    return os.pathsep.join(path for path in paths if path)


def _loopback(host: str) -> dict[str, str]:
    if not host.startswith("127."):
        return {}
    return {"GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0"}


class Trainee:
    """A training process in a session of its own, and the file that it writes its output to."""

    def __init__(self, *, rank: int, spool: Path, pid: int) -> None:
        """``pid`` is that of the process, and of its session."""
        self.rank = rank
        self.spool = spool
        self.pid = pid

    def poll(self) -> int | None:
        """Give the exit code once it is gone; what it left behind is killed then."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL it and what it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def tail(self) -> str:
        """Give the last lines that it wrote."""
        with self.spool.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])


class Child(Trainee):
    """A process that was started cold. Start it from a thread that lives as long as the worker."""

    def __init__(
        self,
        command: list[str],
        *,
        rank: int,
        folder: Path,
        environment: Mapping[str, str],
        spool: Path,
    ) -> None:
        """Start it, both output streams appended to ``spool``."""
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
        super().__init__(rank=rank, spool=spool, pid=self._process.pid)
        with suppress(ProcessLookupError, PermissionError):
            os.setpriority(os.PRIO_PROCESS, self.pid, _NICE)

    def poll(self) -> int | None:
        """Give the exit code once it is gone; what it left behind is killed then."""
        code = self._process.poll()
        if code is not None:
            super().kill()
        return code

    def kill(self) -> None:
        """SIGKILL it and what it started."""
        super().kill()
        with suppress(ProcessLookupError):
            self._process.kill()


def python_command(script: str, *, args: tuple[str, ...]) -> list[str]:
    """Give the command that runs a user's script."""
    return [sys.executable, script, *args]
