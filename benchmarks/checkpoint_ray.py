"""Ray Train's own way to save, timed inside its worker."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, Final

_REPORTS: Final = 3


def report_stalls(folder: Path, *, gb: float) -> list[float]:
    """Train with one worker that reports checkpoints of `gb` to `folder`; return its stalls."""
    import ray
    from ray import train
    from ray.train.torch import TorchTrainer

    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "stalls.json"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        TorchTrainer(
            _work,
            train_loop_config={"gb": gb, "told": str(told), "folder": str(folder)},
            scaling_config=train.ScalingConfig(num_workers=1),
            run_config=train.RunConfig(storage_path=str(folder / "storage"), name="stall"),
        ).fit()
    finally:
        ray.shutdown()
    found: list[float] = json.loads(told.read_text(encoding="ascii"))
    return found


def _work(config: dict[str, Any]) -> None:
    import torch
    from ray import train

    from benchmarks.checkpoint_state import gpt2_training

    training = gpt2_training(config["gb"])
    stalls = []
    for _ in range(_REPORTS + 1):
        with tempfile.TemporaryDirectory(dir=config["folder"]) as local:
            began = perf_counter()
            torch.save(training.state_dict(), Path(local) / "state.pt")
            train.report({}, checkpoint=train.Checkpoint.from_directory(local))
            stalls.append(perf_counter() - began)
    Path(config["told"]).write_text(json.dumps(stalls), encoding="ascii")
