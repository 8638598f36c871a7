"""An attempt's whole life on a store: each single operation goes wrong once, in every way.

The life: probe, claim, read the log, restore, save twice, sweep. Afterwards its successor restores
a whole, verified state that is at least as new as what was acknowledged, and goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpointing.archive import Archive, open_archive
from checkpointing.depot import Depot
from checkpointing.errors import CheckpointError
from checkpointing.file_storage import FileStorage
from checkpointing.gang import Solo
from checkpointing.identity import Identity
from checkpointing.memory_storage import MemoryStorage
from checkpointing.restore import RestorePoint, load_commit, state_fields
from checkpointing.resume import resume
from checkpointing.retention import Retention
from checkpointing.retirement import Retirement
from checkpointing.staging import Arena
from checkpointing.state_tree import flatten
from checkpointing.storage import Storage
from tests.faulty_storage import DEADLY, Died, FaultyStorage, Harm, Operation
from tests.fragile_disk import FragileDisk, Loss, watched

RETENTION = Retention(last=2)
NO_GRACE_US = -1


def state(step: int) -> dict[str, Any]:
    """Several chunks' worth of state that says of which step it is; one of them never changes."""
    moving = {name: torch.full((100,), float(step)) for name in "abc"}
    return {"frozen": torch.arange(100), **moving, "step": step}


@dataclass(slots=True)
class Life:
    """What one attempt heard; filled in as it goes, so that it outlives a death."""

    restored: int = 0
    """Step that it started from."""
    acknowledged: int = 0
    """Newest step that it knew to be committed."""
    skipped: tuple[str, ...] = ()
    error: CheckpointError | None = None
    """Why it could not start."""


def live(storage: Storage, life: Life, *, epoch: int, steps: Sequence[int]) -> None:
    """Be attempt number `epoch`: restore, save the state of each of `steps`, sweep."""
    try:
        archive = open_archive(storage, Identity("j", f"attempt-{epoch}", epoch, session=epoch))
        found = resume(archive, gang=Solo(), tell=lambda _: None)
    except CheckpointError as error:
        life.error = error
        return
    life.skipped = found.skipped
    depot = Depot(archive, retention=RETENTION)
    if found.point is not None:
        life.restored = life.acknowledged = checked(found.point)
        depot.adopt(found.point.record.manifest, chunks=found.point.own.chunks)
    for step in steps:
        with suppress(CheckpointError):  # training goes on and saves again
            depot.publish(Arena().take(flatten(state(step)), step=step, at_us=0))
            life.acknowledged = step
    with suppress(CheckpointError):
        sweep(archive)


def sweep(archive: Archive) -> None:
    """Delete at once what retention gives up."""
    Retirement(archive, policy=RETENTION, grace_us=NO_GRACE_US, orphan_us=NO_GRACE_US).sweep()


def checked(point: RestorePoint) -> int:
    """The step of a restore point, after checking that its state is that step's, whole."""
    fields = state_fields(point.shared)
    wanted = state(point.record.step)
    assert fields.keys() == wanted.keys()
    assert fields["step"] == point.record.step
    assert all(torch.equal(fields[name], wanted[name]) for name in ("frozen", "a", "b", "c"))  # type: ignore[arg-type]
    return point.record.step


def check_aftermath(storage: Storage, before: Life, *, epoch: int) -> None:
    """Be the successor: nothing acknowledged is lost, and all that is kept can be loaded."""
    after = Life()
    live(storage, after, epoch=epoch, steps=[50])
    assert after.error is None
    assert after.restored >= max(before.acknowledged, 20)
    assert after.acknowledged == 50
    assert after.skipped == ()
    archive = open_archive(storage, Identity("j", "last", epoch + 1, session=1))
    assert archive.conditional
    commits = archive.log.history().commits
    assert [checked(load_commit(storage, record)) for record in commits[: RETENTION.last]] == [
        50,
        after.restored,
    ]


@pytest.fixture(scope="module")
def base() -> MemoryStorage:
    """A store that holds the commits of steps 10 and 20; for copying."""
    storage, life = MemoryStorage(), Life()
    live(storage, life, epoch=1, steps=[10, 20])
    assert life.acknowledged == 20
    return storage


def copy_of(base: MemoryStorage) -> MemoryStorage:
    """Another store like it."""
    fresh = MemoryStorage()
    fresh._objects = dict(base._objects)
    return fresh


def whole_life(base: MemoryStorage) -> list[Operation]:
    """What the second attempt asks of a store if all goes well."""
    storage = FaultyStorage(copy_of(base))
    live(storage, Life(), epoch=2, steps=[30, 40])
    return storage.operations


@contextmanager
def dying(harm: Harm) -> Iterator[None]:
    """Expect a death exactly where one is due."""
    if harm in DEADLY:
        with pytest.raises(Died):
            yield
    else:
        yield


@pytest.mark.parametrize("harm", list(Harm))
def test_harm_at_any_operation_costs_nothing(base: MemoryStorage, harm: Harm) -> None:
    """Whatever happens to whichever operation, the successor restores and goes on."""
    operations = whole_life(base)
    kinds = {operation.name for operation in operations}
    assert kinds >= {"put", "put_if_absent", "get", "list", "delete"}
    for operation in operations:
        storage = FaultyStorage(copy_of(base), at=operation.number, harm=harm)
        life = Life()
        with dying(harm):
            live(storage, life, epoch=2, steps=[30, 40])
        check_aftermath(storage.inner, life, epoch=3)


@pytest.mark.parametrize("harm", [Harm.RETRIED, Harm.DOUBLED])
def test_what_a_client_repeats_is_no_failure(base: MemoryStorage, harm: Harm) -> None:
    """Every operation may take effect twice: all saves succeed as if nothing had happened."""
    for operation in whole_life(base):
        storage = FaultyStorage(copy_of(base), at=operation.number, harm=harm)
        life = Life()
        live(storage, life, epoch=2, steps=[30, 40])
        assert (life.error, life.acknowledged) == (None, 40), operation


@pytest.mark.parametrize("harm", [Harm.RETRIED, Harm.DOUBLED])
def test_a_repeated_probe_does_not_weaken_the_store(base: MemoryStorage, harm: Harm) -> None:
    """A conditional write that its client repeated looks like a refusal and is none."""
    whole = FaultyStorage(copy_of(base))
    open_archive(whole, Identity("j", "probe", 2, session=1))
    for operation in whole.operations:
        storage = FaultyStorage(copy_of(base), at=operation.number, harm=harm)
        assert open_archive(storage, Identity("j", "probe", 2, session=1)).conditional, operation


@pytest.mark.parametrize("loss", [Loss.NOTHING, Loss.TORN, Loss.NAMES])
def test_a_crash_at_any_file_operation_costs_nothing(tmp_path: Path, loss: Loss) -> None:
    """The same at every single file operation, with a loss of power on top."""
    live(FileStorage(tmp_path / "base"), Life(), epoch=1, steps=[10, 20])
    for at in count():
        root = tmp_path / str(at)
        shutil.copytree(tmp_path / "base", root)
        life = Life()
        with watched(FragileDisk(root, at=at)) as disk, suppress(Died):
            live(FileStorage(root), life, epoch=2, steps=[30])
        disk.lose(loss)
        with watched(FragileDisk(root)):
            check_aftermath(FileStorage(root), life, epoch=3)
        shutil.rmtree(root)
        if len(disk.operations) < at:
            break
    assert at > 50
