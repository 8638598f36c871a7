"""A tiny data-parallel training in Ray Train, one of whose workers dies once.

A script, `ray_training.py FOLDER NAME [KILL_IN]`: Ray takes up its settings once per process, and a
test's process needs others for the clusters of other tests.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import ray
import torch
from ray import train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model

from checkpointing import ResumableLoader
from checkpointing.integrations.ray_train import ray_session

STEPS = 8
ROOT = Path(__file__).resolve().parents[2]
VARIABLES = {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",  # a shared machine is slow now and then
}


def train_loop(config: dict[str, Any]) -> None:
    """Train; the last rank kills itself once in step `kill_in`, if that is named."""
    torch.set_num_threads(1)
    rank = train.get_context().get_world_rank()
    torch.manual_seed(0)
    model = prepare_model(
        torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
    )
    torch.manual_seed(100 + rank)
    optimizer = torch.optim.AdamW(model.parameters())
    loader = ResumableLoader(torch.arange(88.0).reshape(22, 4) / 10, batch_size=4)
    with ray_session(model=model, optimizer=optimizer, loader=loader, save_every_s=1e-6) as session:
        for step in session.steps(STEPS):
            optimizer.zero_grad()
            model(next(loader)).pow(2).mean().backward()
            optimizer.step()
            strike(config, rank=rank, step=step)
    if rank == 0:
        told = {"digest": session.final_digest(), "restored": session.restored_step}
        Path(config["told"]).write_text(json.dumps(told), encoding="ascii")


def strike(config: dict[str, Any], *, rank: int, step: int) -> None:
    """Die once, as if the node were gone."""
    last = rank == train.get_context().get_world_size() - 1
    if not last or step != config["kill_in"]:
        return
    done = Path(f"{config['told']}.killed")
    if not done.exists():
        done.touch()
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()


def main(folder: Path, name: str, kill_in: int | None = None) -> None:
    """Train with two workers on a Ray of its own; rank 0 tells in `FOLDER/NAME.json`."""
    ray.init(
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": VARIABLES},
    )
    try:
        TorchTrainer(
            train_loop,
            train_loop_config={"kill_in": kill_in, "told": str(folder / f"{name}.json")},
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(
                storage_path=str(folder), name=name, failure_config=FailureConfig(max_failures=1)
            ),
        ).fit()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    # As the module that the workers import, not as `__main__`.
    from tests.integration.ray_training import main as start

    start(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
