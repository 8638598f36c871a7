"""The Hugging Face Trainer resumes bit for bit: weights, log, order of data, random masks."""

from __future__ import annotations

import os
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback, GPT2Config, GPT2LMHeadModel, TrainerCallback

from checkpointing import CheckpointError, digest_state
from checkpointing.integrations.hugging_face import resumable
from tests.integration.hf_training import losses, make_trainer
from tests.integration.scripts import await_step, start

pytestmark = pytest.mark.integration
PATIENT = pytest.mark.timeout(300)  # two processes import a trainer each
ROOT = Path(__file__).resolve().parents[2]
EVERY_STEP = 0.000001


class Crash(Exception):  # noqa: N818 - what happened, not an error
    """Stands for a process that dies."""


class CrashIn(TrainerCallback):  # type: ignore[misc]
    """Crashes inside the step after `step`, and counts the steps that were trained."""

    def __init__(self, step: int | None) -> None:
        """No step: never."""
        self.step = step
        self.trained = 0

    def on_optimizer_step(self, _args: Any, state: Any, _control: Any, **_more: Any) -> None:
        """Crash in time."""
        if state.global_step == self.step:
            raise Crash
        self.trained += 1


class DrainIn(TrainerCallback):  # type: ignore[misc]
    """Has SIGTERM sent in the evaluation after `step`."""

    def __init__(self, step: int) -> None:
        """At which step."""
        self.step = step

    def on_prediction_step(self, _args: Any, state: Any, _control: Any, **_more: Any) -> None:
        """Send it; the next look finds it."""
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class Ended:
    """How a training ended: digest, log, and the steps that this attempt trained."""

    def __init__(self, folder: Path, *, crash_in: int | None = None, **changes: Any) -> None:
        """Train in `folder`; leave `digest` empty if it was cut."""
        counter = CrashIn(crash_in)
        extra = changes.pop("callbacks", ())
        trainer = make_trainer(callbacks=[*(make() for make in extra), counter], **changes)
        resumable(trainer, save_to=str(folder), save_every_s=EVERY_STEP)
        self.digest, self.code = "", None
        try:
            trainer.train()
            self.digest = digest_state(trainer.model)
        except Crash:
            pass
        except SystemExit as left:
            self.code = left.code
        self.trained = counter.trained
        self.log = losses(trainer)
        self.stopped_at = trainer.state.global_step


@cache
def plain() -> tuple[str, list[dict[str, float]]]:
    """The digest and the log of a Trainer that knows nothing of us."""
    trainer = make_trainer()
    trainer.train()
    return digest_state(trainer.model), losses(trainer)


def test_it_changes_nothing_in_a_training_that_is_not_cut(tmp_path: Path) -> None:
    """Weights and log are those of the plain Trainer, and the Trainer itself saved nothing."""
    ended = Ended(tmp_path)
    assert (ended.digest, ended.log) == plain()
    assert not list(Path(make_trainer().args.output_dir).iterdir())


@pytest.mark.parametrize("crash_in", [1, 3, 4, 6, 11])
def test_a_crash_changes_no_bit(tmp_path: Path, crash_in: int) -> None:
    """Within an epoch, after an evaluation, at an epoch's short last step, in the last step."""
    Ended(tmp_path, crash_in=crash_in)
    ended = Ended(tmp_path)
    assert ended.trained <= 12 - crash_in + 1
    assert (ended.digest, ended.log) == plain()


def test_many_crashes_change_no_bit(tmp_path: Path) -> None:
    """A place that was resumed from a resumed place is exact as well."""
    for crash_in in (2, 3, 6, 8, 9):
        Ended(tmp_path, crash_in=crash_in)
    ended = Ended(tmp_path)
    assert (ended.digest, ended.log) == plain()
    assert ended.trained <= 4


def test_a_finished_training_trains_no_more(tmp_path: Path) -> None:
    """Starting it again gives the final weights at once."""
    Ended(tmp_path)
    again = Ended(tmp_path)
    assert again.trained == 0
    assert again.digest == plain()[0]


CHANGES: dict[str, dict[str, Any]] = {
    "an order drawn from the global generator": {"train_sampling_strategy": "group_by_length"},
    "a schedule that follows evaluations": {
        "lr_scheduler_type": "reduce_lr_on_plateau",
        "metric_for_best_model": "loss",
        "lr_scheduler_kwargs": {"patience": 0, "factor": 0.3},
        "warmup_steps": 0,
    },
    "evaluations after epochs": {"eval_strategy": "epoch", "logging_steps": 5},
    "no accumulation": {"gradient_accumulation_steps": 1, "max_steps": 17, "eval_steps": 5},
    "an end within an epoch": {"max_steps": 7},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=list(CHANGES))
def test_whatever_the_arguments(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Two crashes change neither weights nor log."""
    whole = Ended(tmp_path / "whole", **changes)
    for crash_in in (3, 5):
        Ended(tmp_path / "cut", crash_in=crash_in, **changes)
    cut = Ended(tmp_path / "cut", **changes)
    assert cut.trained < whole.trained - 3
    assert (cut.digest, cut.log) == (whole.digest, whole.log)


def test_a_causal_model_with_tied_weights(tmp_path: Path) -> None:
    """GPT-2's output layer is its embedding: stored once, restored as one."""

    def run(folder: Path, crash_in: int | None = None) -> Ended:
        torch.manual_seed(1)
        config = GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=16)
        rows = [{"input_ids": torch.arange(8) + n, "labels": torch.arange(8) + n} for n in range(9)]
        return Ended(
            folder,
            crash_in=crash_in,
            model=GPT2LMHeadModel(config),
            eval_strategy="no",
            train_dataset=rows,
            data_collator=None,
        )

    whole = run(tmp_path / "whole")
    run(tmp_path / "cut", crash_in=2)
    assert run(tmp_path / "cut").digest == whole.digest


def test_an_early_stop_stays(tmp_path: Path) -> None:
    """Patience is counted on across a crash, and a stopped training is not taken up again."""
    changes: dict[str, Any] = {
        "callbacks": (lambda: EarlyStoppingCallback(2),),
        "metric_for_best_model": "loss",
        "load_best_model_at_end": False,
        "eval_steps": 1,
        "greater_is_better": True,
    }
    whole = Ended(tmp_path / "whole", **changes)
    assert whole.stopped_at < 12
    Ended(tmp_path / "cut", crash_in=whole.stopped_at - 1, **changes)
    cut = Ended(tmp_path / "cut", **changes)
    assert (cut.digest, cut.log) == (whole.digest, whole.log)
    again = Ended(tmp_path / "cut", **changes)
    assert (again.trained, again.digest) == (0, whole.digest)


@pytest.mark.parametrize(("step", "strategy"), [(3, "steps"), (12, "steps"), (4, "epoch")])
def test_a_drain_in_an_evaluation_loses_no_step(tmp_path: Path, step: int, strategy: str) -> None:
    """It leaves at once with the step before it saved; the next attempt evaluates again."""
    changes: dict[str, Any] = {"eval_strategy": strategy}
    whole = Ended(tmp_path / "whole", **changes)
    left = Ended(tmp_path / "cut", callbacks=(lambda: DrainIn(step),), **changes)
    assert left.code == 75
    ended = Ended(tmp_path / "cut", **changes)
    assert ended.trained == 12 - step
    assert (ended.digest, ended.log) == (whole.digest, whole.log)


@PATIENT
def test_a_killed_process_changes_no_bit(tmp_path: Path) -> None:
    """SIGKILL a real process that saves all the time; the next one ends with equal bytes."""
    process = start("hf_training.py", tmp_path, "step_s=0.2")
    try:
        await_step(tmp_path / "store", process, 4)
    finally:
        process.kill()
        process.communicate(timeout=20)
    assert not (tmp_path / "digest.txt").exists()
    start("hf_training.py", tmp_path).communicate(timeout=120)
    assert (tmp_path / "digest.txt").read_text() == plain()[0]


@PATIENT
def test_sigterm_saves_and_leaves_with_75(tmp_path: Path) -> None:
    """A polite signal is a drain: the newest step is committed and the code says so."""
    process = start("hf_training.py", tmp_path, "step_s=0.2")
    try:
        await_step(tmp_path / "store", process, 2)
        process.terminate()
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 75
    start("hf_training.py", tmp_path).communicate(timeout=120)
    assert (tmp_path / "digest.txt").read_text() == plain()[0]


def test_what_cannot_be_exact_is_refused() -> None:
    """An argument that gives up the position in the data is named."""
    with pytest.raises(CheckpointError, match="ignore_data_skip"):
        resumable(make_trainer(ignore_data_skip=True))


def test_another_model_is_refused(tmp_path: Path) -> None:
    """A changed shape is named by torch's own list, with our remedy."""
    Ended(tmp_path, crash_in=2)
    trainer = make_trainer(GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2)))
    resumable(trainer, save_to=str(tmp_path))
    with pytest.raises(CheckpointError, match="Missing key"):
        trainer.train()
