"""One `train()` of a Hugging Face Trainer: its session, its place, and its work between steps.

A boundary is after the work that follows an optimizer step (log, evaluate, save). An evaluation can
outlast a drain's notice, so a boundary in the middle of that work is possible too: the state of
before it is kept together with what was about to be done, and the next attempt does it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from transformers.trainer_callback import ExportableState

from checkpointing.integrations.batch_feed import BatchFeed
from checkpointing.integrations.deferred import Deferred
from checkpointing.rng import apply_rng, capture_rng
from checkpointing.session import Session

_STATE_FIELDS: Final = (
    "epoch",
    "global_step",
    "num_input_tokens_seen",
    "total_flos",
    "log_history",
    "best_metric",
    "best_global_step",
    "best_model_checkpoint",
)
"""What of `TrainerState` is progress; the rest follows from the arguments."""
_FLAGS: Final = ("should_log", "should_evaluate", "should_save")
_SUMS: Final = ("_tr_loss", "_globalstep_last_logged", "current_flos")


class TrainerRun:
    """Connects a Trainer to a session for one call of `train`."""

    def __init__(self, trainer: Any, *, options: Mapping[str, Any]) -> None:  # noqa: ANN401
        """Nothing is read before the `with` block."""
        self.model = Deferred("model", find=lambda: trainer.model)
        self.feed = BatchFeed()
        self._trainer = trainer
        self._parts = {
            "optimizer": Deferred("optimizer", find=lambda: trainer.optimizer),
            "scheduler": Deferred("scheduler", find=lambda: trainer.lr_scheduler),
            "scaler": Deferred("scaler", find=lambda: getattr(trainer.accelerator, "scaler", None)),
        }
        self._progress = _Progress(trainer)
        self._place = _Place(self.feed)
        subjects: dict[str, Any] = {**self._parts, "trainer": self._progress}
        self._session = Session(model=self.model, loader=self._place, **subjects, **options)
        self._begun = False
        self._worked: int | None = None
        """The step whose work between steps was done last."""

    def __enter__(self) -> Self:
        """Restore what can be restored before the Trainer has built its optimizer."""
        self._session.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let a save in flight end."""
        self._session.__exit__(kind, error, trace)

    @property
    def is_restored(self) -> bool:
        """Whether there was a commit to go on from."""
        return self._progress.saved is not None

    @property
    def is_over(self) -> bool:
        """Whether no more step is to be trained, although the epoch has more batches."""
        state = self._trainer.state
        return bool(self._progress.stopped or state.global_step >= state.max_steps)

    def place(self, default: tuple[int, int], *, epochs: int) -> tuple[int, int]:
        """Return the epoch to go on in and the batches of it to pass over; set the counters."""
        if not self.is_restored:
            self.feed.epoch, self.feed.taken = default
            return default
        self._progress.apply()
        if self._progress.stopped and not self.feed.taken:
            return epochs, 0
        accumulated = self._trainer.args.gradient_accumulation_steps
        # Whole updates: the last one of an epoch may have had fewer batches.
        return self.feed.epoch, -(-self.feed.taken // accumulated) * accumulated

    def apply(self) -> None:
        """Hand the optimizer and its kin their states, now that they exist."""
        for part in self._parts.values():
            part.apply()

    def restore_sums(self) -> None:
        """Set what was summed up since the last log."""
        self._progress.apply_sums()

    def enter_epoch(self, given: Mapping[str, Any]) -> None:
        """Stand at the start of an epoch, or where the checkpoint was taken; do what was due."""
        if not self._begun:
            self._begun = True
            self._session.begin(self._trainer.state.max_steps)
            self._resume_work(given)
        self.feed.open(given["train_dataloader"], epoch=given["epoch"])

    def hold(self, grad_norm: Any, learning_rate: float | None) -> None:  # noqa: ANN401
        """Keep the place of before the work between steps, and what that work is to be."""
        control = self._trainer.control
        is_step = self._worked != self._trainer.state.global_step
        self._place.work = {
            "rng": capture_rng(),
            # An epoch's own work is asked for again by the end of the epoch.
            "flags": {name: getattr(control, name) for name in _FLAGS} if is_step else None,
            "grad_norm": None if grad_norm is None else float(grad_norm),
            "learning_rate": learning_rate,
        }

    def release(self) -> None:
        """Say that the work is done: this is a boundary."""
        self._place.work = None
        step = self._trainer.state.global_step
        control = self._trainer.control
        if self._worked == step:
            self.feed.close()
        self._worked = step
        if self.feed.taken and (control.should_epoch_stop or control.should_training_stop):
            return  # the epoch's own work follows at once, and then the boundary
        self._session.completed(step)

    def look_up(self) -> None:
        """In the midst of an evaluation between steps: leave if asked to."""
        if self._place.work is not None:
            self._session.completed(self._trainer.state.global_step)

    def finish(self) -> None:
        """Commit the final state."""
        self._session.finish(self._trainer.state.global_step)

    def _resume_work(self, given: Mapping[str, Any]) -> None:
        step, work = self._trainer.state.global_step, self._place.work
        if not self.is_restored or work is None:
            self._worked = step
            return
        apply_rng(work["rng"])
        if work["flags"] is None:
            self._worked = step
            return
        for name, flag in work["flags"].items():
            setattr(self._trainer.control, name, flag)
        wanted = ("model", "trial", "epoch", "ignore_keys_for_eval", "start_time")
        self._trainer._maybe_log_save_evaluate(  # noqa: SLF001 - the seam that `hold` sits in
            self._trainer._tr_loss,  # noqa: SLF001
            work["grad_norm"],
            *(given[name] for name in wanted),
            learning_rate=work["learning_rate"],
        )


class _Place:
    """A rank's own place: its position in the data, and the work between steps if within it."""

    def __init__(self, feed: BatchFeed) -> None:
        self.work: dict[str, Any] | None = None
        self._feed = feed

    def state_dict(self) -> dict[str, object]:
        """Return the place."""
        return {"feed": self._feed.state_dict(), "work": self.work}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a place."""
        self._feed.load_state_dict(state["feed"])
        self.work = state["work"]


class _Progress:
    """The Trainer's counters, its log, and its callbacks that can be exported."""

    def __init__(self, trainer: Any) -> None:  # noqa: ANN401
        self.saved: dict[str, Any] | None = None
        self.stopped = False
        """Whether a callback ended the training early, in the attempt that was restored."""
        self._trainer = trainer

    def state_dict(self) -> dict[str, object]:
        """Return the progress."""
        state, control = self._trainer.state, self._trainer.control
        return {
            "state": {name: getattr(state, name) for name in _STATE_FIELDS},
            "callbacks": [
                [type(callback).__name__, callback.state()["attributes"]]
                for callback in self._callbacks()
            ],
            "sums": {name: getattr(self._trainer, name, None) for name in _SUMS},
            "stopped": control.should_training_stop and state.global_step < state.max_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the progress; the Trainer makes its counters later."""
        self.saved = state
        self.stopped = state["stopped"]

    def apply(self) -> None:
        """Set the counters, the log and the callbacks."""
        assert self.saved is not None, "nothing was restored"
        for name, value in self.saved["state"].items():
            setattr(self._trainer.state, name, value)
        best = self._trainer.state.best_model_checkpoint
        if best is not None and not Path(best).is_dir():  # on a node that is gone
            self._trainer.state.best_model_checkpoint = None
        saved = list(self.saved["callbacks"])
        for callback in self._callbacks():
            mine = next((item for item in saved if item[0] == type(callback).__name__), None)
            if mine is not None:
                saved.remove(mine)
                vars(callback).update(mine[1])

    def apply_sums(self) -> None:
        """Set the sums; what was summed before this call does not count for its average."""
        if self.saved is None:
            return
        for name, value in self.saved["sums"].items():
            setattr(self._trainer, name, value)
        device = self._trainer.args.device
        self._trainer._tr_loss = self.saved["sums"]["_tr_loss"].to(device)  # noqa: SLF001
        self._trainer._total_loss_scalar = -self._trainer._tr_loss.item()  # noqa: SLF001

    def _callbacks(self) -> list[Any]:
        handler = self._trainer.callback_handler
        return [item for item in handler.callbacks if isinstance(item, ExportableState)]
