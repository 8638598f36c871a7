"""One rank of a gang that saves or loads through torch.distributed.checkpoint."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from checkpointing.integrations.dcp import LowtideReader, LowtideWriter


def run_rank(rank: int, world: int, folder: str, meeting: str, saving: bool) -> None:
    """Save the state, or load it and compare; leave "well" or what went wrong."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    store = f"file://{meeting}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    try:
        use(world, folder, saving)
        said = "well"
    except BaseException:  # noqa: BLE001 - DCP's own error is no Exception
        said = traceback.format_exc()
    Path(folder, f"rank-{rank}.txt").write_text(said)
    os._exit(0)


def use(world: int, folder: str, saving: bool) -> None:
    """Save, or load into zeros and compare with what was saved."""
    rows = torch.arange(35.0).reshape(7, 5)
    mesh = init_device_mesh("cpu", (world,))
    state = {
        "rows": distribute_tensor(rows, mesh, [Shard(0)]),
        "columns": distribute_tensor(rows, mesh, [Shard(1)]),
        "same": distribute_tensor(rows, mesh, [Replicate()]),
        "plain": torch.ones(3),
        "step": 4,
    }
    uri = str(Path(folder, "store"))
    if saving:
        dcp.save(state, storage_writer=LowtideWriter(uri))
        return
    for name in ("rows", "columns", "same", "plain"):
        state[name].zero_()  # type: ignore[attr-defined]
    state["step"] = 0
    dcp.load(state, storage_reader=LowtideReader(uri))
    assert state["step"] == 4
    assert torch.equal(state["plain"], torch.ones(3))  # type: ignore[arg-type]
    for name in ("rows", "columns", "same"):
        assert torch.equal(state[name].full_tensor(), rows), name  # type: ignore[attr-defined]
