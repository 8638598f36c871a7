"""A whole installation of real processes: server, agent, local Ray cluster; each may be killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from cluster.providers.local import destroy_cluster
from jobs.client import Client
from jobs.errors import LowtideError

SCRIPT = """
    import argparse, time
    import torch
    from checkpointing import ResumableLoader, Session

    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int)
    parser.add_argument("--pace", type=float, default=0.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(3)
    data = torch.randn(64, 8)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters())
    loader = ResumableLoader(data, batch_size=8, seed=1)
    with Session(model=model, optimizer=optimizer, loader=loader) as session:
        for step in session.steps(args.steps):
            loss = model(next(loader)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            time.sleep(args.pace)
    print("weights", session.final_digest(), flush=True)
"""


class Installation:
    """One home folder with its processes. ``close`` ends all that it started, by their ids."""

    def __init__(self, folder: Path, *, nodes: int = 2, boot: str = "1s") -> None:
        """Write the configuration; start nothing."""
        self.folder = folder
        self.script = folder / "code" / "train.py"
        self.script.parent.mkdir(parents=True)
        self.script.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
        self.port = _free_port()
        self._client: Client | None = None
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._write_configuration(nodes, boot)

    def _write_configuration(self, nodes: int, boot: str) -> None:
        flavor = {
            "name": "spot",
            "market": "spot",
            "accelerator": "A100",
            "gpus": 1,
            "cpus": 4,
            "price_usd_per_hour": "1.2",
            "on_demand_price_usd_per_hour": "3.6",
            "max_nodes": nodes,
            "boot": boot,
            "notice": "5s",
            "idle_release": "60s",
        }
        settings = {
            "clusters": [{"name": "here", "provider": "local", "flavors": [flavor]}],
            "policy": {"cooldown_ms": 2_000, "retry_delay_ms": 200},
            "port": self.port,
        }
        (self.folder / "lowtide.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    @property
    def client(self) -> Client:
        """Give a client that waits a while for a server that is being started again."""
        if self._client is None:
            token = (self.folder / "token").read_text(encoding="ascii").strip()
            self._client = Client(f"http://127.0.0.1:{self.port}", token=token, patience_s=30)
        return self._client

    def start(self, part: str) -> None:
        """Start ``serve`` or ``agent`` (again)."""
        command = [sys.executable, "-m", "scheduler.cli", part]
        if part == "serve":
            command += ["--config", str(self.folder / "lowtide.yaml")]
        else:
            command += ["--cluster", "here"]
        with (self.folder / f"{part}.log").open("ab") as log:
            self._processes[part] = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "LOWTIDE_HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if part == "serve":
            self.until(self._answers, "the server answers", limit_s=40)

    def kill(self, part: str) -> None:
        """SIGKILL one process, not what it started."""
        process = self._processes.pop(part)
        process.kill()
        process.wait(10)

    def submit(self, *, steps: int, pace: float, **spec: object) -> str:
        """Submit the training and give the job's id."""
        job = self.client.submit(
            {
                "script": str(self.script),
                "args": ["--steps", str(steps), "--pace", str(pace)],
                "checkpoint_interval": "1s",
                **spec,
            }
        )
        return str(job.id)

    def detail(self, job_id: str) -> dict[str, Any]:
        """Give a job's row and attempts."""
        return self.client.detail(job_id)

    def until_step(self, job_id: str, step: int) -> None:
        """Wait until a job has completed that many steps and has a restore point."""
        self.until(
            lambda: (
                self.detail(job_id)["job"]["step"] >= step
                and self.detail(job_id)["job"]["restore_point"] is not None
            ),
            f"{job_id} has reached step {step}",
        )

    def until_ended(self, job_id: str) -> dict[str, Any]:
        """Wait for a job's end and give its detail."""
        ends = {"succeeded", "failed", "cancelled"}
        self.until(lambda: self.detail(job_id)["job"]["state"] in ends, f"{job_id} has ended")
        return self.detail(job_id)

    def until(self, condition: Callable[[], bool], what: str, *, limit_s: float = 90) -> None:
        """Wait for a condition; the failure shows the last lines of all logs."""
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {limit_s} s until {what}\n{self._logs()}"
            time.sleep(0.2)

    def children(self, job_id: str) -> list[psutil.Process]:
        """Give the training processes of a job, found by their environment."""
        found = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                line = process.cmdline()
            except psutil.Error:
                continue
            if environment.get("LOWTIDE_JOB_ID") == job_id and "train.py" in " ".join(line):
                found.append(process)
        return found

    def digest(self, job_id: str) -> str:
        """Give the digest of the final weights that the training printed last."""
        lines = [line for line in self.client.job(job_id).logs().splitlines() if "weights" in line]
        return lines[-1].split()[-1]

    def plain_digest(self, steps: int) -> str:
        """Train the same without Lowtide and give the digest."""
        command = [sys.executable, str(self.script), "--steps", str(steps)]
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return output.stdout.split()[-1]

    def close(self) -> None:
        """End the agent with its nodes, then the server."""
        if self._client is not None:
            self._client.close()
        agent = self._processes.get("agent")
        if agent is not None and agent.poll() is None:
            agent.send_signal(signal.SIGTERM)
            self._ended(agent, 30)
        server = self._processes.get("serve")
        if server is not None:
            server.send_signal(signal.SIGTERM)
            self._ended(server, 15)
        destroy_cluster(self.folder / "agents" / "here" / "cluster")

    def _ended(self, process: subprocess.Popen[bytes], limit_s: float) -> None:
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def _answers(self) -> bool:
        process = self._processes["serve"]
        assert process.poll() is None, f"the server ended with {process.returncode}\n{self._logs()}"
        if not (self.folder / "token").exists():
            return False
        try:
            self.client.health()
        except LowtideError:
            return False
        return True

    def _logs(self) -> str:
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            tail = path.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
            parts += [f"--- {path.name}", *tail]
        return "\n".join(parts)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
