"""Hugging Face `Trainer`: one line makes a training resumable, bit for bit.

    trainer = resumable(Trainer(model=model, args=args, train_dataset=data))
    trainer.train()

`train` then starts from the newest verified checkpoint, saves in the background at optimizer steps
by the session's interval rule, leaves with code 75 when asked to drain, in evaluations too, and
commits the final state. The Trainer's own `save_strategy` may be "no".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, TypeVar

from transformers import TrainerCallback

from checkpointing.errors import CheckpointError
from checkpointing.integrations.trainer_run import TrainerRun

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object

_Kind = TypeVar("_Kind")

_SEAMS: Final = (
    "_init_training_state",
    "_prepare_for_training",
    "_run_epoch",
    "_maybe_log_save_evaluate",
    "get_batch_samples",
)
"""What `ResumableTrainer` extends; a version of transformers without them is refused."""
_NOWHERE: Final = os.devnull
"""Tells the Trainer that it resumes; it looks for files below this path and finds none."""


def resumable(
    trainer: _Kind,
    *,
    save_to: str | None = None,
    save_every_s: float = 0,
    **options: Any,  # noqa: ANN401 - whatever Session takes
) -> _Kind:
    """Make `trainer` (any subclass of `Trainer`) resumable, and return it.

    The options are `Session`'s: outside Lowtide nothing is saved unless `save_to` names a folder.
    Raises `CheckpointError` for a set-up that cannot be resumed exactly.
    """
    _check(trainer)
    kind = type(trainer)
    trainer.__class__ = type(f"Resumable{kind.__name__}", (ResumableTrainer, kind), {})
    trainer.session_options = {  # type: ignore[attr-defined]
        "save_to": save_to,
        "save_every_s": save_every_s,
        **options,
    }
    trainer.add_callback(_Watch(trainer))  # type: ignore[attr-defined]
    return trainer


class ResumableTrainer(_Trainer):  # type: ignore[misc]
    """What `resumable` adds to a Trainer: where its loop begins, feeds itself and pauses."""

    session_options: dict[str, Any]
    run: TrainerRun | None = None
    """Set while `train` runs."""

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,  # noqa: FBT001 - the Trainer's own
        trial: object = None,
        **more: Any,  # noqa: ANN401 - the Trainer's own
    ) -> Any:  # noqa: ANN401
        """Train to the end from the newest commit; a checkpoint that is passed in serves if none.

        Raises `SystemExit(75)` when asked to drain.
        """
        if trial is not None:  # a search tries many trainings; only one can be the job's
            return super().train(resume_from_checkpoint, trial, **more)
        with TrainerRun(self, options=self.session_options) as run:
            self.run = run
            try:
                given = None if run.is_restored else resume_from_checkpoint
                output = super().train(given, None, **more)
                run.finish()
            finally:
                self.run = None
        return output

    def _init_training_state(
        self, max_steps: int, updates: int, epochs: int, *more: object
    ) -> tuple[int, int]:
        place = super()._init_training_state(max_steps, updates, epochs, *more)
        if self.run is not None:
            place = self.run.place(place, epochs=epochs)
        return place  # type: ignore[no-any-return]

    def _prepare_for_training(self, *given: object) -> Any:  # noqa: ANN401
        if self.run is None:
            return super()._prepare_for_training(*given)
        self.run.model.apply()
        prepared = super()._prepare_for_training(*given)
        self.run.apply()
        return prepared

    def _run_epoch(self, **given: Any) -> None:  # noqa: ANN401
        if self.run is not None:
            if self.run.is_restored:
                given["resume_from_checkpoint"] = _NOWHERE
            self.run.enter_epoch(given)
        super()._run_epoch(**given)

    def get_batch_samples(self, epoch_iterator: Any, *given: object) -> Any:  # noqa: ANN401
        """Take the batches from the run's feed, whose position is exact; none after the end."""
        if self.run is None:
            return super().get_batch_samples(epoch_iterator, *given)
        if self.run.is_over:
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(self.run.feed, *given)

    def _maybe_log_save_evaluate(
        self,
        tr_loss: Any,  # noqa: ANN401
        grad_norm: Any,  # noqa: ANN401
        *given: object,
        learning_rate: float | None = None,
    ) -> None:
        if self.run is not None:
            self.run.hold(grad_norm, learning_rate)
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *given, learning_rate=learning_rate)
        if self.run is not None:
            self.run.release()


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Looks up from an evaluation to see whether the node is being taken away."""

    def __init__(self, trainer: Any) -> None:  # noqa: ANN401
        self._trainer = trainer

    def on_train_begin(self, *_given: object, **_more: object) -> None:
        """Set the sums of the loss, which the Trainer has just cleared."""
        if self._trainer.run is not None:
            self._trainer.run.restore_sums()

    def on_prediction_step(self, *_given: object, **_more: object) -> None:
        """Leave with the state of before the evaluation, if asked to."""
        if self._trainer.run is not None:
            self._trainer.run.look_up()


def _check(trainer: object) -> None:
    missing = [name for name in _SEAMS if not hasattr(trainer, name)]
    if missing:
        raise _unsupported(
            f"{type(trainer).__name__} has no {missing[0]}", "Use transformers 5.23 or newer."
        )
    args: Any = trainer.args  # type: ignore[attr-defined]
    if getattr(trainer, "is_deepspeed_enabled", False) or getattr(
        trainer, "is_fsdp_enabled", False
    ):
        raise _unsupported(
            "DeepSpeed and FSDP shard the state in ways of their own",
            "Train with DDP, or save with torch.distributed.checkpoint through our storage.",
        )
    for name in ("auto_find_batch_size", "ignore_data_skip"):
        if getattr(args, name, False):
            raise _unsupported(f"{name} gives up the position in the data", f"Turn {name} off.")


def _unsupported(why: str, remedy: str) -> CheckpointError:
    return CheckpointError(
        "trainer-unsupported",
        cause=f"This Trainer cannot be resumed exactly: {why}.",
        remedy=remedy,
    )
