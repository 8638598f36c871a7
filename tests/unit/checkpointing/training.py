"""A small real training with everything that can break a bit-exact resume; also runs as a script.

Dropout, batch norm, AdamW, a schedule, shuffled data, and draws from Python's, NumPy's and torch's
generators in every step. As a script: `training.py FOLDER STEPS [STEP_S]`.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from checkpointing import ResumableLoader, Session

# Bit-exact means: the same sums in the same order. Another number of threads adds up differently.
torch.set_num_threads(1)


class Trainee:
    """Model, optimizer, schedule and loader, freshly seeded."""

    def __init__(self, seed: int = 0) -> None:
        """Seed every generator and build."""
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global generator is part of the state
        torch.manual_seed(seed)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(6, 16),
            torch.nn.BatchNorm1d(16),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(16, 3),
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.1, total_steps=500)
        samples = [(torch.arange(6) * 0.1 + index, index % 3) for index in range(37)]
        self.loader = ResumableLoader(samples, batch_size=8, seed=5, rank=0, world_size=1)

    def session(self, folder: object = None, **options: Any) -> Session:
        """A session over all of it."""
        return Session(
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.schedule,
            loader=self.loader,
            save_to=None if folder is None else str(folder),
            **options,
        )

    def step(self) -> None:
        """One step of training."""
        inputs, labels = next(self.loader)
        inputs = inputs + random.random() + np.random.rand()  # noqa: NPY002
        loss = torch.nn.functional.cross_entropy(self.model(inputs), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()


class Interrupted(Exception):  # noqa: N818 - what happened, not an error
    """Stands for a crash in the middle of a step."""


def train(
    folder: object = None,
    *,
    steps: int,
    crash_at: int | None = None,
    each: Callable[[int], object] | None = None,
    **options: Any,
) -> tuple[str, Session]:
    """Train to `steps`, or crash inside step `crash_at`; return the digest and the session."""
    trainee = Trainee()
    with trainee.session(folder, **options) as session:
        for step in session.steps(steps):
            trainee.step()
            if each is not None:
                each(step)
            if step == crash_at:
                raise Interrupted
    return session.final_digest(), session


def main() -> None:
    """Train as a script, saving at every step, and print the digest."""
    pause_s = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    wait = threading.Event().wait
    digest, session = train(
        sys.argv[1] or None,
        steps=int(sys.argv[2]),
        each=lambda _step: wait(pause_s),
        save_every_s=0.000001,
    )
    print(f"restored {session.restored_step} digest {digest}")


if __name__ == "__main__":
    main()
