"""Damage each object of the newest commit, in every way: the previous one is used, and it is said.

On files and on a real S3 server; a training of one rank, and the parts of a second one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import torch

from checkpointing.archive import open_archive
from checkpointing.depot import Depot
from checkpointing.gang import Solo
from checkpointing.identity import Identity
from checkpointing.restore import load_commit, state_fields
from checkpointing.resume import Resumed, resume
from checkpointing.retention import Retention
from checkpointing.staging import Arena
from checkpointing.state_tree import flatten
from checkpointing.storage import Storage, open_storage
from tests.s3_server import S3Server, s3_server
from tests.unit.checkpointing.training import Trainee

__all__ = ["s3_server"]

OLD, NEW, END = 20, 30, 34


class Damage(StrEnum):
    """What befalls an object."""

    FLIPPED = "flipped"
    """One bit is different."""
    CUT = "cut"
    HALVED = "halved"
    EMPTY = "empty"
    GONE = "gone"
    OTHER = "other"
    """It is another valid object of its kind."""


def damaged(data: bytes, damage: Damage, *, other: bytes) -> bytes | None:
    """What is there instead of `data`; None for nothing."""
    middle = len(data) // 2
    harmed: Mapping[Damage, bytes | None] = {
        Damage.FLIPPED: data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :],
        Damage.CUT: data[:-1],
        Damage.HALVED: data[:middle],
        Damage.EMPTY: b"",
        Damage.GONE: None,
        Damage.OTHER: other,
    }
    return harmed[damage]


@pytest.fixture(scope="module", params=["file", pytest.param("s3", marks=pytest.mark.integration)])
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A place of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOWTIDE_UPLOADER", "thread")  # no process to start for each of many cases
        if request.param == "file":
            yield str(tmp_path_factory.mktemp("store"))
            return
        server: S3Server = request.getfixturevalue("s3_server")
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield f"s3://{server.bucket}/damage"


def train(uri: str, *, steps: int) -> tuple[int, str]:
    """Train up to `steps`; return where it started from and the digest of its weights."""
    trainee = Trainee()
    with trainee.session(uri) as session:
        for _ in session.steps(steps):
            trainee.step()
    return session.restored_step, session.final_digest()


@cache
def expected(steps: int) -> str:
    """The digest of an uninterrupted training."""
    trainee = Trainee()
    for _ in range(steps):
        trainee.step()
    return trainee.session().final_digest()


def contents(storage: Storage) -> dict[str, bytes]:
    """All objects."""
    return {item.key: storage.get(item.key) for item in storage.list("")}


def put_back(storage: Storage, wanted: Mapping[str, bytes]) -> None:
    """Make the store hold exactly this again."""
    found = contents(storage)
    for key in found.keys() - wanted.keys():
        storage.delete(key)
    for key, data in wanted.items():
        if found.get(key) != data:
            storage.put(key, data)


def kind_of(key: str) -> str:
    """Chunks, manifests, commits."""
    return key.split("/", maxsplit=1)[0] if key.startswith("chunks/") else key.split("/")[2]


def looked_up(storage: Storage) -> Resumed:
    """What an attempt would find."""
    archive = open_archive(storage, Identity("local", "looks", epoch=1_000, session=1))
    return resume(archive, gang=Solo(), tell=lambda _: None)


Store = tuple[str, Storage, dict[str, bytes], dict[str, bytes]]


@pytest.fixture(scope="module")
def store(uri: str) -> Store:
    """A place with two commits: its URI, its storage, all of it, and what only the newest has."""
    train(uri, steps=OLD)
    storage = open_storage(uri)
    before = contents(storage)
    assert train(uri, steps=NEW)[0] == OLD
    whole = contents(storage)
    newest = {
        key: data
        for key, data in whole.items()
        if key not in before and b'"kind":"claim"' not in data
    }
    assert {kind_of(key) for key in newest} == {"chunks", "manifests", "commits"}
    return uri, storage, whole, newest


@pytest.mark.parametrize("damage", list(Damage))
def test_no_damaged_object_is_ever_used(store: Store, damage: Damage) -> None:
    """The older commit is restored, whole; the newer one is named; the end is byte-equal."""
    uri, storage, whole, newest = store
    for key, data in newest.items():
        other = next(o for k, o in whole.items() if kind_of(k) == kind_of(key) and o != data)
        harmed = damaged(data, damage, other=other)
        storage.delete(key) if harmed is None else storage.put(key, harmed)
        found = looked_up(storage)
        assert found.point is not None
        assert found.point.record.step == OLD, key
        if damage is not Damage.GONE or kind_of(key) != "commits":  # who knows what never was?
            assert len(found.skipped) == 1
            assert key in found.skipped[0]
        put_back(storage, {**whole, key: harmed} if harmed is not None else without(whole, key))
        assert train(uri, steps=END) == (OLD, expected(END)), key
        put_back(storage, whole)
    assert train(uri, steps=NEW) == (NEW, expected(NEW))
    put_back(storage, whole)


def without(whole: Mapping[str, bytes], key: str) -> dict[str, bytes]:
    """All but one."""
    return {name: data for name, data in whole.items() if name != key}


def test_with_every_commit_damaged_it_starts_over(store: Store) -> None:
    """Each is named, and the training runs from its first step to the same end."""
    uri, storage, whole, _ = store
    for key, data in whole.items():
        if kind_of(key) == "manifests":
            storage.put(key, data[:-1])
    found = looked_up(storage)
    assert found.point is None
    assert len(found.skipped) == 2
    put_back(storage, {k: d[:-1] if kind_of(k) == "manifests" else d for k, d in whole.items()})
    assert train(uri, steps=END) == (0, expected(END))
    put_back(storage, whole)


# ------------------------------------------------------------------ the parts of other ranks


WORLD: Final = 2


def rank_state(rank: int, step: int) -> dict[str, object]:
    """What a rank holds at a step."""
    return {"own": torch.full((300,), float(100 * rank + step)), "step": step}


def save_as_gang(storage: Storage, step: int, *, epoch: int) -> None:
    """Save one state of two ranks: the part first, then what commits it."""
    first = Identity("gang", "a", epoch, session=epoch, rank=0, world_size=WORLD)
    archive = open_archive(storage, first)
    archive.claim()
    for rank in (1, 0):
        mine = replace(archive, identity=replace(first, rank=rank))
        flat = flatten(rank_state(rank, step))
        Depot(mine, retention=Retention()).publish(Arena().take(flat, step=step, at_us=0))


def rank_finds(storage: Storage, rank: int, *, load: Callable[..., object]) -> int:
    """The step of the newest commit that a rank can load, after checking what is in it."""
    archive = open_archive(storage, Identity("gang", "b", 9, session=9, world_size=WORLD))
    for record in archive.log.history().commits:
        try:
            point = load_commit(storage, record, rank=rank, world_size=WORLD)
        except ValueError as error:
            load(str(error))
            continue
        fields = state_fields(point.own)
        assert torch.equal(fields["own"], rank_state(rank, record.step)["own"])  # type: ignore[arg-type]
        return record.step
    return 0


@pytest.mark.parametrize("damage", list(Damage))
def test_a_damaged_part_is_found_by_its_rank(tmp_path: Path, damage: Damage) -> None:
    """Rank 1 passes the commit over for its part, or for a chunk of it, and says which object."""
    storage = open_storage(str(tmp_path))
    save_as_gang(storage, 10, epoch=1)
    before = contents(storage)
    save_as_gang(storage, 20, epoch=2)
    whole = contents(storage)
    assert [rank_finds(storage, rank, load=str) for rank in range(WORLD)] == [20, 20]
    fresh = {k: d for k, d in whole.items() if k not in before and kind_of(k) != "commits"}
    assert {kind_of(key) for key in fresh} >= {"chunks", "manifests", "parts"}
    for key, data in fresh.items():
        if kind_of(key) not in {"chunks", "parts"}:
            continue
        other = next(d for k, d in before.items() if kind_of(k) == kind_of(key))
        harmed = damaged(data, damage, other=other)
        storage.delete(key) if harmed is None else storage.put(key, harmed)
        said: list[str] = []
        steps = [rank_finds(storage, rank, load=said.append) for rank in range(WORLD)]
        assert sorted(steps) == [10, 20] or steps == [10, 10], key
        assert said
        assert all(key in line for line in said)
        storage.put(key, data)
