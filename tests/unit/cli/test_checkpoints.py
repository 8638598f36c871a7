"""`lowtide checkpoints` on checkpoints in a folder, as an operator uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from safetensors.torch import load_file

from checkpointing.archive import open_log
from checkpointing.file_storage import FileStorage
from checkpointing.identity import Identity
from checkpointing.publish import Publisher
from checkpointing.staging import Arena
from checkpointing.state_tree import flatten
from scheduler.cli import checkpoints
from tests.unit.cli.conftest import Lowtide

NAMES = [name for name, *_ in checkpoints.COMMANDS]
ROOT = Path(__file__).resolve().parents[3]


def commit(folder: Path, step: int, *, job: str = "j", epoch: int = 1) -> None:
    """Commit a small state: one part changes with the step, one never does."""
    state = {
        "shared": {
            "model": {"w": torch.full((3,), float(step)), "steps": step},
            "frozen": {"w": torch.arange(1000)},
        }
    }
    storage = FileStorage(folder)
    log = open_log(storage, job_id=job)
    who = Identity(job, f"attempt-{epoch}", epoch, epoch)
    origin = {"code": "git:abc"}
    publisher = Publisher(storage, log=log, identity=who, provenance=origin)
    publisher.publish(Arena().take(flatten(state), step=step, at_us=0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three commits of one job."""
    made = tmp_path / "ck"
    for step in (10, 20, 30):
        commit(made, step)
    return made


def objects(folder: Path) -> list[Path]:
    """Every file that is an object."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", NAMES)
def test_every_command_documents_its_ends_and_has_json(lowtide: Lowtide, name: str) -> None:
    """As all others do."""
    outcome = lowtide("checkpoints", name, "--help")
    assert outcome.code == 0
    assert "Exit codes:" in outcome.out
    assert "--json" in outcome.out
    overview = lowtide("checkpoints").out
    assert f"\n  {name} " in overview
    assert "..." not in overview.partition("\n")[2]


def test_the_list_shows_every_commit(lowtide: Lowtide, folder: Path) -> None:
    """What is new in each, who wrote it, and what retention would do."""
    outcome = lowtide("checkpoints", "ls", str(folder), "--keep", "2")
    rows = [line for line in outcome.out.splitlines() if "attempt-1" in line]
    assert [row.split()[1] for row in rows] == ["30", "20", "10"]
    assert [row.rstrip().split("  ")[-1].strip() for row in rows] == [
        "newest",
        "kept",
        "would be retired",
    ]
    told = lowtide("checkpoints", "ls", str(folder), "--json").data
    assert told["job"] == "j"
    newest, middle, oldest = told["commits"]
    assert newest["new_bytes"] == middle["new_bytes"] < 1000 < oldest["new_bytes"]
    assert newest["bytes"] == oldest["bytes"] == oldest["new_bytes"]
    assert told["commits"][0]["signed_by"] is None


def test_several_jobs_are_listed_and_one_is_chosen(lowtide: Lowtide, folder: Path) -> None:
    """`ls` shows which there are; other commands ask for --job; ids may hold slashes."""
    commit(folder, 5, job="a/b")
    assert "2 jobs" in lowtide("checkpoints", "ls", str(folder)).out
    listed = lowtide("checkpoints", "ls", str(folder), "--json").data
    assert [one["job"] for one in listed] == ["a/b", "j"]
    refused = lowtide("checkpoints", "show", str(folder))
    assert refused.code == 2
    assert "fix: Name one with --job: a/b, j" in refused.err
    shown = lowtide("checkpoints", "show", str(folder), "--job", "a/b", "--json").data
    assert (shown["job"], shown["step"]) == ("a/b", 5)


def test_a_job_of_this_installation_is_found_by_its_id(
    lowtide: Lowtide, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its storage is the server's: the home folder's, or what the configuration names."""
    home = tmp_path / "home"
    home.mkdir()
    assert lowtide("checkpoints", "ls", "j").code == 2
    (home / "storage").symlink_to(folder)
    assert lowtide("checkpoints", "ls", "j", "--json").data["job"] == "j"
    assert "no job 'k'" in lowtide("checkpoints", "ls", "k").err


def test_show_tells_the_origin_and_every_value(lowtide: Lowtide, folder: Path) -> None:
    """Provenance, dtypes, shapes, sizes, plain values."""
    outcome = lowtide("checkpoints", "show", str(folder), "--commit", "step=20")
    assert "git:abc" in outcome.out
    assert "shared.frozen.w" in outcome.out
    assert "torch.int64" in outcome.out
    values = lowtide("checkpoints", "show", str(folder), "--json").data["values"]
    assert values[0] == {
        "rank": 0,
        "name": "shared.model.w",
        "dtype": "torch.float32",
        "shape": [3],
        "bytes": 12,
    }
    assert values[1] == {"rank": 0, "name": "shared.model.steps", "value": 30}


def test_verify_ends_with_1_for_a_wrong_byte(lowtide: Lowtide, folder: Path) -> None:
    """And names the chunk and the steps that it breaks."""
    assert lowtide("checkpoints", "verify", str(folder)).code == 0
    chunk = max((folder / "chunks").rglob("*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[0] ^= 1
    chunk.write_bytes(data)
    outcome = lowtide("checkpoints", "verify", str(folder))
    assert outcome.code == 1
    assert f"chunk {chunk.name}: its bytes have changed; it breaks step 10, 20, 30" in outcome.out
    told = lowtide("checkpoints", "verify", str(folder), "--commit", "newest", "--json")
    assert told.code == 1
    assert told.data["wrong_chunks"][0]["steps"] == [30]


def test_verify_tells_of_damaged_records_and_manifests(lowtide: Lowtide, folder: Path) -> None:
    """What cannot be read is no reason to stop, and none to be content."""
    next((folder / "jobs/j/manifests").glob("*020-*")).write_text("{}")
    (folder / "jobs/j/commits/000000000001.json").write_text("{}")
    outcome = lowtide("checkpoints", "verify", str(folder))
    assert outcome.code == 1
    assert "commit 2 (step 20)" in outcome.out
    assert "000000000001.json" in outcome.out
    assert "whole: step 30" in outcome.out
    assert "skipped: " in lowtide("checkpoints", "ls", str(folder)).out


def test_diff_names_what_changed(lowtide: Lowtide, folder: Path) -> None:
    """Tensors by name, bytes shared."""
    outcome = lowtide("checkpoints", "diff", str(folder), "step=10", "newest")
    assert "changed  shared.model.w" in outcome.out
    assert "tensors: 1 equal, 1 changed, 0 added, 0 removed" in outcome.out
    assert lowtide("checkpoints", "diff", str(folder), "1", "3", "--json").data["equal"] == 1


def test_gc_looks_first_and_asks(lowtide: Lowtide, folder: Path) -> None:
    """A dry run deletes nothing; without --yes nothing goes; then exactly what was announced."""
    before = objects(folder)
    args = ("checkpoints", "gc", str(folder), "--keep", "1", "--grace", "0s")
    dry = lowtide(*args, "--dry-run")
    assert "would delete 4 objects" in dry.out
    refused = lowtide(*args)
    assert refused.code == 2
    assert "--yes" in refused.err
    assert objects(folder) == before
    done = lowtide(*args, "--yes", "--json").data
    assert not {folder / one["key"] for one in done["deleted"]} & set(objects(folder))
    assert len(done["deleted"]) == 4
    states = lowtide("checkpoints", "ls", str(folder), "--json").data["commits"]
    assert [one["state"] for one in states] == ["newest", "retired", "retired"]
    assert lowtide("checkpoints", "verify", str(folder)).code == 0
    assert "deleted 0 objects" in lowtide(*args, "--yes").out


def test_gc_says_what_waits_and_why_it_refuses(lowtide: Lowtide, folder: Path) -> None:
    """Young chunks are named as such; an unreadable manifest ends with 1."""
    young = lowtide("checkpoints", "gc", str(folder), "--keep", "1", "--dry-run")
    assert "younger than the grace period, deleted later: 2 chunks, 128 B" in young.out
    next((folder / "jobs/j/manifests").glob("*020-*")).write_text("{}")
    refused = lowtide("checkpoints", "gc", str(folder), "--keep", "1", "--yes")
    assert refused.code == 1
    assert "refused: A manifest cannot be read" in refused.out
    assert "deleted 0 objects" in refused.out


def test_restore_to_gives_files_for_plain_tools(
    lowtide: Lowtide, folder: Path, tmp_path: Path
) -> None:
    """Once; a second time it overwrites nothing."""
    out = tmp_path / "out"
    args = ("checkpoints", "restore-to", str(folder), str(out), "--commit", "step=20")
    told = lowtide(*args, "--json").data
    assert (told["step"], told["folder"]) == (20, str(out))
    assert set(told["files"]) == {"model.safetensors", "frozen.safetensors", "tree.json"}
    assert load_file(out / "model.safetensors")["w"].tolist() == [20.0] * 3
    again = lowtide(*args)
    assert again.code == 2
    assert "not an empty folder" in again.err


def test_signed_commits_and_what_is_refused(
    lowtide: Lowtide, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With verify keys the unsigned commits are refused and named."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    monkeypatch.setenv("LOWTIDE_SIGNING_KEY", pem.decode())
    commit(folder, 40, epoch=2)
    monkeypatch.delenv("LOWTIDE_SIGNING_KEY")
    monkeypatch.setenv("LOWTIDE_VERIFY_KEYS", public.decode())
    told = lowtide("checkpoints", "ls", str(folder), "--json").data
    assert [one["step"] for one in told["commits"]] == [40]
    assert told["commits"][0]["signed_by"]
    assert "Record 1 is refused: it is not signed" in told["skipped"][0]
    assert lowtide("checkpoints", "verify", str(folder)).code == 1
    kept = lowtide("checkpoints", "gc", str(folder), "--keep", "1", "--dry-run", "--json").data
    assert kept["deleted"] == [], "what is not trusted is not deleted either"
    monkeypatch.setenv("LOWTIDE_VERIFY_KEYS", "nowhere.pem")
    outcome = lowtide("checkpoints", "ls", str(folder))
    assert outcome.code == 2
    assert "LOWTIDE_VERIFY_KEYS" in outcome.err


@pytest.mark.parametrize(
    ("args", "cause", "remedy"),
    [
        (["ls", "./nowhere"], "no folder 'nowhere'", "s3://"),
        (["ls", "gs://bucket/x"], "gs://bucket/x", ""),
        (["ls", "job-7"], "'job-7' is not a folder", "--job job-7"),
        (["show", "CK", "--commit", "99"], "no commit 99; there are: 3, 2, 1", "newest"),
        (["show", "CK", "--job", "k"], "no job 'k'", "--job: j"),
        (["diff", "CK", "1"], "Missing argument 'B'", "lowtide checkpoints diff --help"),
        (["gc", "CK", "--grace", "soon"], "--grace: 'soon'", "--grace 15m"),
        (["gc", "CK", "--keep", "0"], "--keep", "lowtide checkpoints gc --help"),
        (["restore-to", "CK", "CK"], "not an empty folder", "new folder"),
        (["lss"], "No such command 'lss'", "lowtide checkpoints --help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_ends_with_cause_remedy_and_2(
    lowtide: Lowtide, folder: Path, args: list[str], cause: str, remedy: str
) -> None:
    """One line each, and nothing is created on the way."""
    words = [str(folder) if word == "CK" else word for word in args]
    outcome = lowtide("checkpoints", *words)
    lines = outcome.err.splitlines()
    assert (outcome.code, outcome.out, len(lines)) == (2, "", 2), outcome
    assert cause in lines[0]
    assert remedy in lines[1]
    assert not (folder.parent / "nowhere").exists()


def test_looking_needs_no_torch(folder: Path) -> None:
    """An operator's machine has no training image."""
    code = (
        "import sys; from scheduler.cli.app import run; place, out = sys.argv[1:];"
        "assert run(['checkpoints', 'verify', place]) == 0;"
        "assert run(['checkpoints', 'restore-to', place, out]) == 0;"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), f"{folder}-out"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
