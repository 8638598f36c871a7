"""Lowtide's side of `benchmarks.restart`: a whole installation, its nodes killed one by one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from benchmarks import restart_training
from benchmarks.restart_training import Done, steps_of
from cluster.local_s3 import local_s3
from cluster.providers.local import kill_node
from cluster.providers.local_state import load_state
from jobs.client import Client
from jobs.errors import LowtideError

CLUSTER = "here"
_LIMIT_S = 120.0
_STEPS = 100_000
_ROOT = Path(__file__).resolve().parents[1]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How the trainings of both sides step and save."""

    step_s: float = 0.1
    save_every_steps: int = 10

    @property
    def save_every_s(self) -> float:
        """The same interval as a time."""
        return self.step_s * self.save_every_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """One death and what followed; durations in seconds."""

    first_step_s: float  # until the new process has completed a step
    new_step_s: float  # until a step is complete that the old one had not reached
    steps_lost: int
    phases: dict[str, float] = field(default_factory=dict)
    stood_ready: bool = False  # the process had its imports done


def until(condition: Callable[[], T], what: str, *, limit_s: float = _LIMIT_S) -> T:
    """Wait for a true value and give it; it is looked at often, to time it well."""
    deadline = time.monotonic() + limit_s
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {limit_s} s until {what}"
        pause.wait(0.01)
    return found


def measure(before: list[Done], *, after: list[Done], killed_us: int) -> Restart:
    """Make the figures of a restart from the log at the death and the log afterwards."""
    last = max(done.step for done in before)
    first = after[0]
    new = next(done for done in after if done.step > last)
    return Restart(
        first_step_s=(first.at_us - killed_us) / 1e6,
        new_step_s=(new.at_us - killed_us) / 1e6,
        steps_lost=last + 1 - first.step,
    )


class Lowtide:
    """A running installation with a spot flavor and one training."""

    def __init__(self, folder: Path, *, pace: Pace, client: Client) -> None:
        """Use a server that is up."""
        self._folder = folder
        self._pace = pace
        self._client = client
        self._log = folder / "steps.log"
        self._code = folder / "code"
        self._code.mkdir()
        shutil.copy(restart_training.__file__, self._code / "train.py")

    def begin(self) -> str:
        """Start the training and give its job."""
        job_id = self._submit(_STEPS, log=self._log)
        self._until_saved(job_id, above=-1)
        return job_id

    def spare(self) -> None:
        """Have a node up with nothing on it: left over by a short job."""
        if not self._idle():
            short = self._submit(3, log=self._folder / "short.log")
            until(lambda: self._detail(short)["job"]["state"] == "succeeded", "a short job is done")
        until(self._idle, "a spare node is up")
        until(self._ready, "a process stands ready on it")

    def kill(self, job_id: str) -> Restart:
        """Kill the node under the training, without a word, and see it go on."""
        node_id = self._settled(job_id)
        before = steps_of(self._log)
        state = load_state(self._folder / "agents" / CLUSTER / "cluster" / "local.json")
        assert state is not None
        killed_us = time.time_ns() // 1_000
        kill_node(state, state.nodes[node_id])
        before = steps_of(self._log)
        return self._followed(job_id, before, killed_us)

    def evict(self, job_id: str, *, notice: str) -> Restart:
        """Evict the node with a notice; the clock begins at its last step."""
        node_id = self._settled(job_id)
        old = self._detail(job_id)["job"]["attempt_id"]
        self._client.evict(node_id, notice=notice)
        until(lambda: self._detail(job_id)["job"]["attempt_id"] not in {old, ""}, "it moves")
        pid = steps_of(self._log)[-1].pid
        before = [done for done in steps_of(self._log) if done.pid == pid]
        return self._followed(job_id, before, before[-1].at_us)

    def end(self, job_id: str) -> list[dict[str, Any]]:
        """Cancel the training and give its attempts."""
        detail = self._detail(job_id)
        self._client.act(job_id, "cancel")
        attempts: list[dict[str, Any]] = detail["attempts"]
        return attempts

    def _followed(self, job_id: str, before: list[Done], killed_us: int) -> Restart:
        last, old = max(done.step for done in before), before[-1].pid

        def went_on() -> list[Done]:
            since_us = before[-1].at_us
            found = steps_of(self._log)
            after = [done for done in found if done.at_us > since_us and done.pid != old]
            return after if any(done.step > last for done in after) else []

        found = measure(before, after=until(went_on, "it trains again"), killed_us=killed_us)
        until(lambda: self._caught_up(job_id), "the server knows")
        detail = self._detail(job_id)
        row = detail["attempts"][-1]
        phases = {name: us / 1e6 for name, us in detail["phases"][row["id"]].items()}
        return replace(found, phases=phases, stood_ready=row["standby"])

    def _caught_up(self, job_id: str) -> bool:
        return self._detail(job_id)["attempts"][-1]["caught_up_us"] is not None

    def _settled(self, job_id: str) -> str:
        """Wait until it trains and has saved in this attempt; give its node."""
        row = self._detail(job_id)["attempts"][-1]
        self._until_saved(job_id, above=row["first_step"])
        return str(self._detail(job_id)["attempts"][-1]["node_ids"][0])

    def _until_saved(self, job_id: str, *, above: int) -> None:
        def saved() -> bool:
            point = self._detail(job_id)["job"]["restore_point"]
            return point is not None and point["step"] > above

        until(saved, "it has saved")

    def _submit(self, steps: int, *, log: Path) -> str:
        job = self._client.submit(
            {
                "script": str(self._code / "train.py"),
                "args": [
                    "--steps",
                    str(steps),
                    "--pace",
                    str(self._pace.step_s),
                    "--log",
                    str(log),
                ],
                "checkpoint_interval": f"{self._pace.save_every_s:g}s",
            }
        )
        return str(job.id)

    def _idle(self) -> bool:
        return any(n["state"] == "ready" and n["idle_since_us"] for n in self._client.nodes())

    def _ready(self) -> bool:
        nodes = self._folder / "agents" / CLUSTER / "cluster" / "nodes"
        idle = [n["id"] for n in self._client.nodes() if n["idle_since_us"]]
        return any(any((nodes / one / "standby").glob("*.socket")) for one in idle)

    def _detail(self, job_id: str) -> dict[str, Any]:
        return self._client.detail(job_id)


@contextmanager
def lowtide(folder: Path, *, pace: Pace) -> Iterator[Lowtide]:
    """Run S3, server, agent and a local cluster for the length of a ``with`` block."""
    with local_s3(folder / "s3") as storage:
        _write_configuration(folder, storage=f"s3://{storage.bucket}/restart")
        environment = {**os.environ, **storage.environment(), "LOWTIDE_HOME": str(folder)}
        environment["PYTHONPATH"] = str(_ROOT)
        server = _start(folder, environment)
        try:
            with _client(folder, server) as client:
                yield Lowtide(folder, pace=pace, client=client)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


def _write_configuration(folder: Path, *, storage: str) -> None:
    flavor = {
        "name": "spot",
        "market": "spot",
        "accelerator": "A100",
        "gpus": 1,
        "cpus": 2,
        "price_usd_per_hour": "1.2",
        "on_demand_price_usd_per_hour": "3.6",
        "max_nodes": 3,
        "boot": "1s",
        "notice": "10s",
        "idle_release": "30m",
    }
    clusters = [{"name": CLUSTER, "provider": "local", "flavors": [flavor]}]
    settings = {"clusters": clusters, "storage": storage, "port": 0}
    (folder / "lowtide.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def _start(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "scheduler.cli", "up", "--down"]
    with (folder / "up.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--config", str(folder / "lowtide.yaml")],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _client(folder: Path, server: subprocess.Popen[bytes]) -> Client:
    from scheduler.home import Home

    def connected() -> Client | None:
        assert server.poll() is None, (folder / "up.log").read_text(encoding="utf-8")[-2_000:]
        found = Home(folder).read_server()
        if found is None or not (folder / "token").exists():
            return None
        token = (folder / "token").read_text(encoding="ascii").strip()
        client = Client(str(found["url"]), token=token)
        try:
            client.health()
        except LowtideError:
            return None
        return client

    found = until(connected, "the server answers")
    assert found is not None, "until gives what is true"
    return found
