"""Looking at checkpoints from outside: lists, verification, comparison, and files for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from checkpointing.archive import open_log
from checkpointing.catalog import Catalog, Checkpoint, jobs_under, open_catalog
from checkpointing.catalog_check import compare, verify
from checkpointing.catalog_export import export, runs
from checkpointing.catalog_tree import leaves, named_tensors, shown
from checkpointing.commit import COMMIT, CommitRecord
from checkpointing.errors import CheckpointError, CorruptCheckpoint
from checkpointing.hashing import blake3_hex
from checkpointing.identity import Identity
from checkpointing.keys import chunk_key
from checkpointing.manifest import ChunkRef, Manifest, Part, Shard, TensorEntry
from checkpointing.memory_storage import MemoryStorage
from checkpointing.publish import Publisher
from checkpointing.retention import Retention
from checkpointing.snapshot import Snapshot
from checkpointing.staging import Arena
from checkpointing.state_tree import flatten

TIED = torch.arange(6, dtype=torch.float32).reshape(2, 3)


def state(step: int) -> dict[str, Any]:
    """A state with all that is awkward: ties, odd dtypes, empty and scalar tensors, dots."""
    return {
        "shared": {
            "model": {
                "a.weight": TIED,
                "tied": TIED,
                "half": torch.full((3,), 1.5, dtype=torch.bfloat16),
                "wide": torch.full((2,), 2 + 1j, dtype=torch.complex128),
                "empty": torch.empty((0, 4)),
                "scalar": torch.tensor(step),
                "a": {"weight": torch.zeros(2)},
            },
            "optimizer": {"state": {0: {"exp": torch.full((4,), float(step))}}, "lr": 0.5},
        },
        "own": {"rng": {"numpy": np.arange(5, dtype=np.uint32)}, "note": ("x", step)},
    }


def save(storage: MemoryStorage, step: int, found: object = None, *, job: str = "j") -> None:
    """Commit a state as a session of its own."""
    snapshot = Arena().take(flatten(found or state(step)), step=step, at_us=0)
    publish(storage, snapshot, job=job)


def publish(storage: MemoryStorage, snapshot: Snapshot, *, job: str = "j") -> None:
    """Commit a snapshot."""
    log = open_log(storage, job_id=job)
    Publisher(storage, log=log, identity=Identity(job, "a", 1, 1)).publish(snapshot)


@pytest.fixture
def storage() -> MemoryStorage:
    """A job with the steps 10, 20 and 30."""
    made = MemoryStorage()
    for step in (10, 20, 30):
        save(made, step)
    return made


def read(storage: MemoryStorage, wanted: str = "newest") -> Checkpoint:
    """A checkpoint of the only job."""
    catalog = open_catalog(storage, job_id=None)
    return catalog.read(catalog.find(wanted))


def spoil(storage: MemoryStorage, wanted: str) -> str:
    """Flip a bit in a chunk that only this checkpoint has; return the chunk's name."""
    others = {
        name
        for step in (10, 20, 30)
        if f"step={step}" != wanted
        for name in read(storage, f"step={step}").chunks
    }
    name = next(name for name in read(storage, wanted).chunks if name not in others)
    data = bytearray(storage.get(chunk_key(name)))
    data[-1] ^= 1
    storage.put(chunk_key(name), data)
    return name


def test_lines_tell_what_a_policy_would_do(storage: MemoryStorage) -> None:
    """Newest first, what is new in each, what would be retired."""
    lines = open_catalog(storage, job_id="j").lines(Retention(last=2), now_us=0)
    assert [(line.record.step, line.state) for line in lines] == [
        (30, "newest"),
        (20, "kept"),
        (10, "would be retired"),
    ]
    assert lines[2].new_bytes == lines[2].checkpoint.length_bytes  # type: ignore[union-attr]
    assert 0 < lines[0].new_bytes < lines[2].new_bytes, "the random generator's chunk is shared"


def test_a_retired_commit_is_not_a_damaged_one(storage: MemoryStorage) -> None:
    """A missing manifest is a sweep's work, unless it is the newest."""
    catalog = open_catalog(storage, job_id="j")
    newest, middle, oldest = catalog.history.commits
    storage.delete(oldest.manifest)
    storage.put(middle.manifest, b"{}")
    states = [line.state for line in catalog.lines(Retention(), now_us=0)]
    assert states[0] == "newest"
    assert states[1].startswith("damaged: ")
    assert states[2] == "retired"
    storage.delete(newest.manifest)
    assert catalog.lines(Retention(), now_us=0)[0].state.startswith("damaged: ")


@pytest.mark.parametrize(("wanted", "step"), [("newest", 30), ("2", 20), ("step=10", 10)])
def test_a_commit_has_three_names(storage: MemoryStorage, wanted: str, step: int) -> None:
    """The newest, its number, its step."""
    assert Catalog(storage, job_id="j").find(wanted).step == step


def test_an_unknown_commit_or_job_is_named(storage: MemoryStorage) -> None:
    """The error says what there is."""
    with pytest.raises(CheckpointError, match="there are: 3, 2, 1"):
        Catalog(storage, job_id="j").find("step=11")
    with pytest.raises(CheckpointError, match="no job 'k'") as caught:
        open_catalog(storage, job_id="k")
    assert "--job: j" in caught.value.remedy
    save(storage, 5, job="a/b")
    assert jobs_under(storage) == ("a/b", "j")
    with pytest.raises(CheckpointError, match="2 jobs"):
        open_catalog(storage, job_id=None)
    with pytest.raises(CheckpointError, match="holds no checkpoints"):
        open_catalog(MemoryStorage(), job_id=None)


def test_the_tree_is_read_without_torch(storage: MemoryStorage) -> None:
    """Paths, ties and plain values, as people write them."""
    manifest = read(storage).manifests[0]
    names = {tensor.name: tensor.entry.dtype for tensor in named_tensors(manifest)}
    assert names["shared.model.tied"] == names["shared.model.a.weight"] == "torch.float32"
    assert names["own.rng.numpy"] == "numpy:<u4"
    plain = {leaf.name: shown(leaf.value) for leaf in leaves(manifest.tree) if leaf.tensor is None}
    assert plain["shared.optimizer.lr"] == "0.5"
    assert plain["own.note.0"] == "x"
    assert plain["own.note.1"] == "30"


def test_an_unknown_kind_of_value_does_not_hide_its_tensors() -> None:
    """A tag of the future is shown as it is, and what is inside it is found."""
    found = list(leaves({"dict": [["q", {"quantised": [{"tensor": 3}, 0.5]}], ["z", {"new": 1}]]}))
    assert [(leaf.name, leaf.tensor) for leaf in found] == [("q.quantised.0", 3), ("z", None)]


def test_verification_names_the_wrong_chunk(storage: MemoryStorage) -> None:
    """A flipped bit, a cut, a loss: each is found, with the steps that it breaks."""
    checkpoints = [read(storage, f"step={step}") for step in (10, 20, 30)]
    counted: list[int] = []
    assert verify(storage, checkpoints, tell=counted.append) == ()
    assert sum(counted) == sum(len(storage.get(item.key)) for item in storage.list("chunks/"))
    name = spoil(storage, "step=20")
    (wrong,) = verify(storage, checkpoints)
    assert (wrong.name, wrong.steps, wrong.why) == (name, (20,), "its bytes have changed")
    storage.put(chunk_key(name), b"short")
    assert "5 bytes instead of" in verify(storage, checkpoints)[0].why
    storage.delete(chunk_key(name))
    assert verify(storage, checkpoints)[0].why == "it is not there"


def test_a_comparison_is_by_bytes(storage: MemoryStorage) -> None:
    """A neighbour in the same chunk changed: what did not is equal all the same."""
    found = compare(storage, read(storage, "step=10"), read(storage))
    assert found.changed == ("shared.model.scalar", "shared.optimizer.state.0.exp")
    assert (found.added, found.removed, found.reshaped) == ((), (), ())
    assert found.equal == 7
    assert found.shared_bytes > 0
    changed = state(30)
    changed["shared"]["model"]["new"] = changed["shared"]["model"].pop("half")
    changed["shared"]["model"]["empty"] = torch.empty((4, 0))
    save(storage, 40, changed)
    found = compare(storage, read(storage, "step=30"), read(storage))
    assert (found.added, found.removed) == (("shared.model.new",), ("shared.model.half",))
    assert found.changed == found.reshaped == ("shared.model.empty",)


def test_large_tensors_are_compared_without_reading_them() -> None:
    """Chunks of its own: another hash is another tensor, and nothing is fetched."""
    reads = []

    class Counting(MemoryStorage):
        def get_range(self, key: str, start: int, length: int) -> bytes:
            reads.append(key)
            return super().get_range(key, start, length)

    storage = Counting()
    for step in (1, 2):
        save(storage, step, {"big": torch.full((5 << 20,), float(step))})
    found = compare(storage, read(storage, "step=1"), read(storage))
    assert found.changed == ("big",)
    assert not reads


# ------------------------------------------------------------------ restore-to


def test_plain_tools_read_what_was_exported(storage: MemoryStorage, tmp_path: Path) -> None:
    """Safetensors loads each file; tied names, bfloat16, empty and scalar tensors are there."""
    counted: list[int] = []
    files = export(storage, read(storage), tmp_path / "out", tell=counted.append)
    assert set(files) == {
        "model.safetensors",
        "optimizer.safetensors",
        "rank-0.safetensors",
        "tree.json",
    }
    assert sum(counted) == read(storage).length_bytes
    model = load_file(tmp_path / "out" / "model.safetensors")
    wanted = state(30)["shared"]["model"]
    for name in ("a.weight", "tied", "half", "empty", "scalar"):
        assert model[name].dtype == wanted[name].dtype
        assert torch.equal(model[name], wanted[name])
    assert torch.equal(model["a.weight#2"], wanted["a"]["weight"]), "another path, the same text"
    assert torch.equal(model["wide"].view(torch.complex128), wanted["wide"])
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as opened:
        assert opened.metadata()["wide"] == "torch.complex128 [2]"
    assert load_file(tmp_path / "out" / "rank-0.safetensors")["rng.numpy"].tolist() == [*range(5)]
    tree = json.loads((tmp_path / "out" / "tree.json").read_text())
    assert (tree["job"], tree["step"]) == ("j", 30)
    assert '{"file": "model.safetensors", "name": "tied"}' not in json.dumps(tree), "one object"
    assert '{"file": "model.safetensors", "name": "a.weight"}' in json.dumps(tree)


def test_shards_are_put_together(tmp_path: Path) -> None:
    """Columns, rows and inner boxes of a tensor, from several manifests, are one tensor again."""
    whole = torch.arange(4 * 6 * 5).reshape(4, 6, 5)
    flat = whole.flatten()
    for box, offsets in [
        ((4, 6, 5), (0, 0, 0)),
        ((2, 6, 5), (2, 0, 0)),
        ((4, 3, 5), (0, 3, 0)),
        ((4, 2, 3), (0, 4, 2)),
        ((0, 6, 5), (0, 0, 0)),
    ]:
        part = whole[tuple(slice(o, o + n) for o, n in zip(offsets, box, strict=True))]
        out = torch.full_like(flat, -1)
        for source, target, length in runs(whole.shape, offsets=offsets, box=box):
            out[target : target + length] = part.flatten()[source : source + length]
        assert torch.equal(out[out >= 0], flat[out >= 0])
        assert int((out >= 0).sum()) == part.numel()


def test_an_export_is_whole_or_not_there(storage: MemoryStorage, tmp_path: Path) -> None:
    """A wrong chunk, a folder in use: an error, and no trace of a try."""
    name = spoil(storage, "step=30")
    with pytest.raises(CorruptCheckpoint, match=name):
        export(storage, read(storage), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="not an empty folder"):
        export(storage, read(storage, "step=20"), tmp_path / "used")
    assert [path.name for path in tmp_path.rglob("*")] == ["used", "file"]
    (tmp_path / "empty").mkdir()
    assert export(storage, read(storage, "step=20"), tmp_path / "empty")
    with pytest.raises(CheckpointError, match="cannot be written") as caught:
        export(storage, read(storage, "step=20"), tmp_path / "used" / "file" / "out")
    assert caught.value.code == "restore-to-failed"


def test_a_sharded_tensor_is_exported_whole(tmp_path: Path) -> None:
    """Its boxes, from the manifests of both ranks, are one tensor of the model's file."""
    storage = MemoryStorage()
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    name = '["shared","model","w"]'
    told = {"name": name, "dtype": "torch.float32", "shape": [4, 6], "placements": [1]}
    manifests = []
    for rank in (0, 1):
        data = whole[:, 3 * rank : 3 * rank + 3].contiguous().numpy().tobytes()
        chunk = ChunkRef(blake3_hex(data), len(data), 0)
        storage.put(chunk_key(chunk.name), data)
        shard = Shard(name, (4, 6), (0, 3 * rank))
        entry = TensorEntry("torch.float32", (4, 3), (Part(0, 0, len(data)),), shard)
        tree = {"dict": [["shared", {"dict": [["model", {"dict": [["w", {"sharded": told}]]}]]}]]}
        mine = tree if rank == 0 else {"dict": []}
        manifests.append(Manifest("j", 1, 5, rank, 2, mine, (entry,), (chunk,)))
    found = Checkpoint(CommitRecord(COMMIT, 1, "a", 1, 0, 5), tuple(manifests))
    export(storage, found, tmp_path / "out")
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["w"], whole)
    assert '{"file": "model.safetensors", "name": "w"}' in json.dumps(
        json.loads((tmp_path / "out" / "tree.json").read_text())
    )
    assert [tensor.name for tensor in named_tensors(manifests[1])] == ["rank 1: shared.model.w"]
    assert compare(storage, found, found).equal == 2


def test_tensors_taken_apart_are_listed_by_their_parts() -> None:
    """A quantised tensor is its integers and scales, under its own name."""
    parts = [["integers", {"tensor": 0}], ["scales", {"tensor": 1}]]
    tree = {"composite": {"kind": "quantised", "parts": parts, "settings": {"dict": [["axis", 0]]}}}
    found = [(leaf.name, leaf.tensor) for leaf in leaves({"dict": [["q", tree]]})]
    assert found == [("q.integers", 0), ("q.scales", 1), ("q.quantised.axis", None)]
