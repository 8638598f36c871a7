"""The training that both sides of `benchmarks.restart` run: the same model, bytes and step time.

As a script it is a plain loop with our `Session`; `restart_ray` imports the parts. Each step that
ends is one line of the log that `steps_of` reads: the step and the wall clock in microseconds.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch

WIDTH = 1_024
LAYERS = 4
BATCH = 16


@dataclass(frozen=True, slots=True)
class Done:
    """One line of the log."""

    step: int
    at_us: int
    pid: int


class Training:
    """A stack of linear layers under Adam: 50 MB of weights and moments."""

    def __init__(self, log: str, *, pace_s: float) -> None:
        """Append to ``log``; ``pace_s`` is added to each step, so that all machines step alike."""
        torch.manual_seed(3)
        layers = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]
        self.model = torch.nn.Sequential(*layers)
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self._log = log
        self._pace_s = pace_s

    def step(self, number: int) -> None:
        """Train one step and write that down."""
        loss = self.model(torch.randn(BATCH, WIDTH)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        threading.Event().wait(self._pace_s)
        line = f"{number} {time.time_ns() // 1_000} {os.getpid()}\n"
        with Path(self._log).open("a", encoding="ascii") as stream:
            stream.write(line)


def steps_of(log: Path) -> list[Done]:
    """Give what a log holds so far, in order."""
    if not log.exists():
        return []
    lines = log.read_text(encoding="ascii").splitlines()
    return [Done(*(int(part) for part in line.split())) for line in lines if line.count(" ") == 2]


def main() -> None:
    """Train as a user's script would."""
    from checkpointing import Session

    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--pace", type=float, required=True)
    parser.add_argument("--log", required=True)
    given = parser.parse_args()
    training = Training(given.log, pace_s=given.pace)
    with Session(model=training.model, optimizer=training.optimizer) as session:
        for step in session.steps(given.steps):
            training.step(step)


if __name__ == "__main__":
    main()
