"""A tiny real Hugging Face training with all that can break an exact resume; also a script.

Dropout, random masking in the collator, gradient accumulation that does not divide the epoch,
evaluations, early logging. `hf_training.py FOLDER [key=value ...]` trains, saving at every step,
and prints the digest.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from checkpointing import digest_state
from checkpointing.integrations.hugging_face import resumable

torch.set_num_threads(1)
CONFIG = BertConfig(
    vocab_size=60,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
)


class Sentences(torch.utils.data.Dataset):
    """Made-up sentences of different lengths; reading one draws a random number."""

    def __init__(self, count: int) -> None:
        """Make them from a generator of their own."""
        generator = torch.Generator().manual_seed(count)
        self.rows = torch.randint(1, 60, (count, 12), generator=generator)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one, with one word replaced at random."""
        row = self.rows[index][: 4 + index % 8].clone()
        row[torch.randint(0, len(row), ())] = 0
        return {"input_ids": row, "labels": index % 2}


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad, and mask at random."""
    ids = torch.nn.utils.rnn.pad_sequence([row["input_ids"] for row in rows], batch_first=True)
    ids = torch.where(torch.rand(ids.shape) < 0.1, 0, ids)
    return {"input_ids": ids, "labels": torch.tensor([row["labels"] for row in rows])}


def make_trainer(model: torch.nn.Module | None = None, **changes: Any) -> Trainer:
    """A Trainer; `changes` are training arguments, and `callbacks`."""
    torch.manual_seed(0)
    callbacks = changes.pop("callbacks", [])
    data = {
        name: changes.pop(name, default)
        for name, default in (("train_dataset", Sentences(43)), ("data_collator", collate))
    }
    arguments = {
        "output_dir": str(Path(tempfile.gettempdir(), "lowtide-never-written")),
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 3,
        "num_train_epochs": 3,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "logging_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 3,
        **changes,
    }
    return Trainer(
        model=BertForSequenceClassification(CONFIG) if model is None else model,
        args=TrainingArguments(**arguments),
        eval_dataset=Sentences(17),
        callbacks=callbacks,
        **data,
    )


def losses(trainer: Trainer) -> list[dict[str, float]]:
    """The log, without what depends on the clock."""
    return [
        {k: v for k, v in row.items() if "runtime" not in k and "per_second" not in k}
        for row in trainer.state.log_history
        if "train_loss" not in row
    ]


class Slow(TrainerCallback):  # type: ignore[misc]
    """Waits after each step, so that somebody can strike."""

    def __init__(self, step_s: float) -> None:
        """`step_s` seconds each."""
        self.step_s = step_s

    def on_step_begin(self, *_given: Any, **_more: Any) -> None:
        """Wait."""
        threading.Event().wait(self.step_s)


def main() -> None:
    """Train as a script."""
    changes = dict(word.split("=") for word in sys.argv[2:])
    step_s = float(changes.pop("step_s", 0))
    parsed = {name: json.loads(value) for name, value in changes.items()}
    trainer = make_trainer(callbacks=[Slow(step_s)], **parsed)
    folder = Path(sys.argv[1])
    resumable(trainer, save_to=str(folder / "store"), save_every_s=1e-6)
    trainer.train()
    (folder / "digest.txt").write_text(digest_state(trainer.model))
    print("pid", os.getpid(), "digest", digest_state(trainer.model))


if __name__ == "__main__":
    main()
