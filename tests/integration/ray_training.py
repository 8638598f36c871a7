"""A tiny data-parallel training in Ray Train, one of whose workers dies once."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from ray import train
from ray.train.torch import prepare_model

from checkpointing import ResumableLoader
from checkpointing.integrations.ray_train import ray_session

STEPS = 8


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
