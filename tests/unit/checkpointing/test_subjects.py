"""What a session restores is compared with the checkpoint, before anything is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from checkpointing import CheckpointError, Session, digest_state


def trainee(width: int, *, layers: int = 2, groups: int = 1) -> dict[str, Any]:
    """A model and its optimizer."""
    stack = [torch.nn.Linear(width, width) for _ in range(layers)]
    model = torch.nn.Sequential(*stack)
    weights = list(model.parameters())
    split = [{"params": weights[number::groups]} for number in range(groups)]
    return {"model": model, "optimizer": torch.optim.SGD(split, lr=0.1, momentum=0.9)}


def saved(folder: Path, **objects: Any) -> None:
    """Commit the state of `objects`."""
    with Session(save_to=str(folder), **objects) as session:
        list(session.steps(1))


def refused(folder: Path, **objects: Any) -> str:
    """Say why `objects` are not restored; they must be as they were."""
    before = digest_state(objects["model"])
    with pytest.raises(CheckpointError) as caught:
        Session(save_to=str(folder), **objects).__enter__()
    assert caught.value.code == "restore-mismatch"
    assert digest_state(objects["model"]) == before
    return caught.value.cause


def test_every_differing_name_is_listed(tmp_path: Path) -> None:
    """Other shapes, lost names and new names, all in one message."""
    saved(tmp_path, **trainee(3))
    cause = refused(tmp_path, **trainee(4, layers=3))
    assert "model.0.weight was saved as (3, 3) and is now (4, 4)" in cause
    assert "model.1.bias was saved as (3,) and is now (4,)" in cause
    assert "model.2.weight was saved as nothing and is now (4, 4)" in cause
    assert "optimizer.param_groups[0] was saved as 4 parameters and is now 6 parameters" in cause


def test_a_long_list_is_cut_and_counted(tmp_path: Path) -> None:
    """Thirty names are not spelled out, but nobody is left to think that there are twenty."""
    saved(tmp_path, **trainee(3, layers=15))
    cause = refused(tmp_path, **trainee(2, layers=15))
    assert cause.count("was saved as") == 20
    assert "and 10 more" in cause


def test_other_parameter_groups_are_refused_before_the_model_is_touched(tmp_path: Path) -> None:
    """The model fits and the optimizer does not: neither is changed."""
    saved(tmp_path, **trainee(3))
    cause = refused(tmp_path, **trainee(3, groups=2))
    assert "optimizer.param_groups[0] was saved as 4 parameters and is now 2" in cause
    assert "optimizer.param_groups[1] was saved as nothing and is now 2" in cause
