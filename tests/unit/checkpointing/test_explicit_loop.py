"""A loop that is not ours tells the session its step boundaries, and gets what `steps` gives."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from checkpointing import Session
from tests.unit.checkpointing.training import Interrupted, Trainee, train

STEPS = 12
EVERY_STEP = 0.000001


def train_explicitly(
    folder: Path, *, crash_at: int | None = None, total: int = STEPS, **options: Any
) -> tuple[str, Session]:
    """Train with explicit calls, or crash inside step `crash_at`."""
    trainee = Trainee()
    with trainee.session(folder, **options) as session:
        for step in range(session.begin(total), STEPS):
            trainee.step()
            if step == crash_at:
                raise Interrupted
            session.completed(step + 1)
        session.finish(STEPS)
    return session.final_digest(), session


@pytest.mark.parametrize("total", [STEPS, 0])
def test_explicit_calls_resume_bit_exactly(tmp_path: Path, total: int) -> None:
    """Crash and go on, with or without a known total: byte-equal to the loop over `steps`."""
    whole, _ = train(tmp_path / "whole", steps=STEPS)
    cut = tmp_path / "cut"
    with pytest.raises(Interrupted):
        train_explicitly(cut, crash_at=7, total=total, save_every_s=EVERY_STEP)
    digest, session = train_explicitly(cut, total=total)
    assert session.restored_step >= 6
    assert digest == whole


def test_finish_commits_an_early_end(tmp_path: Path) -> None:
    """A trainer that stops early finishes at its own step, and that state is committed."""
    trainee = Trainee()
    with trainee.session(tmp_path) as session:
        session.begin(100)
        trainee.step()
        session.finish(1)
    with Trainee().session(tmp_path) as again:
        assert again.restored_step == 1
        assert again.final_digest() == session.final_digest()


def test_a_drain_is_seen_in_a_long_evaluation(tmp_path: Path) -> None:
    """Called again for a step, the last one included, it saves that step and leaves with 75."""
    for last in (3, STEPS):
        trainee = Trainee()
        with trainee.session(tmp_path / str(last)) as session:
            session.begin(STEPS)
            for step in range(last):
                trainee.step()
                session.completed(step + 1)
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(SystemExit) as left:
                session.completed(last)
        assert left.value.code == 75
        with Trainee().session(tmp_path / str(last)) as again:
            assert again.restored_step == last


def test_a_step_is_saved_once(tmp_path: Path) -> None:
    """However often a boundary is told, its state is not stored again."""
    trainee = Trainee()
    with trainee.session(tmp_path, save_every_s=EVERY_STEP) as session:
        session.begin(STEPS)
        trainee.step()
        for _ in range(5):
            session.completed(1)
        session.finish(1)
    assert session.stats.saves == 1


def test_outside_lowtide_explicit_calls_do_nothing() -> None:
    """Without a store the calls only say where to begin."""
    with Session() as session:
        assert session.begin(5) == 0
        session.completed(1)
        session.finish(5)
