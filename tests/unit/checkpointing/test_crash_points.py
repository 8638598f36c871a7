"""Die before, or right after, any single request of a save: the store always has a whole commit."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from typing_extensions import Buffer

from checkpointing.archive import Archive, open_archive
from checkpointing.memory_storage import MemoryStorage
from checkpointing.publish import Identity, Publisher
from checkpointing.restore import state_fields
from checkpointing.staging import Arena
from checkpointing.state_tree import flatten


class Died(BaseException):
    """The process is gone."""


class Mortal(MemoryStorage):
    """Lets its user die at the n-th write, before or after the write took effect."""

    def __init__(self, objects: dict[str, tuple[bytes, int]], *, at: int, after: bool) -> None:
        """Start from a copy of `objects`."""
        super().__init__()
        self._objects = dict(objects)
        self._counter = threading.Lock()
        self.left = at
        self.after = after

    def put(self, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
        """Store, or die."""
        last = self.count()
        if not last or self.after:
            super().put(key, data)
        if last:
            raise Died

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Store, or die."""
        last = self.count()
        done = super().put_if_absent(key, data) if not last or self.after else False
        if last:
            raise Died
        return done

    def count(self) -> bool:
        """Whether this is the fatal write; dead processes write nothing more."""
        with self._counter:
            self.left -= 1
            if self.left < -1:
                raise Died
            return self.left == -1


def state(step: int) -> dict[str, Any]:
    """Several chunks' worth of state that says of which step it is."""
    return {name: torch.full((100,), float(step)) for name in "abcd"} | {"step": step}


def archive(storage: MemoryStorage) -> Archive:
    """The job's archive, by a new session."""
    return open_archive(storage, Identity("j", "a", epoch=1, session=1))


def save(storage: MemoryStorage, step: int) -> None:
    """Publish the state of `step`."""
    at = archive_without_probe(storage)
    publisher = Publisher(storage, log=at.log, identity=at.identity)
    snapshot = Arena().take(flatten(state(step)), step=step, at_us=0)
    publisher.publish(snapshot)


def archive_without_probe(storage: MemoryStorage) -> Archive:
    """An archive whose opening writes nothing, so that the n-th write is one of the save."""
    found = archive(MemoryStorage())
    log = copy.copy(found.log)
    log._storage = storage
    return Archive(storage, log, found.identity, conditional=True)


def restored(storage: MemoryStorage) -> int:
    """The step of the newest commit, after checking that its state is that step's, whole."""
    at = archive(storage)
    commit = at.log.history().commits[0]
    fields = state_fields(at.load(commit).shared)
    wanted = state(commit.step)
    assert fields["step"] == commit.step
    assert all(torch.equal(fields[name], wanted[name]) for name in "abcd")  # type: ignore[arg-type]
    return commit.step


@pytest.mark.parametrize("after", [False, True])
def test_death_at_any_write_leaves_a_whole_commit(after: bool) -> None:
    """Old until the commit record is stored, new from then on, never a mixture."""
    base = MemoryStorage()
    save(base, 10)
    outcomes = []
    for at in range(100):
        storage = Mortal(base._objects, at=at, after=after)
        try:
            save(storage, 20)
        except Died:
            storage.left = 10**6  # somebody else comes to restore
            outcomes.append(restored(storage))
        else:
            break
    assert len(outcomes) == 6  # four chunks, the manifest, the record
    assert outcomes == [10] * 5 + [20 if after else 10]


def test_a_save_after_a_death_succeeds() -> None:
    """What a dead save left behind is in nobody's way."""
    storage = MemoryStorage()
    save(storage, 10)
    dying = Mortal(storage._objects, at=3, after=True)
    with pytest.raises(Died):
        save(dying, 20)
    dying.left = 10**6
    save(dying, 20)
    assert restored(dying) == 20
