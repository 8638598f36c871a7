"""One rank of a training whose model is sharded (FSDP2 over gloo); run in a process of its own.

With one rank the model is a plain one.
"""

from __future__ import annotations

import json
import os
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from checkpointing import ResumableLoader, Session
from checkpointing.digest import digest_state


def run_rank(rank: int, world: int, folder: str, meeting: str, options: dict[str, Any]) -> None:
    """Train, and leave what came of it in `folder`/rank-N.json."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    if world > 1:
        store = f"file://{meeting}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = train(world, folder, options)
        found["said"] = [str(one.message) for one in said]
    except Exception:  # noqa: BLE001 - the test shows it
        found = {"error": traceback.format_exc()}
    Path(folder, f"rank-{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # no tidy goodbye: the others may be gone


def train(world: int, folder: str, options: dict[str, Any]) -> dict[str, Any]:
    """Train to `steps` and tell where it began, what it saw and what it ended with."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3))
    if world > 1:
        shape = tuple(options.get("mesh", (world,)))
        names = ("replicas", "shards")[-len(shape) :]
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
        for layer in model[0], model[2], model:
            fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    samples = list(range(24))
    loader = ResumableLoader(samples, batch_size=options["batch"], seed=4)
    seen: list[int] = []
    session = Session(
        model=model, optimizer=optimizer, loader=loader, save_to=str(Path(folder, "store"))
    )
    with session:
        began = full_digest(model.state_dict(), optimizer.state_dict())
        for _ in session.steps(options["steps"]):
            batch = next(loader)
            seen += batch.tolist()
            optimizer.zero_grad()
            model(batch.float()[:, None].expand(-1, 5)).pow(2).mean().backward()
            optimizer.step()
        drawn = torch.rand(1).item()
    ended = full_digest(model.state_dict(), optimizer.state_dict())
    first = session.restored_step
    return {"began": began, "ended": ended, "first": first, "seen": seen, "drawn": drawn}


def full_digest(*states: object) -> str:
    """The digest of states with their sharded tensors put together; all ranks must call it."""
    return digest_state([gathered(state) for state in states])


def gathered(state: Any) -> Any:
    """The same state with plain tensors."""
    if isinstance(state, dict):
        return {key: gathered(value) for key, value in state.items()}
    if isinstance(state, list):
        return [gathered(value) for value in state]
    return state.full_tensor() if isinstance(state, DTensor) else state
