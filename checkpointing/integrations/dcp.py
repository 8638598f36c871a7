"""`torch.distributed.checkpoint` on our store: content-addressed, verified, committed, no pickle.

    from checkpointing.integrations.dcp import LowtideReader, LowtideWriter

    dcp.save(state, storage_writer=LowtideWriter("s3://bucket/run"))
    dcp.load(state, storage_reader=LowtideReader("s3://bucket/run"))

Each save is one commit of a job of its own under the URI; a `checkpoint_id` that ends in a number
(`step-100`) is its step, else steps count up. A save that dies half-way leaves the commit before it
as it was, and a writer whose successor has started is fenced out. Each rank of the training stores
a part; the commit names all parts (in the manifests they are ranks 1 .. n: rank 0 is the commit).
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch.distributed.checkpoint import (
    LoadPlan,
    LoadPlanner,
    Metadata,
    SavePlan,
    SavePlanner,
    StorageReader,
    StorageWriter,
)
from torch.distributed.checkpoint.metadata import StorageMeta
from torch.distributed.checkpoint.planner import LoadItemType, ReadItem, WriteItemType
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from checkpointing.archive import next_epoch, open_archive, open_log
from checkpointing.boxes import Wish, read_boxes
from checkpointing.commit import CommitRecord
from checkpointing.environment import new_nonce, read_environment
from checkpointing.errors import CheckpointError, CorruptCheckpoint
from checkpointing.identity import Identity
from checkpointing.integrations.dcp_parts import Found, Place, gathered, read_parts, top_tree
from checkpointing.publish import Publisher
from checkpointing.storage import Storage, open_storage

_JOB: Final = "dcp"


@dataclass(frozen=True, slots=True)
class _Save:
    """What the coordinator tells each rank of one save; travels with the plan."""

    epoch: int
    session: int
    step: int
    rank: int
    world_size: int
    committed: int
    """Step of this session's newest commit, -1 if there is none."""

    def identity(self, job_id: str, *, rank: int) -> Identity:
        """Return who saves as `rank`."""
        return Identity(
            job_id=job_id,
            attempt_id=read_environment().attempt_id,
            epoch=self.epoch,
            session=self.session,
            rank=rank,
            world_size=self.world_size,
        )


class LowtideWriter(StorageWriter):
    """Saves as commits under `uri`. Keep one for a training: it knows what it has sent."""

    def __init__(self, uri: str, *, job_id: str | None = None) -> None:
        """`uri`: a folder, `s3://...` or what else a Session takes; `job_id` tells jobs apart."""
        self._uri = uri
        self._job_id = job_id or default_job()
        self._storage: Storage | None = None
        self._wanted: int | None = None
        self._session: tuple[int, int] | None = None
        self._committed = -1
        self._save: _Save | None = None
        self._publishers: dict[tuple[int, int, int], Publisher] = {}
        self.checkpoint_id: str | None = None
        """As given to the newest `dcp.save`."""

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Take the step of the next save from `checkpoint_id`, if one is given."""
        self.checkpoint_id = None if checkpoint_id is None else str(checkpoint_id)
        self._wanted = None if checkpoint_id is None else step_of(checkpoint_id)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, FBT001 - torch's interface
        """Open the store; raise `CheckpointError` for a save without collectives."""
        del is_coordinator, args
        if not kwargs.get("use_collectives", True):
            raise _without_collectives()
        self._storage = self._storage or open_storage(self._uri)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Change nothing."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """As coordinator: claim the job the first time, and tell each rank its part."""
        epoch, session = self._session or self._claimed()
        self._session = epoch, session
        step = self._next_step() if self._wanted is None else self._wanted
        self._wanted = None
        world = len(plans) + 1
        return [
            replace(plan, storage_data=_Save(epoch, session, step, rank, world, self._committed))
            for rank, plan in enumerate(plans, start=1)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Store this rank's part; raise `CheckpointError` if that cannot be done."""
        save: _Save = plan.storage_data
        self._save = save
        publisher = self._publisher(save, rank=save.rank)
        publisher.settle(save.committed)
        publisher.publish(gathered(plan, planner, step=save.step))
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(item.index, _size(item), None) for item in plan.items])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """As coordinator: commit what all ranks have stored, or raise `FencedOut`."""
        del results  # the ranks' parts are in the store, and say more
        assert self._save is not None, "finish before write_data"
        snapshot = top_tree(metadata.planner_data, step=self._save.step)
        self._publisher(self._save, rank=0).publish(snapshot)
        self._committed = self._save.step

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Say whether a step can be read from it."""
        return _step_in(checkpoint_id) is not None

    def storage_meta(self) -> StorageMeta | None:
        """Return what planners may want to know."""
        return StorageMeta(checkpoint_id=self.checkpoint_id)

    def _opened(self) -> Storage:
        assert self._storage is not None, "used before set_up_storage_writer"
        return self._storage

    def _claimed(self) -> tuple[int, int]:
        storage = self._opened()
        epoch = read_environment().epoch or next_epoch(storage, job_id=self._job_id)
        session = new_nonce()
        who = _Save(epoch, session, 0, 0, 1, -1).identity(self._job_id, rank=0)
        open_archive(storage, who).claim()
        return epoch, session

    def _next_step(self) -> int:
        commits = open_log(self._opened(), job_id=self._job_id).history().commits
        return max((record.step for record in commits), default=0) + 1

    def _publisher(self, save: _Save, *, rank: int) -> Publisher:
        key = (save.session, rank, save.world_size)
        if key not in self._publishers:
            archive = open_archive(self._opened(), save.identity(self._job_id, rank=rank))
            made = Publisher(archive.storage, log=archive.log, identity=archive.identity)
            self._publishers[key] = made
        return self._publishers[key]


class LowtideReader(StorageReader):
    """Loads a commit under `uri`, every byte verified before any of it is used.

    All ranks must see the same newest commit: name a `step` where saves go on meanwhile. A damaged
    manifest is passed over for the commit before it; a damaged chunk fails the load, nothing is
    changed, and an older step (`steps()`) can be named.
    """

    def __init__(self, uri: str, *, step: int | None = None, job_id: str | None = None) -> None:
        """`step`: the commit to load, by default the newest."""
        self._uri = uri
        self._step = step
        self._job_id = job_id or default_job()
        self._storage: Storage | None = None
        self._found: Found | None = None
        self.skipped: tuple[str, ...] = ()
        """Why newer commits were passed over, one sentence each."""

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Load the step that `checkpoint_id` names, if one is given."""
        if checkpoint_id is not None:
            self._step = step_of(checkpoint_id)

    def steps(self) -> tuple[int, ...]:
        """Return the committed steps, newest commit first."""
        return tuple(record.step for record in self._commits())

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:  # noqa: ANN401 - torch's interface
        """Find the commit and read its manifests; raise `CheckpointError` if there is none."""
        del args, kwargs
        skipped: list[str] = []
        for record in self._commits():
            if self._step not in {None, record.step}:
                continue
            try:
                self._found = read_parts(self._opened(), record)
            except CorruptCheckpoint as error:
                skipped.append(f"Commit {record.seq} was passed over: {error.cause}")
                continue
            self.skipped = tuple(skipped)
            return self._found.metadata
        raise _nothing_there(self._uri, self._step, skipped)

    def set_up_storage_reader(
        self,
        metadata: Metadata,
        is_coordinator: bool,  # noqa: FBT001 - torch's interface
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Need nothing more than `read_metadata` has found."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Note which commit this rank has found."""
        return replace(plan, storage_data=self._commit().record.manifest)

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """As coordinator: raise `CheckpointError` if the ranks have found different commits."""
        if len({plan.storage_data for plan in plans}) > 1:
            raise _different_commits()
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read what the plan wants; tensors change only when every chunk has verified."""
        found = self._commit()
        tensors = [item for item in plan.items if item.type is LoadItemType.TENSOR]
        targets = [planner.resolve_tensor(item).detach() for item in tensors]
        wishes = [
            _wish(found.places[item.storage_index], item, target)
            for item, target in zip(tensors, targets, strict=True)
        ]
        read_boxes(self._opened(), wishes)
        for item, target in zip(tensors, targets, strict=True):
            planner.commit_tensor(item, target)
        for item in plan.items:
            if item.type is LoadItemType.BYTE_IO:
                planner.load_bytes(item, _as_bytes(found.objects[item.storage_index.fqn]))
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Say whether a step can be read from it."""
        return _step_in(checkpoint_id) is not None

    def _commits(self) -> Sequence[CommitRecord]:
        return open_log(self._opened(), job_id=self._job_id).history().commits

    def _opened(self) -> Storage:
        self._storage = self._storage or open_storage(self._uri)
        return self._storage

    def _commit(self) -> Found:
        assert self._found is not None, "used before read_metadata"
        return self._found


def default_job() -> str:
    """Return the job under which saves are kept: apart from the commits of a Session."""
    job_id = read_environment().job_id
    return _JOB if job_id is None else f"{job_id}-{_JOB}"


def step_of(checkpoint_id: str | os.PathLike[str]) -> int:
    """Return the number at the end of `checkpoint_id`; raise `CheckpointError` if there is none."""
    found = _step_in(checkpoint_id)
    if found is None:
        raise CheckpointError(
            "dcp-no-step",
            cause=f"The checkpoint_id {str(checkpoint_id)!r} does not end in a number.",
            remedy="Name the step, as in checkpoint_id='step-100', or leave it out.",
        )
    return found


def _step_in(checkpoint_id: str | os.PathLike[str]) -> int | None:
    digits = re.search(r"[0-9]+$", str(checkpoint_id))
    return None if digits is None else int(digits[0])


def _size(item: Any) -> int:  # noqa: ANN401 - a WriteItem
    return 0 if item.type is WriteItemType.BYTE_IO else item.tensor_storage_size() or 0


def _wish(place: Place, item: ReadItem, target: torch.Tensor) -> Wish:
    return Wish(place.entry, place.chunks, tuple(item.storage_offsets), target)


def _as_bytes(value: object) -> io.BytesIO:
    # The planner's interface wants bytes that torch.load reads: made here, never stored.
    found = io.BytesIO()
    torch.save(value, found)
    found.seek(0)
    return found


def _nothing_there(uri: str, step: int | None, skipped: Sequence[str]) -> CheckpointError:
    which = "commit" if step is None else f"commit of step {step}"
    return CheckpointError(
        "dcp-no-commit",
        cause=" ".join([f"{uri} holds no {which} that can be loaded.", *skipped]),
        remedy="Check the URI and the step: LowtideReader(uri).steps() lists what was committed.",
    )


def _different_commits() -> CheckpointError:
    return CheckpointError(
        "dcp-different-commits",
        cause="The ranks have found different commits: one was added, or seen, meanwhile.",
        remedy="Name the step to load: LowtideReader(uri, step=...).",
    )


def _without_collectives() -> CheckpointError:
    return CheckpointError(
        "dcp-no-collectives",
        cause="use_collectives=False leaves nobody who could commit for all ranks.",
        remedy="Save with collectives.",
    )


__all__: Final[Sequence[str]] = ["LowtideReader", "LowtideWriter", "default_job", "step_of"]
