"""A tiny real Lightning training with all that can break an exact resume; also a script.

Dropout, random draws while a sample is read, accumulation, validations within and at the end of
epochs, a schedule. `lightning_training.py FOLDER [key=value ...]` trains, saving at every step.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from checkpointing import digest_state
from checkpointing.integrations.lightning import LowtideCallback

torch.set_num_threads(1)


class Points(torch.utils.data.Dataset):
    """Points and labels; reading one moves it at random, unless told not to."""

    def __init__(self, count: int, *, noise: float = 0.1) -> None:
        """Make them from a generator of their own."""
        self.rows = torch.randn(count, 6, generator=torch.Generator().manual_seed(count))
        self.noise = noise

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return one."""
        row = self.rows[index]
        return (row + torch.randn(6) * self.noise if self.noise else row), index % 3


class Data(LightningDataModule):  # type: ignore[misc]
    """A data module with a state of its own."""

    def __init__(self, *, workers: int = 0) -> None:
        """Reading is without chance where other processes do it."""
        super().__init__()
        self.workers = workers
        self.asked = 0

    def train_dataloader(self) -> Any:
        """Shuffled."""
        points = Points(30, noise=0 if self.workers else 0.1)
        return torch.utils.data.DataLoader(
            points, batch_size=4, shuffle=True, num_workers=self.workers
        )

    def val_dataloader(self) -> Any:
        """Drawing random numbers as well."""
        return torch.utils.data.DataLoader(Points(9), batch_size=4)

    def state_dict(self) -> dict[str, Any]:
        """Return how often a batch was asked for."""
        return {"asked": self.asked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.asked = state["asked"]

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count."""
        self.asked += 1
        return batch


class Module(LightningModule):  # type: ignore[misc]
    """Two layers, batch norm, dropout."""

    def __init__(self, *, plateau: bool = False, size: int = 16) -> None:
        """`plateau`: let the learning rate follow the validations."""
        super().__init__()
        self.save_hyperparameters()
        self.plateau = plateau
        self.net = torch.nn.Sequential(
            torch.nn.Linear(6, size),
            torch.nn.BatchNorm1d(size),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(size, 3),
        )
        self.validated: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss."""
        self.log("val_loss", torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def on_validation_epoch_end(self) -> None:
        """Note it, where it counts."""
        if not self.trainer.sanity_checking:
            self.validated.append(float(self.trainer.callback_metrics["val_loss"]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was noted."""
        checkpoint["validated"] = list(self.validated)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on noting."""
        self.validated = checkpoint["validated"]

    def configure_optimizers(self) -> Any:
        """AdamW with a schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        if self.plateau:
            follow = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
            schedule: dict[str, Any] = {"scheduler": follow, "monitor": "val_loss"}
        else:
            follow_steps = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=50)
            schedule = {"scheduler": follow_steps, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def make(
    folder: Path | None,
    *callbacks: Callback,
    plateau: bool = False,
    workers: int = 0,
    keep: int = 3,
    **changes: Any,
) -> tuple[Trainer, Module, Data]:
    """A trainer, a module and data; `folder` None: without us."""
    torch.manual_seed(0)
    if folder is not None:
        mine = LowtideCallback(save_to=str(folder), save_every_s=1e-6, keep=keep)
        callbacks = (mine, *callbacks)
    arguments = {
        "accelerator": "cpu",
        "max_epochs": 3,
        "accumulate_grad_batches": 3,
        "val_check_interval": 4,
        "num_sanity_val_steps": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": folder is not None,
        **changes,
    }
    return (
        Trainer(callbacks=list(callbacks), **arguments),
        Module(plateau=plateau),
        Data(workers=workers),
    )


class Slow(Callback):  # type: ignore[misc]
    """Waits before each step, so that somebody can strike."""

    def __init__(self, step_s: float) -> None:
        """`step_s` seconds each."""
        self.step_s = step_s

    def on_train_batch_start(self, *_given: Any) -> None:
        """Wait."""
        threading.Event().wait(self.step_s)


def main() -> None:
    """Train as a script."""
    changes = {
        name: json.loads(value) for name, _, value in (w.partition("=") for w in sys.argv[2:])
    }
    folder = Path(sys.argv[1])
    slow = Slow(changes.pop("step_s", 0))
    trainer, module, data = make(folder / "store", slow, **changes)
    trainer.fit(module, data)
    (folder / "digest.txt").write_text(digest_state(module))


if __name__ == "__main__":
    main()
