"""Provenance: a manifest says where its state comes from, and chunks do not depend on it."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest
import torch

from checkpointing.documents import read_document
from checkpointing.file_storage import FileStorage
from checkpointing.hashing import blake3_hex
from checkpointing.manifest import Manifest
from checkpointing.provenance import collect, position
from checkpointing.state_tree import flatten
from tests.unit.checkpointing.training import train


def manifests(folder: Path) -> list[Manifest]:
    """All manifests of a training, oldest first."""
    storage = FileStorage(folder)
    found = storage.list("jobs/local/manifests/")
    names = [(item.key, item.key[-69:-5]) for item in found]
    return [read_document(storage, key, blake3=blake3) for key, blake3 in names]


def test_code_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash of the script unless another is told; versions; no path and no host name."""
    script = tmp_path / "train.py"
    script.write_text("print()")
    found = collect(world_size=4, script=script)
    assert found["code"] == f"blake3:{blake3_hex(b'print()')}"
    assert found["script"] == "train.py"
    assert found["world_size"] == "4"
    assert found["torch"].startswith(torch.__version__.partition("+")[0])
    everything = " ".join(found.values())
    assert platform.node() not in everything.split()
    assert str(tmp_path) not in everything
    monkeypatch.setenv("LOWTIDE_CODE_HASH", "git:abc")
    assert collect(world_size=1, script=tmp_path / "gone.py")["code"] == "git:abc"


def test_a_script_that_cannot_be_read_has_no_hash(tmp_path: Path) -> None:
    """What is not known is not there; nothing is made up."""
    assert "code" not in collect(world_size=1, script=tmp_path / "gone.py")


def test_the_position_is_short() -> None:
    """Numbers and texts of the loader's state; a tensor or a long text is no position."""
    loader = {"epoch": 3, "batch": 17, "order": torch.arange(9), "note": "x" * 200}
    tree = flatten({"own": {"loader": loader}}).tree
    assert position(tree) == {"data": "epoch=3 batch=17"}
    assert position(flatten({"own": {}}).tree) == {}
    assert position(flatten([1, 2]).tree) == {}


def test_each_manifest_of_a_training_tells_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data position of its step, and the restore point that the session began with."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    train(tmp_path, steps=3)
    train(tmp_path, steps=7)
    first, second = manifests(tmp_path)
    assert "parent" not in first.provenance
    assert first.provenance["data"].startswith("epoch=0 batch=3 ")
    assert second.provenance["parent"].startswith("jobs/local/manifests/000000000003-")
    assert second.provenance["data"].startswith("epoch=1 batch=2 ")
    assert second.provenance["code"].startswith("blake3:")


def test_equal_states_have_equal_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other code, same state: the second training sends nothing new."""
    train(tmp_path / "one", steps=3)
    monkeypatch.setenv("LOWTIDE_CODE_HASH", "another")
    train(tmp_path / "two", steps=3)
    one, two = manifests(tmp_path / "one")[0], manifests(tmp_path / "two")[0]
    assert one.provenance != two.provenance
    assert one.chunks == two.chunks
