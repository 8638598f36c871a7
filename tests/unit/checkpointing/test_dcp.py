"""torch.distributed.checkpoint on our store: verified, committed, and resharded by its planner."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict
from typing_extensions import Buffer

from checkpointing.errors import StorageError
from checkpointing.file_storage import FileStorage
from checkpointing.integrations.dcp import LowtideReader, LowtideWriter
from tests.unit.checkpointing.dcp_ranks import run_rank

pytestmark = [
    pytest.mark.timeout(200),
    pytest.mark.filterwarnings("ignore:torch.distributed is"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]


def a_state(seed: int) -> dict[str, Any]:
    """A model, its optimizer, and things that are no tensors."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(6, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 6)).sum().backward()
    optimizer.step()
    large = torch.randn(40, 2**18)  # two chunks of its own
    other = {"bf16": torch.randn(3).bfloat16(), "t": large[:3].t(), "lists": [1, (2.5, "x")]}
    return {"model": model.state_dict(), "optim": optimizer.state_dict(), "large": large, **other}


def loaded(uri: Path, **reader: Any) -> dict[str, Any]:
    """A state made from another seed, after loading."""
    state = a_state(99)
    dcp.load(state, storage_reader=LowtideReader(str(uri), **reader))
    return state


def assert_same(one: Any, other: Any) -> None:
    """Equal structure, types and bytes."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for mine, found in zip(one, other, strict=True):
            assert_same(mine, found)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    else:
        assert one == other


def test_a_state_survives(tmp_path: Path) -> None:
    """Tensors of every kind and plain values come back; steps count up; no pickle is stored."""
    writer = LowtideWriter(str(tmp_path))
    dcp.save(a_state(1), storage_writer=writer)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    dcp.save(a_state(1), storage_writer=writer)
    after = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert not [path for path in after if "chunks" in path.parts]  # nothing changed: nothing sent
    dcp.save(a_state(2), checkpoint_id="step-70", storage_writer=writer)
    assert LowtideReader(str(tmp_path)).steps() == (70, 2, 1)
    assert_same(loaded(tmp_path), a_state(2))
    assert_same(loaded(tmp_path, step=1), a_state(1))
    pickled = [path for path in before | after if b"torch._utils" in path.read_bytes()]
    assert not pickled


def test_a_state_can_be_rebuilt_from_the_checkpoint_alone(tmp_path: Path) -> None:
    """The commit says how names map to paths: nobody needs the model to look inside."""
    dcp.save(a_state(1), storage_writer=LowtideWriter(str(tmp_path)))
    state: dict[str, Any] = {}
    reader = LowtideReader(str(tmp_path))
    _load_state_dict(state, reader, no_dist=True, planner=_EmptyStateDictLoadPlanner())
    assert_same(state["model"], dict(a_state(1)["model"]))


def test_an_asynchronous_save_is_a_save(tmp_path: Path) -> None:
    """`async_save` stages first: what changes meanwhile is not in the commit."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    try:
        state = a_state(1)
        future = dcp.async_save(state, storage_writer=LowtideWriter(str(tmp_path / "store")))
        state["large"].zero_()
        future.result()  # type: ignore[union-attr]
        assert_same(loaded(tmp_path / "store"), a_state(1))
    finally:
        torch.distributed.destroy_process_group()


def test_a_save_that_dies_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever write fails, the newest commit is a whole one, the old or the new."""
    dcp.save(a_state(1), storage_writer=LowtideWriter(str(tmp_path)))
    put, put_if_absent = FileStorage.put, FileStorage.put_if_absent
    left = [0]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StorageError("storage-failed", cause="The disk is on fire.", remedy="Water.")

    def failing(self: FileStorage, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
        check()
        put(self, key, data, crc32c=crc32c)

    def failing_if_absent(self: FileStorage, key: str, data: Buffer) -> bool:
        check()
        return put_if_absent(self, key, data)

    monkeypatch.setattr(FileStorage, "put", failing)
    monkeypatch.setattr(FileStorage, "put_if_absent", failing_if_absent)
    died = 0
    for count in range(40):
        left[0] = count
        try:
            dcp.save(a_state(2), storage_writer=LowtideWriter(str(tmp_path)))
            break
        except (CheckpointException, StorageError):
            died += 1
            assert_same(loaded(tmp_path), a_state(1))
    assert died >= 6
    assert_same(loaded(tmp_path), a_state(2))


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    """Nothing is loaded from a damaged chunk, nothing is changed, and the step before is there."""
    writer = LowtideWriter(str(tmp_path))
    dcp.save(a_state(1), storage_writer=writer)
    before = set(tmp_path.rglob("chunks/*/*"))
    dcp.save(a_state(2), storage_writer=writer)
    for path in set(tmp_path.rglob("chunks/*/*")) - before:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        state = a_state(99)
        with pytest.raises((CheckpointException, ValueError), match="does not verify"):
            dcp.load(state, storage_reader=LowtideReader(str(tmp_path)))
        assert_same(state, a_state(99))
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert_same(loaded(tmp_path, step=1), a_state(1))


def test_a_damaged_manifest_is_passed_over(tmp_path: Path) -> None:
    """The commit before is loaded, and the reader says why."""
    writer = LowtideWriter(str(tmp_path))
    dcp.save(a_state(1), storage_writer=writer)
    dcp.save(a_state(2), storage_writer=writer)
    newest = max(tmp_path.rglob("manifests/*.json"))
    newest.write_bytes(newest.read_bytes()[:-1])
    reader = LowtideReader(str(tmp_path))
    state = a_state(99)
    dcp.load(state, storage_reader=reader)
    assert_same(state, a_state(1))
    assert len(reader.skipped) == 1


def test_a_writer_that_was_overtaken_cannot_commit(tmp_path: Path) -> None:
    """Of two writers the one that began later is in the right."""
    old, new = LowtideWriter(str(tmp_path)), LowtideWriter(str(tmp_path))
    dcp.save(a_state(1), storage_writer=old)
    dcp.save(a_state(2), storage_writer=new)
    with pytest.raises((CheckpointException, ValueError), match="has taken over"):
        dcp.save(a_state(3), storage_writer=old)
    assert_same(loaded(tmp_path), a_state(2))


def test_what_cannot_be_kept_is_named(tmp_path: Path) -> None:
    """DCP would pickle it; here the name and the type are in the message."""
    with pytest.raises((CheckpointException, ValueError), match=r"odd.*builtins.set"):
        dcp.save({"odd": {1, 2}}, storage_writer=LowtideWriter(str(tmp_path)))


@pytest.mark.integration
@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2)])
def test_another_number_of_ranks_loads(tmp_path: Path, before: int, after: int) -> None:
    """Sharded by rows, by columns and replicated, over real gloo ranks."""
    for world, saving in ((before, True), (after, False)):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.unit.checkpointing.dcp_ranks"])
        meeting = tmp_path / f"meeting-{saving}"
        ranks = [
            context.Process(
                target=run_rank, args=(rank, world, str(tmp_path), str(meeting), saving)
            )
            for rank in range(world)
        ]
        try:
            for process in ranks:
                process.start()
            for process in ranks:
                process.join(90)
        finally:
            for process in ranks:
                process.kill()
        said = [(tmp_path / f"rank-{rank}.txt").read_text() for rank in range(world)]
        assert said == ["well"] * world
