"""A Lightning training resumes bit for bit: weights, validations, order and noise of the data."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader

from checkpointing import CheckpointError, digest_state
from checkpointing.integrations.lightning import LowtideCallback
from tests.integration.lightning_training import make
from tests.integration.scripts import await_step, start

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]
PATIENT = pytest.mark.timeout(300)  # two processes import a trainer each
ROOT = Path(__file__).resolve().parents[2]


class Crash(Exception):  # noqa: N818 - what happened, not an error
    """Stands for a process that dies."""


class CrashAt(Callback):  # type: ignore[misc]
    """Crashes before training on batch `batch` of the whole training, and counts."""

    def __init__(self, batch: int | None) -> None:
        """No batch: never."""
        self.batch = batch
        self.trained = 0

    def on_train_batch_start(self, trainer: Any, *_given: Any) -> None:
        """Crash in time."""
        if trainer.fit_loop.epoch_loop.batch_progress.total.ready == self.batch:
            raise Crash
        self.trained += 1


class DrainAt(Callback):  # type: ignore[misc]
    """Has SIGTERM sent in the validation after optimizer step `step`."""

    def __init__(self, step: int) -> None:
        """At which step."""
        self.step = step

    def on_validation_start(self, trainer: Any, _module: Any) -> None:
        """Send it."""
        if trainer.global_step == self.step and not trainer.sanity_checking:
            os.kill(os.getpid(), signal.SIGTERM)


class Ended:
    """How a training ended, and the batches that this attempt trained on."""

    def __init__(
        self, folder: Path | None, *extra: Callback, crash_at: int | None = None, **changes: Any
    ) -> None:
        """Train in `folder` (None: without us)."""
        counter = CrashAt(crash_at)
        trainer, module, data = make(folder, *extra, counter, **changes)
        self.code: Any = None
        self.digest = ""
        try:
            trainer.fit(module, data)
            self.digest = digest_state(module)
        except Crash:
            pass
        except SystemExit as left:
            self.code = left.code
        self.trained = counter.trained
        self.seen = (
            module.validated,
            data.asked,
            trainer.fit_loop.epoch_loop._batches_that_stepped,
        )


CHANGES: dict[str, dict[str, Any]] = {
    "accumulation and validations within epochs": {},
    "a schedule that follows validations": {"plateau": True},
    "validations at the end of epochs": {"val_check_interval": 1.0, "accumulate_grad_batches": 1},
    "an end within an epoch": {"max_steps": 5},
    "loaders that are made anew": {"reload_dataloaders_every_n_epochs": 1},
    "worker processes": {"workers": 2},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=list(CHANGES))
def test_a_crash_changes_no_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Within an epoch, at its first batch, after a validation; once and again and again."""
    whole = Ended(tmp_path / "whole", **changes)
    if "workers" not in changes:  # those have their first epoch drawn twice
        plain = Ended(None, **changes)
        assert (plain.digest, plain.seen) == (whole.digest, whole.seen)
    for crashes in ((8,), (9,), (5, 9, 12)):
        folder = tmp_path / str(crashes)
        for crash_at in crashes:
            Ended(folder, crash_at=crash_at, **changes)
        cut = Ended(folder, **changes)
        assert cut.trained <= whole.trained - crashes[-1] + 4
        assert (cut.digest, cut.seen) == (whole.digest, whole.seen), crashes


def test_sigterm_is_given_back(tmp_path: Path) -> None:
    """Whether a training ends or breaks, the handler that was there before is there again."""
    for crash_at in (5, None):
        Ended(tmp_path, crash_at=crash_at)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_finished_training_trains_no_more(tmp_path: Path) -> None:
    """Starting it again gives the final weights at once."""
    whole = Ended(tmp_path)
    again = Ended(tmp_path)
    assert (again.trained, again.digest) == (0, whole.digest)


def test_a_drain_never_cuts_an_accumulation(tmp_path: Path) -> None:
    """In a validation amid an accumulation it waits for the step: no gradient is lost."""
    whole = Ended(tmp_path / "whole")
    left = Ended(tmp_path / "cut", DrainAt(1))  # after batch 4, of which 3 have made a step
    assert (left.code, left.trained) == (75, 6)
    ended = Ended(tmp_path / "cut")
    assert (ended.digest, ended.seen) == (whole.digest, whole.seen)


@pytest.mark.parametrize(("step", "interval"), [(2, 3), (3, 4), (9, 4)])
def test_a_drain_in_a_validation_loses_no_step(tmp_path: Path, step: int, interval: int) -> None:
    """It leaves with the step before it saved; the next attempt validates again from the start."""
    whole = Ended(tmp_path / "whole", val_check_interval=interval)
    left = Ended(tmp_path / "cut", DrainAt(step), val_check_interval=interval)
    assert left.code == 75
    ended = Ended(tmp_path / "cut", val_check_interval=interval)
    assert ended.trained == whole.trained - left.trained
    assert (ended.digest, ended.seen) == (whole.digest, whole.seen)


def test_other_callbacks_keep_their_state(tmp_path: Path) -> None:
    """Patience is counted on across a crash; a stopped training is not taken up again."""

    def run(name: str, crash_at: int | None = None) -> tuple[Ended, ModelCheckpoint]:
        patience = EarlyStopping("val_loss", patience=1, mode="max")
        best = ModelCheckpoint(tmp_path / f"{name}-best", monitor="val_loss", save_top_k=1)
        ended = Ended(tmp_path / name, patience, best, crash_at=crash_at, max_epochs=9)
        return ended, best

    whole, best = run("whole")
    assert whole.trained < 9 * 8
    run("cut", crash_at=whole.trained - 1)
    cut, best_of_cut = run("cut")
    assert (cut.digest, cut.seen) == (whole.digest, whole.seen)
    assert best_of_cut.best_model_score == best.best_model_score
    again, _ = run("cut")
    assert (again.trained, again.digest) == (0, whole.digest)


@PATIENT
def test_a_killed_process_changes_no_bit(tmp_path: Path) -> None:
    """SIGKILL a real process that saves all the time; the next one ends with equal bytes."""
    process = start("lightning_training.py", tmp_path, "step_s=0.1")
    try:
        await_step(tmp_path / "store", process, 4)
    finally:
        process.kill()
        process.communicate(timeout=20)
    assert not (tmp_path / "digest.txt").exists()
    start("lightning_training.py", tmp_path).communicate(timeout=120)
    assert (tmp_path / "digest.txt").read_text() == Ended(None).digest


@PATIENT
def test_sigterm_saves_and_leaves_with_75(tmp_path: Path) -> None:
    """Lightning's own handler would end the process without a checkpoint; ours has the say."""
    process = start("lightning_training.py", tmp_path, "step_s=0.1")
    try:
        await_step(tmp_path / "store", process, 2)
        process.terminate()
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 75
    start("lightning_training.py", tmp_path).communicate(timeout=120)
    assert (tmp_path / "digest.txt").read_text() == Ended(None).digest


def test_an_iterable_data_set_is_read_again(tmp_path: Path) -> None:
    """It has no order to pass over: its first batches are read and thrown away."""

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            return ((torch.ones(6) * index, index % 3) for index in range(24))

    def run(folder: Path, crash_at: int | None = None) -> tuple[str, int]:
        counter = CrashAt(crash_at)
        trainer, module, _ = make(folder, counter, val_check_interval=1.0, limit_val_batches=0)
        try:
            trainer.fit(module, torch.utils.data.DataLoader(Stream(), batch_size=4))
        except Crash:
            return "", 0
        return digest_state(module), counter.trained

    whole, _ = run(tmp_path / "whole")
    run(tmp_path / "cut", crash_at=11)
    digest, trained = run(tmp_path / "cut")
    assert digest == whole
    assert trained < 12


def test_what_cannot_be_exact_is_refused(tmp_path: Path) -> None:
    """Two loaders without a state have no common position."""
    trainer, module, data = make(tmp_path)
    loader = data.train_dataloader()
    with pytest.raises(CheckpointError, match="2 data loaders"):
        trainer.fit(module, CombinedLoader([loader, loader]), data.val_dataloader())


def test_a_second_checkpoint_is_refused(tmp_path: Path) -> None:
    """Of two sources of state one would be lost without a word."""
    trainer, module, data = make(None)
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    trainer, module, data = make(tmp_path / "store")
    with pytest.raises(CheckpointError, match=r"own\.ckpt"):
        trainer.fit(module, data, ckpt_path=tmp_path / "own.ckpt", weights_only=False)


def test_outside_lowtide_it_does_nothing(tmp_path: Path) -> None:
    """Without a store the training is Lightning's."""
    trainer, module, data = make(None, LowtideCallback(), enable_checkpointing=True)
    trainer.fit(module, data)
    assert not list(tmp_path.iterdir())
    assert digest_state(module) == Ended(None).digest
