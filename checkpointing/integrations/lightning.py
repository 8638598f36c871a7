"""Lightning: one callback makes a training resumable, bit for bit.

    trainer = Trainer(callbacks=[LowtideCallback()])
    trainer.fit(module, data)

It restores the newest verified checkpoint through Lightning's own restore (module, optimizers,
schedulers, precision, loops, callbacks, data module), saves in the background at optimizer steps by
the session's interval rule, leaves with code 75 when asked to drain, in validations too, and
commits the final state. No other checkpoint callback is needed.
"""

from __future__ import annotations

import math
import signal
import warnings
from typing import Any, Final

from lightning.pytorch.callbacks import Checkpoint

from checkpointing.errors import CheckpointError
from checkpointing.integrations.loader_place import LoaderPlace
from checkpointing.rng import apply_rng, capture_rng
from checkpointing.session import Session

_VAL_PROGRESS: Final = "epoch_loop.val_loop.batch_progress"
_MODEL, _OPTIMIZERS, _REST = "state_dict", "optimizer_states", "rest"


class LowtideCallback(Checkpoint):  # type: ignore[misc]
    """Connects a Lightning Trainer to a session; `Trainer.fit` is then resumable.

    A boundary is where the next batch is about to be fetched: all that follows a step is done.
    Gradients that are being accumulated are never cut.
    """

    def __init__(
        self,
        *,
        save_to: str | None = None,
        save_every_s: float = 0,
        **options: Any,  # noqa: ANN401 - whatever Session takes
    ) -> None:
        """The options are `Session`'s: outside Lowtide nothing is saved without `save_to`."""
        self._options = {"save_to": save_to, "save_every_s": save_every_s, **options}
        self._session: Session | None = None

    # ------------------------------------------------------------------ Lightning's hooks

    def setup(self, trainer: Any, _module: object, stage: str) -> None:  # noqa: ANN401
        """Restore, before Lightning would read a checkpoint of its own."""
        if stage != "fit":
            return
        self._trainer = trainer
        self._dump = _Dump(trainer)
        self._place = LoaderPlace(before_fetch=self._boundary)
        self._between = _Between(self._place)
        self._was_held = False
        self._former = signal.getsignal(signal.SIGTERM)
        self._session = Session(
            model=_Part(self._dump, _MODEL),
            optimizer=_Part(self._dump, _OPTIMIZERS),
            loader=self._between,
            lightning=_Part(self._dump, _REST),
            **self._options,
        ).__enter__()
        mine = signal.getsignal(signal.SIGTERM)
        self._on_sigterm = None if mine == self._former else mine
        self._dump.hand_over()

    def on_fit_start(self, trainer: Any, _module: object) -> None:  # noqa: ANN401
        """Refuse a second source of state."""
        if trainer.ckpt_path is not None:
            self._close(broken=True)
            raise _two_checkpoints(trainer.ckpt_path)

    def on_train_start(self, trainer: Any, _module: object) -> None:  # noqa: ANN401
        """Stand where the checkpoint was taken."""
        assert self._session is not None, "trains without a set-up"
        if self._on_sigterm is not None:  # Lightning's handler would end us without a checkpoint
            signal.signal(signal.SIGTERM, self._on_sigterm)
            self._give_back_sigterm()
        self._dump.is_ready = True
        self._watch_data()
        self._session.begin(_total_steps(trainer))
        held = self._between.take_held()
        self._was_held = held is not None
        if held is not None:
            apply_rng(held)
        self._here = capture_rng()
        self._resumed = self._dump.is_restored

    def on_train_epoch_start(self, *_given: object) -> None:
        """Watch a fetcher that was made anew."""
        self._watch_data()

    def on_train_batch_end(self, *_given: object) -> None:
        """Remember the generators: a validation may follow."""
        self._between.rng = capture_rng()

    def on_validation_start(self, trainer: Any, _module: object) -> None:  # noqa: ANN401
        """Keep the state of before a validation, which may outlast a drain's notice."""
        trains = self._session is not None and self._dump.is_ready and not trainer.sanity_checking
        if trains and not _is_accumulating(trainer):
            self._dump.hold()
            self._between.hold()

    def on_validation_batch_start(self, trainer: Any, *_given: object) -> None:  # noqa: ANN401
        """Leave with that state, if asked to."""
        if self._session is not None and self._dump.is_held:
            self._session.completed(trainer.global_step)

    def on_validation_end(self, *_given: object) -> None:
        """The validation counts from here."""
        if self._session is not None:
            self._dump.release()
            self._between.release()

    def on_train_end(self, trainer: Any, _module: object) -> None:  # noqa: ANN401
        """Commit the final state."""
        if self._session is not None:
            self._session.finish(trainer.global_step)

    def on_exception(self, *_given: object) -> None:
        """End the session of a training that ends early."""
        if self._session is not None and self._on_sigterm is not None:
            self._give_back_sigterm()
        self._close(broken=True)

    def teardown(self, _trainer: object, _module: object, stage: str) -> None:
        """End the session."""
        self._close(broken=False)

    # ------------------------------------------------------------------ between two batches

    def _boundary(self) -> None:
        epoch_loop = self._trainer.fit_loop.epoch_loop
        if self._resumed:
            self._resumed = False
            if not self._was_held:
                # What Lightning does to find its way back must not show.
                epoch_loop._batches_that_stepped = self._between.stepped  # noqa: SLF001
                apply_rng(self._here)
        self._between.stepped = epoch_loop._batches_that_stepped  # noqa: SLF001
        if self._session is not None and not _is_accumulating(self._trainer):
            self._session.completed(self._trainer.global_step)

    def _give_back_sigterm(self) -> None:
        """Have Lightning leave behind the handler that was there before the session's."""
        former = self._trainer._signal_connector._original_handlers  # noqa: SLF001
        former[signal.SIGTERM] = self._former

    def _watch_data(self) -> None:
        loop = self._trainer.fit_loop
        loop._data_fetcher = self._place.attach(loop._data_fetcher)  # noqa: SLF001 - no hook there

    def _close(self, *, broken: bool) -> None:
        session, self._session = self._session, None
        if session is not None:
            error = RuntimeError() if broken else None
            session.__exit__(None if error is None else type(error), error, None)


class _Dump:
    """Lightning's own checkpoint, as one value: read once per save, handed over once."""

    def __init__(self, trainer: Any) -> None:  # noqa: ANN401
        self.is_ready = False
        """Whether there is anything to save yet."""
        self.saved: dict[str, Any] = {}
        self.is_restored = False
        self._trainer = trainer
        self._held: dict[str, Any] | None = None
        self._now: dict[str, Any] = {}

    @property
    def is_held(self) -> bool:
        """Whether a validation is going on."""
        return self._held is not None

    def read(self, part: str) -> object:
        """Return a part of the checkpoint; the first part reads all of it."""
        if not self.is_ready:
            return {}
        if part == _MODEL:
            self._now = dict(self._held or self._read())
        return self._now if part == _REST else self._now.pop(part)

    def hold(self) -> None:
        """Keep the state as it is: a validation changes none of the tensors."""
        self._held = self._read()
        # To Lightning: the validation has begun, and none of its batches is done.
        progress = self._held["loops"]["fit_loop"][_VAL_PROGRESS]
        done = progress["total"]["completed"]
        progress["total"] |= {"ready": done + 1, "started": done + 1, "processed": done}
        progress["current"] |= dict.fromkeys(progress["current"], 0)

    def release(self) -> None:
        """Forget what was kept."""
        self._held = None

    def hand_over(self) -> None:
        """Let Lightning restore from what the session has restored."""
        if not self.saved:
            return
        self.is_restored = True
        # Lightning takes a DataLoader without a state for one that starts its epoch again.
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended")
        whole = {_MODEL: self.saved[_MODEL], _OPTIMIZERS: self.saved[_OPTIMIZERS]}
        self._trainer.should_stop = self.saved[_REST].pop("should_stop")
        whole |= self.saved[_REST]
        self._trainer._checkpoint_connector._loaded_checkpoint = whole  # noqa: SLF001 - as if read
        self.saved = {}

    def _read(self) -> dict[str, Any]:
        dump = self._trainer._checkpoint_connector.dump_checkpoint(weights_only=False)  # noqa: SLF001
        for source in (self._trainer.lightning_module, self._trainer.datamodule):
            # Arguments of a constructor, of any type: the script has them.
            for name in ("NAME", "KEY", "TYPE"):
                dump.pop(getattr(source, f"CHECKPOINT_HYPER_PARAMS_{name}", None), None)
        stopped = self._trainer.should_stop
        return {**dump, "should_stop": stopped}


class _Part:
    """A part of the dump with chunks of its own, so that what stays is not stored again."""

    def __init__(self, dump: _Dump, name: str) -> None:
        self._dump = dump
        self._name = name

    def state_dict(self) -> object:
        """Return the part."""
        return self._dump.read(self._name)

    def load_state_dict(self, state: object) -> None:
        """Keep the part until all are there."""
        self._dump.saved[self._name] = state


class _Between:
    """What a rank is between two batches: its place in the data, and a validation that waits."""

    def __init__(self, place: LoaderPlace) -> None:
        self.rng: dict[str, object] | None = None
        """The generators after the last batch."""
        self.stepped = 0
        """Lightning's count of steps for its loggers."""
        self._place = place
        self._held: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, object]:
        """Return the place."""
        return {"place": self._place.state_dict(), "stepped": self.stepped, "held": self._held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a place."""
        self._place.load_state_dict(state["place"])
        self.stepped, self._held = state["stepped"], state["held"]

    def hold(self) -> None:
        """Keep the generators of before a validation."""
        self._held = self.rng

    def release(self) -> None:
        """Forget them."""
        self._held = None

    def take_held(self) -> dict[str, Any] | None:
        """Return the generators of a restored validation, once."""
        held, self._held = self._held, None
        return held


def _is_accumulating(trainer: Any) -> bool:  # noqa: ANN401
    return bool(trainer.fit_loop.epoch_loop._should_accumulate())  # noqa: SLF001


def _total_steps(trainer: Any) -> int:  # noqa: ANN401
    """Return the steps of the whole training, 0 if that has no end."""
    if trainer.max_steps > 0:
        return int(trainer.max_steps)
    batches = trainer.num_training_batches / trainer.accumulate_grad_batches
    steps = batches * (trainer.max_epochs or 0)
    return math.ceil(batches) * trainer.max_epochs if 0 < steps < math.inf else 0


def _two_checkpoints(path: object) -> CheckpointError:
    return CheckpointError(
        "trainer-two-checkpoints",
        cause=f"Lightning was given the checkpoint {path}, and the session restores its own.",
        remedy="Pass no ckpt_path; load pre-trained weights where the module is built.",
    )
