"""Copies that overlap training: the next step waits, and a torn copy is never published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from checkpointing import Session
from tests.unit.checkpointing.training import Interrupted, train

ROWS = 24  # of 4 MiB each: the copy takes far longer than a step
STEPS = 12


class Fill(torch.optim.Optimizer):
    """An optimizer whose n-th step fills every parameter, and a state of its own, with n."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        """Step 0 is over."""
        super().__init__(parameters, {"steps": 0})

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Fill."""
        group = self.param_groups[0]
        group["steps"] += 1
        with torch.no_grad():
            for parameter in group["params"]:
                parameter.fill_(group["steps"])
                self.state[parameter].setdefault("mean", torch.zeros(4)).fill_(group["steps"])


def large_model() -> torch.nn.ParameterList:
    """Many megabytes of zeros."""
    return torch.nn.ParameterList(torch.zeros(1 << 20) for _ in range(ROWS))


def saved_values(folder: Path) -> tuple[int, set[float]]:
    """The step of the newest checkpoint, and every value in its parameters."""
    model = large_model()
    optimizer = Fill(list(model))
    with Session(model=model, optimizer=optimizer, save_to=str(folder)) as session:
        values = {float(value) for row in model for value in row.detach().aminmax()}
        values |= {float(state["mean"][0]) for state in optimizer.state.values()}
        return session.restored_step, values


def test_a_step_waits_for_the_copy(tmp_path: Path) -> None:
    """A step right after the boundary does not tear the snapshot: one value, of that boundary."""
    model = large_model()
    optimizer = Fill(list(model))
    with Session(
        model=model, optimizer=optimizer, save_to=str(tmp_path), save_every_s=3600, overlap=True
    ) as session:
        session.begin(3)
        optimizer.step()
        session.finish(1)  # saved and committed: the arena is there, and warm
        engine = session._engine
        assert engine is not None
        engine._save(2)
        optimizer.step()  # at once
        optimizer.step()
        assert engine.saver is not None
        engine._await_save(engine.saver)
        assert session.stats.failures == 0
    assert saved_values(tmp_path) == (2, {1.0})


def test_a_write_elsewhere_is_noticed(tmp_path: Path) -> None:
    """A parameter that is changed outside of a step during the copy: whole, or not published."""
    model = large_model()
    optimizer = Fill(list(model))
    with Session(
        model=model, optimizer=optimizer, save_to=str(tmp_path), save_every_s=3600, overlap=True
    ) as session:
        session.begin(3)
        session.finish(1)
        engine = session._engine
        assert engine is not None
        assert engine.saver is not None
        engine._save(2)
        with torch.no_grad():
            for row in model:
                row.fill_(9)
        engine._await_save(engine.saver)
        failures = session.stats.failures
    assert saved_values(tmp_path) == ((1, {0.0}) if failures else (2, {0.0}))


@pytest.mark.parametrize("crash_at", [3, 8])
def test_a_crash_changes_no_bit(tmp_path: Path, crash_at: int) -> None:
    """A training that overlaps its copies resumes as exactly as any other."""
    whole, _ = train(steps=STEPS)
    with pytest.raises(Interrupted):
        train(tmp_path, steps=STEPS, crash_at=crash_at, save_every_s=1e-6, overlap=True)
    digest, session = train(tmp_path, steps=STEPS, save_every_s=1e-6, overlap=True)
    assert session.restored_step >= crash_at - 1
    assert digest == whole


def test_the_optimizer_is_let_go(tmp_path: Path) -> None:
    """After the session no hook is left on the optimizer."""
    model = large_model()
    optimizer = Fill(list(model))
    with Session(model=model, optimizer=optimizer, save_to=str(tmp_path), overlap=True):
        assert len(optimizer._optimizer_step_pre_hooks) == 1
    assert len(optimizer._optimizer_step_pre_hooks) == 0
