"""A Lightning `Trainer` that holds the benchmark's training, so that its saving can be timed."""

from __future__ import annotations

import logging
import warnings
from functools import lru_cache
from typing import Any

import lightning
import torch

from benchmarks.checkpoint_state import Training


class Holder(lightning.LightningModule):  # type: ignore[misc]  # an untyped library
    """The training as a LightningModule; its step touches one parameter."""

    def __init__(self, training: Training) -> None:
        """Hold the model under one name and use the optimizer as it is."""
        super().__init__()
        self.training_held = [training]  # in a list: its optimizer is not a submodule
        self.model = training.model

    def training_step(self, *_: object) -> torch.Tensor:
        """Give a loss that leaves the state nearly as it is."""
        return next(self.model.parameters()).flatten()[:1].sum() * 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Hand over the optimizer with its full state."""
        return self.training_held[0].optimizer


@lru_cache(maxsize=1)
def trainer_of(training: Training, *, resume_from: str | None = None) -> Any:  # noqa: ANN401
    """Return a Trainer after a step over `training`, ready for `save_checkpoint`.

    `resume_from`: the checkpoint that Lightning loads before it; then no step is left.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Holder(training), [torch.zeros(1)], ckpt_path=resume_from)
    return trainer
