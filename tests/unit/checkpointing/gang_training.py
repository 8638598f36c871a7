"""One rank of a small data-parallel training over gloo; run in a process of its own."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from typing_extensions import Buffer

from checkpointing import CheckpointError, ResumableLoader, Session
from checkpointing.errors import StorageError
from checkpointing.file_storage import FileStorage

WORLD = 2


def run_rank(rank: int, folder: str, meeting: str, options: dict[str, Any]) -> None:
    """Train and leave a line in `folder`/rank-N.txt; `options` say what goes wrong and when."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(WORLD))
    os.environ.update({name: str(value) for name, value in options.get("env", {}).items()})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD)
    if rank == options.get("failing_rank"):
        break_parts(options["failing_parts"])
    code = 0
    try:
        said = train(rank, folder, options)
    except CheckpointError as error:
        said, code = f"error {error.code}", 1
    except SystemExit as left:
        said, code = f"left {left.code}", int(left.code or 0)
    Path(folder, f"rank-{rank}.txt").write_text(said)
    os._exit(code)  # no tidy goodbye: the other rank may be gone


def train(rank: int, folder: str, options: dict[str, Any]) -> str:
    """Train with everything of a rank's own: dropout, its share of the data, its generators."""
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(
        torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
    )
    torch.manual_seed(100 + rank)
    optimizer = torch.optim.Adam(model.parameters())
    loader = ResumableLoader([torch.arange(4) * 0.1 + index for index in range(22)], batch_size=4)
    save_to = str(Path(folder, "store"))
    with Session(
        model=model, optimizer=optimizer, loader=loader, save_to=save_to, save_every_s=1e-6
    ) as session:
        for step in session.steps(options["steps"]):
            optimizer.zero_grad()
            model(next(loader)).pow(2).mean().backward()
            optimizer.step()
            if (rank, step) == options.get("crash"):
                os._exit(9)
            if (rank, step) == options.get("drain"):
                os.kill(os.getpid(), 15)
            threading.Event().wait(options.get("step_s", 0))
    stats = session.stats
    return f"digest {session.final_digest()} from {session.restored_step} saves {stats.saves}"


def break_parts(count: int) -> None:
    """Make this rank unable to store the first `count` of its parts."""
    put = FileStorage.put
    left = [count]

    def broken(self: FileStorage, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
        if "/parts/" in key and key.endswith(".json") and left[0]:
            left[0] -= 1
            raise StorageError("storage-failed", cause="The disk is on fire.", remedy="Water.")
        put(self, key, data, crc32c=crc32c)

    FileStorage.put = broken  # type: ignore[method-assign]
