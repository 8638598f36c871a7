"""Ray Train's side of `benchmarks.restart`: TorchTrainer with FailureConfig on the same nodes.

Checkpoints go to a folder of this machine, its best case; ours go to an S3 server.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.restart_ours import Pace, Restart, measure, until
from benchmarks.restart_training import Training, steps_of
from cluster.flavors import Flavor
from cluster.providers.local import LocalProvider, kill_node
from cluster.providers.local_state import load_state
from jobs.spec import Market

_STEPS = 100_000
_ROOT = Path(__file__).resolve().parents[1]
_FLAVOR = Flavor(
    name="spot",
    cluster="here",
    market=Market.SPOT,
    accelerator="a100",
    region="local",
    zone="local-a",
    gpu_milli=1_000,
    cpus=2,
    max_nodes=1_000,
)


def train(config: dict[str, Any]) -> None:
    """Run the same training as a Ray Train worker: restore, step, report a checkpoint."""
    from ray import train as ray_train

    training = Training(config["log"], pace_s=config["step_s"])
    first = 0
    found = ray_train.get_checkpoint()
    if found is not None:
        with found.as_directory() as folder:
            state = torch.load(Path(folder) / "state.pt")
            training.model.load_state_dict(state["model"])
            training.optimizer.load_state_dict(state["optimizer"])
            first = state["step"]
    for step in range(first, _STEPS):
        training.step(step)
        if (step + 1) % config["save_every_steps"] == 0:
            _report(training, step + 1)


def _report(training: Training, step: int) -> None:
    from ray import train as ray_train

    state = {
        "model": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "step": step,
    }
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / "state.pt")
        ray_train.report({"step": step}, checkpoint=ray_train.Checkpoint.from_directory(folder))


class RayTrain:
    """A Ray cluster with a training that its own driver process supervises."""

    def __init__(self, folder: Path, *, pace: Pace) -> None:
        """Start the head; nodes come with ``spare``."""
        self._folder = folder
        self._pace = pace
        self._log = folder / "steps.log"
        self._provider = LocalProvider(folder / "cluster")
        self._driver: subprocess.Popen[bytes] | None = None

    def spare(self) -> None:
        """Have two nodes up: the training's and another one."""
        while len(self._provider.node_ids()) < 2:
            state = load_state(self._folder / "cluster" / "local.json")
            assert state is not None
            self._provider.launch(f"n{state.launched + 1}", flavor=_FLAVOR)
        until(self._all_up, "two nodes are up")

    def begin(self) -> None:
        """Start the training and wait until it saves."""
        command = [sys.executable, "-m", "benchmarks.restart_ray", str(self._folder)]
        command += [self._provider.address, self._provider.driver_ip]
        command += [str(self._pace.step_s), str(self._pace.save_every_steps)]
        with (self._folder / "driver.log").open("ab") as log:
            self._driver = subprocess.Popen(command, stdout=log, stderr=log, cwd=_ROOT)
        self._settled()

    def kill(self) -> Restart:
        """Kill the node under the training, without a word, and see it go on."""
        pid = self._settled()
        state = load_state(self._folder / "cluster" / "local.json")
        assert state is not None
        node = next(
            n for n in state.nodes.values() if not n.gone and _runs_on(pid, state.mark(n.id))
        )
        killed_us = time.time_ns() // 1_000
        kill_node(state, node)
        before = steps_of(self._log)
        last = max(done.step for done in before)

        def went_on() -> bool:
            return any(done.step > last for done in steps_of(self._log)[len(before) :])

        until(went_on, "it trains again")
        self._provider.poll()
        return measure(before, after=steps_of(self._log)[len(before) :], killed_us=killed_us)

    def close(self) -> None:
        """End driver and cluster."""
        if self._driver is not None:
            self._driver.kill()
            self._driver.wait()
        self._provider.destroy()

    def _settled(self) -> int:
        """Wait until this life of the training has saved; give its process."""

        def saved() -> int:
            assert self._driver is None or self._driver.poll() is None, self._said()
            done = steps_of(self._log)
            mine = [one for one in done if one.pid == done[-1].pid]
            return done[-1].pid if len(mine) > 2 * self._pace.save_every_steps else 0

        found: int = until(saved, "it trains")
        return found

    def _all_up(self) -> bool:
        self._provider.poll()
        state = load_state(self._folder / "cluster" / "local.json")
        assert state is not None
        return sum(node.stage == "up" for node in state.nodes.values()) >= 2

    def _said(self) -> str:
        return (self._folder / "driver.log").read_text(encoding="utf-8", errors="replace")[-2_000:]


def _runs_on(pid: int, mark: str) -> bool:
    import psutil

    from cluster.processes import marked

    family = {pid, *(parent.pid for parent in psutil.Process(pid).parents())}
    return any(process.pid in family for process in marked(mark))


@contextmanager
def ray_train(folder: Path, *, pace: Pace) -> Iterator[RayTrain]:
    """Run a cluster for the length of a ``with`` block."""
    place = RayTrain(folder, pace=pace)
    try:
        yield place
    finally:
        place.close()


def drive(arguments: list[str]) -> None:
    """Be the driver: fit until killed."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    folder, address, ip, step_s, save_every_steps = arguments
    ray.init(address=address, _node_ip_address=ip, log_to_driver=True)
    trainer = TorchTrainer(
        train,
        train_loop_config={
            "log": f"{folder}/steps.log",
            "step_s": float(step_s),
            "save_every_steps": int(save_every_steps),
        },
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 2}),
        run_config=RunConfig(
            name="restart",
            storage_path=f"{folder}/results",
            failure_config=FailureConfig(max_failures=1_000),
        ),
    )
    trainer.fit()


if __name__ == "__main__":
    drive(sys.argv[1:])
