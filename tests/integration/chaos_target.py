"""A training for the public crash suite: `chaos_target.py KIND FOLDER`, the same to resume.

KIND: plain, hugging_face or lightning. Saves at every step and waits for each save, so that two
runs do the same file operations in the same order. Prints the newest commit that it found and the
step that it went on from; leaves a digest.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from checkpointing import ResumableLoader, Session, digest_state
from checkpointing.commit_log import CommitLog
from checkpointing.file_storage import FileStorage

STEPS: Final = 4
EVERY_STEP: Final = 1e-6
KEEP: Final = 100  # so that the suite's user can see what each attempt committed

torch.set_num_threads(1)


def train_plain(store: str) -> torch.nn.Module:
    """Train by a loop of one's own."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    loader = ResumableLoader(torch.randn(10, 4), batch_size=4)
    with Session(
        model=model,
        optimizer=optimizer,
        loader=loader,
        save_to=store,
        save_every_s=EVERY_STEP,
        keep=KEEP,
    ) as session:
        print("restored", session.restored_step, flush=True)
        for _ in session.steps(STEPS):
            optimizer.zero_grad()
            model(next(loader)).pow(2).mean().backward()
            optimizer.step()
    return model


def train_hugging_face(store: str) -> torch.nn.Module:
    """Train by a Trainer."""
    from transformers import TrainerCallback

    from checkpointing.integrations.hugging_face import resumable
    from tests.integration.hf_training import make_trainer

    class Tell(TrainerCallback):  # type: ignore[misc]
        def on_epoch_begin(self, _args: Any, state: Any, _control: Any, **_more: Any) -> None:
            print("restored", state.global_step, flush=True)

    trainer = make_trainer(max_steps=STEPS, eval_steps=3, callbacks=[Tell()])
    resumable(trainer, save_to=store, save_every_s=EVERY_STEP, keep=KEEP).train()
    return trainer.model


def train_lightning(store: str) -> torch.nn.Module:
    """Train by Lightning."""
    from lightning.pytorch import Callback

    from tests.integration.lightning_training import make

    class Tell(Callback):  # type: ignore[misc]
        def on_train_start(self, trainer: Any, _module: Any) -> None:
            print("restored", trainer.global_step, flush=True)

    trainer, module, data = make(Path(store), Tell(), max_steps=STEPS, keep=KEEP)
    trainer.fit(module, data)
    return module


KINDS: Final[dict[str, Callable[[str], torch.nn.Module]]] = {
    "plain": train_plain,
    "hugging_face": train_hugging_face,
    "lightning": train_lightning,
}


def newest_commit(store: Path) -> int:
    """The newest step that an earlier attempt had committed."""
    if not store.is_dir():
        return 0
    commits = CommitLog(FileStorage(store), job_id="local").history().commits
    return max((record.step for record in commits), default=0)


def main() -> None:
    """Train as a script."""
    # The suite compares the names of what two runs write.
    tempfile._name_sequence = (f"{n:08}" for n in itertools.count())  # type: ignore[attr-defined]
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    print("found", newest_commit(folder / "store"), flush=True)
    model = KINDS[sys.argv[1]](str(folder / "store"))
    (folder / "digest.txt").write_text(digest_state(model))


if __name__ == "__main__":
    main()
