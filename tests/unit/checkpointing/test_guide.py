"""The guide's examples of a plain loop work as they stand; all are tested somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guide import examples, run_example

HERE = "A loop of your own"
WITH_TRAINERS = {"Hugging Face Trainer", "Lightning", "Ray Train"}


def test_every_example_is_run() -> None:
    """No code block stands under a heading that no test knows."""
    assert set(examples()) == WITH_TRAINERS | {HERE}


@pytest.mark.parametrize("number", range(len(examples()[HERE])))
def test_a_plain_loop(tmp_path: Path, number: int) -> None:
    """It runs, and run again it has nothing left to do."""
    code = examples()[HERE][number] + "\nprint('restored', session.restored_step)\n"
    assert run_example(code, folder=tmp_path).endswith("restored 0\n")
    assert run_example(code, folder=tmp_path).endswith("restored 50\n")
