"""Die, or lose power, at any file operation of the file store: old or new, never anything else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from checkpointing.errors import MissingObject
from checkpointing.file_storage import FileStorage
from tests.faulty_storage import Died
from tests.fragile_disk import FragileDisk, Loss, watched

OLD = b"old" * 100
NEW = b"new" * 10_000
KEY = "folder/of/key"
AT_MOST = 60  # operations of one call; more would be a loop

Act = Callable[[FileStorage], object]


def outcomes(
    tmp_path: Path, act: Act, *, loss: Loss, before: Act
) -> tuple[list[bytes | None], bytes | None]:
    """Let `act` die at each of its operations; return what is there then, and after all of it."""
    found: list[bytes | None] = []
    for at in range(AT_MOST):
        root = tmp_path / f"{loss}-{at}"
        before(FileStorage(root))
        with watched(FragileDisk(root, at=at)) as disk, suppress(Died):
            act(FileStorage(root))
        disk.lose(loss)
        found.append(held(FileStorage(root)))
        shutil.rmtree(root)
        if len(disk.operations) < at:
            return found[:-1], found[-1]
    raise AssertionError(found)


def held(storage: FileStorage) -> bytes | None:
    """What a reader finds; None for nothing. The name can be written afterwards."""
    try:
        found = storage.get(KEY)
    except MissingObject:
        assert not storage.exists(KEY)
        assert storage.list("") == ()
        found = None
    else:
        assert [item.key for item in storage.list("")] == [KEY]
    storage.put(KEY, b"next")
    assert storage.get(KEY) == b"next"
    return found


def nothing(_storage: FileStorage) -> None:
    """Begin with an empty folder."""


def old(storage: FileStorage) -> None:
    """Begin with an object of that name."""
    storage.put(KEY, OLD)


@pytest.mark.parametrize("loss", list(Loss))
def test_a_first_put_is_whole_or_absent(tmp_path: Path, loss: Loss) -> None:
    """And once it has returned, it is there whatever happens."""
    on_the_way, after = outcomes(
        tmp_path, lambda storage: storage.put(KEY, NEW), loss=loss, before=nothing
    )
    assert set(on_the_way) <= {None, NEW}
    assert None in on_the_way
    assert after == NEW


@pytest.mark.parametrize("loss", list(Loss))
def test_a_replacing_put_is_old_or_new(tmp_path: Path, loss: Loss) -> None:
    """A reader never sees a part, and never nothing."""
    on_the_way, after = outcomes(
        tmp_path, lambda storage: storage.put(KEY, NEW), loss=loss, before=old
    )
    assert set(on_the_way) <= {OLD, NEW}
    assert OLD in on_the_way
    assert after == NEW


@pytest.mark.parametrize("loss", list(Loss))
def test_a_conditional_put_is_whole_or_absent(tmp_path: Path, loss: Loss) -> None:
    """A commit record is never half there."""
    on_the_way, after = outcomes(
        tmp_path, lambda storage: storage.put_if_absent(KEY, NEW), loss=loss, before=nothing
    )
    assert set(on_the_way) <= {None, NEW}
    assert after == NEW


@pytest.mark.parametrize("loss", list(Loss))
def test_a_refused_put_changes_nothing(tmp_path: Path, loss: Loss) -> None:
    """Whoever comes second leaves what is there alone, however it ends."""
    on_the_way, after = outcomes(
        tmp_path, lambda storage: storage.put_if_absent(KEY, NEW), loss=loss, before=old
    )
    assert {*on_the_way, after} == {OLD}


@pytest.mark.parametrize("loss", list(Loss))
def test_a_delete_is_done_or_not(tmp_path: Path, loss: Loss) -> None:
    """A deleted object may come back after a loss of power: it is garbage, and goes again."""
    on_the_way, after = outcomes(
        tmp_path, lambda storage: storage.delete(KEY), loss=loss, before=old
    )
    assert set(on_the_way) <= {OLD, None}
    assert after in ({OLD, None} if loss is Loss.NAMES else {None})


def test_every_operation_was_a_case(tmp_path: Path) -> None:
    """A put makes folders, writes, syncs, renames, syncs: the matrix has seen each of them."""
    with watched(FragileDisk(tmp_path)) as disk:
        FileStorage(tmp_path).put(KEY, NEW)
        FileStorage(tmp_path).put_if_absent("other", NEW)
    kinds = {line.partition(" ")[0] for line in disk.operations}
    assert kinds == {"os.mkdir", "open", "fsync", "os.rename", "os.link", "os.remove"}
