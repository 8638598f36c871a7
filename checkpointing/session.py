"""`Session`: the two lines that make a training script resumable.

    with Session(model=model, optimizer=optimizer, loader=loader) as session:
        for step in session.steps(total):
            train_one_step(next(loader))

Inside Lowtide it restores the newest verified checkpoint on entry, saves in the background while
training goes on, saves and leaves when the node is taken away, and commits the final state. Outside
Lowtide it only counts steps, unless `save_to` names a folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from checkpointing.archive import Archive, next_epoch, open_archive
from checkpointing.cadence import OBJECT_STORE, Cadence
from checkpointing.control import Hello
from checkpointing.control_client import Control, ControlClient, SilentControl, opened
from checkpointing.depot import Depot, DepotOrder
from checkpointing.digest import digest_state
from checkpointing.engine import Engine
from checkpointing.environment import Environment, new_nonce, process_id, read_environment
from checkpointing.errors import CheckpointError
from checkpointing.gang import Gang, current_gang
from checkpointing.gate import StepGate
from checkpointing.identity import Identity
from checkpointing.prefetch import prefetched
from checkpointing.provenance import collect
from checkpointing.retention import Retention
from checkpointing.saver import Saver, Stats
from checkpointing.storage import Storage, open_storage
from checkpointing.subjects import Subjects
from checkpointing.uploader import ThreadUploader, Uploader
from checkpointing.uploader_process import ProcessUploader

LOCAL_JOB: Final = "local"


class Session:
    """Saves and restores the objects it is given; see the module's text.

    Every object needs `state_dict` and `load_state_dict`. Random generators of Python, NumPy and
    torch are always included. Resume is bit-exact if everything that training depends on is here
    and the number of threads is the same: another number adds up in another order.
    """

    def __init__(
        self,
        *,
        model: object = None,
        optimizer: object = None,
        scheduler: object = None,
        scaler: object = None,
        loader: object = None,
        save_to: str | None = None,
        save_every_s: float = 0,
        keep: int = 3,
        overlap: bool = False,
        **extra: object,
    ) -> None:
        """`save_every_s` > 0 fixes the interval between saves; `keep` newest commits stay.

        `save_to`: a folder for checkpoints outside Lowtide. Inside, the job's own place wins.
        `overlap`: copy parameters and optimizer state while the next step computes its gradients;
        `optimizer.step` waits for the copy. For trainings that change parameters nowhere else.
        """
        self._model = model
        self._objects = {
            "model": model,
            "optimizer": optimizer,
            "scheduler": scheduler,
            "scaler": scaler,
            "loader": loader,
            **extra,
        }
        self._save_to = save_to
        self._interval_us = int(save_every_s * 1_000_000)
        self._retention = Retention(last=keep)
        self._overlap = overlap
        self._engine: Engine | None = None

    def __enter__(self) -> Self:
        """Restore; raise `CheckpointError` if the store or the checkpoint cannot be used."""
        environment = read_environment()
        if environment.managed or self._save_to is not None:
            self._engine = self._opened(environment)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let a save in flight end and hang up."""
        if self._engine is not None:
            self._engine.close(broken=isinstance(error, Exception))

    def steps(self, total: int) -> Iterator[int]:
        """Yield the remaining step indices of 0 .. total - 1.

        At each step's end it may save; when asked to drain it saves and raises `SystemExit(75)`.
        After the last step the final state is committed. Leaving the loop early commits nothing.
        """
        return iter(range(total)) if self._engine is None else self._engine.steps(total)

    def begin(self, total: int) -> int:
        """For a loop that is not ours: return the first step to run, of 0 .. `total` - 1.

        Call it right before that step, since it sets the random generators. `total` 0: not known.
        """
        return 0 if self._engine is None else self._engine.begin(total)

    def completed(self, steps: int) -> None:
        """For a loop that is not ours: `steps` steps are complete, and the next has not begun.

        May save; when asked to drain it saves and raises `SystemExit(75)`. It may be called again
        with the same number, as in a long evaluation.
        """
        if self._engine is not None:
            self._engine.completed(steps)

    def poll(self) -> bool:
        """In a long phase within a step: return True once this process was asked to leave.

        Break off then: what was trained is saved at the step's end. An evaluation between two
        steps can call `completed` instead, and is left from there.
        """
        return self._engine is not None and self._engine.poll()

    def finish(self, steps: int) -> None:
        """For a loop that is not ours: the training is over after `steps` steps; commit that."""
        if self._engine is not None:
            self._engine.finish(steps)

    @property
    def restored_step(self) -> int:
        """Steps that were already complete on entry."""
        return 0 if self._engine is None else self._engine.restored_step

    @property
    def skipped(self) -> tuple[str, ...]:
        """Why newer checkpoints were passed over on entry, one sentence each."""
        return () if self._engine is None else self._engine.skipped

    @property
    def stats(self) -> Stats:
        """Totals of this session's saves."""
        saver = None if self._engine is None else self._engine.saver
        return Stats() if saver is None else saver.stats

    def final_digest(self) -> str:
        """Return the BLAKE3 of the model's weights, to compare trainings byte by byte."""
        return digest_state(self._model)

    def _opened(self, environment: Environment) -> Engine:
        control = _control(environment)
        try:
            engine = self._built(environment, control)
        except CheckpointError:
            control.close(flush_s=0)
            raise
        return _started(engine)

    def _built(self, environment: Environment, control: Control) -> Engine:
        subjects = Subjects(self._objects)
        gang = current_gang()
        uri = environment.checkpoint_uri or (None if environment.managed else self._save_to)
        archive = None
        if uri is not None:
            storage = prefetched(open_storage(uri), environment.prefetched)
            archive = _archive(storage, environment, gang)
        saver = None
        if archive is not None:
            uploader = _uploader(archive, environment, uri=uri or "", retention=self._retention)
            interval_us = environment.interval_ms * 1000 or self._interval_us
            tariff = OBJECT_STORE if archive.storage.uri.startswith("s3:") else None
            gate = StepGate(subjects.optimizers) if self._overlap else None
            cadence = Cadence(interval_us=interval_us)
            saver = Saver(uploader, cadence=cadence, tariff=tariff, gate=gate)
        return Engine(subjects, gang=gang, control=control, archive=archive, saver=saver)


def _uploader(
    archive: Archive, environment: Environment, *, uri: str, retention: Retention
) -> Uploader:
    origin = collect(world_size=archive.identity.world_size)
    own_memory = archive.storage.uri.startswith("memory:")  # another process would see another
    if environment.upload_in_thread or own_memory:
        return ThreadUploader(Depot(archive, retention=retention, provenance=origin))
    order = DepotOrder(uri, archive.identity, archive.conditional, retention, origin)
    return ProcessUploader(order)


def _started(engine: Engine) -> Engine:
    try:
        engine.start()
    except BaseException:
        engine.close()
        raise
    return engine


def _control(environment: Environment) -> Control:
    if environment.control_path is None:
        return SilentControl()
    hello = Hello(rank=environment.rank, pid=process_id())
    client = ControlClient(environment.control_path, hello=hello)
    client.send(opened(environment))
    return client


def _archive(storage: Storage, environment: Environment, gang: Gang) -> Archive:
    job_id = environment.job_id or LOCAL_JOB
    mine = [0, 0]
    if gang.rank == 0:
        epoch = environment.epoch or next_epoch(storage, job_id=job_id)
        mine = [new_nonce(), epoch]
    session, epoch = gang.agree(mine)
    identity = Identity(
        job_id=job_id,
        attempt_id=environment.attempt_id,
        epoch=epoch,
        session=session,
        rank=gang.rank,
        world_size=gang.world_size,
    )
    return open_archive(storage, identity)
