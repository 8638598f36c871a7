"""`lowtide checkpoints` on what real trainings left in a real S3 server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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

from checkpointing.catalog import open_catalog
from checkpointing.keys import chunk_key
from checkpointing.storage import open_storage
from scheduler.cli.app import run
from tests.s3_server import S3Server, s3_server
from tests.unit.checkpointing.training import Trainee, train

__all__ = ["s3_server"]

pytestmark = pytest.mark.integration


@pytest.fixture
def root(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in the S3 server, as the environment of every training and command."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{s3_server.bucket}/checkpoints"
    monkeypatch.setenv("LOWTIDE_CHECKPOINT_URI", uri)
    return uri


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signing key and its public half, in files that the environment names."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "signing.pem").write_bytes(private)
    (tmp_path / "verify.pem").write_bytes(public)
    monkeypatch.setenv("LOWTIDE_SIGNING_KEY", str(tmp_path / "signing.pem"))
    monkeypatch.setenv("LOWTIDE_VERIFY_KEYS", str(tmp_path / "verify.pem"))


def attempt(monkeypatch: pytest.MonkeyPatch, job: str, *, epoch: int, steps: int) -> str:
    """Train as an attempt of a job, uploads in their own process; return the digest."""
    monkeypatch.setenv("LOWTIDE_JOB_ID", job)
    monkeypatch.setenv("LOWTIDE_EPOCH", str(epoch))
    monkeypatch.setenv("LOWTIDE_ATTEMPT_ID", f"{job}/{epoch}")
    return train(steps=steps)[0]


def lowtide(capfd: pytest.CaptureFixture[str], *args: str, code: int = 0) -> Any:
    """Run a command and read its JSON."""
    capfd.readouterr()
    assert run(["checkpoints", *args, "--json"]) == code
    return json.loads(capfd.readouterr().out)


def test_two_jobs_share_a_root_and_one_is_swept(
    root: str,
    keys: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Equal chunks of the other job stay; what remains is signed, whole, and loads elsewhere."""
    for job in ("retrain-1", "retrain-2"):
        for epoch, steps in ((1, 10), (2, 20)):
            attempt(monkeypatch, job, epoch=epoch, steps=steps)
    listed = lowtide(capfd, "ls", root, "--job", "retrain-1")["commits"]
    assert [one["step"] for one in listed] == [20, 10]
    assert all(one["signed_by"] for one in listed)
    gc = ("gc", root, "--keep", "1", "--grace", "0s", "--yes")
    first = lowtide(capfd, *gc, "--job", "retrain-1")["deleted"]
    assert {one["key"].split("/")[0] for one in first} == {"jobs"}, "retrain-2 needs those chunks"
    assert lowtide(capfd, "verify", root, "--job", "retrain-2")["wrong_chunks"] == []
    second = lowtide(capfd, *gc, "--job", "retrain-2")["deleted"]
    assert {one["key"].split("/")[0] for one in second} == {"jobs", "chunks"}
    assert lowtide(capfd, "verify", root, "--job", "retrain-1")["wrong_chunks"] == []
    out = tmp_path / "out"
    lowtide(capfd, "restore-to", root, str(out), "--job", "retrain-1")
    model = Trainee(seed=1).model
    model.load_state_dict(load_file(out / "model.safetensors"))
    state = lowtide(capfd, "show", root, "--job", "retrain-1")
    assert state["provenance"]["parent"].startswith("jobs/retrain-1/manifests/000000000010-")
    alone = Trainee()
    for _ in range(20):
        alone.step()
    for name, wanted in alone.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], wanted), name


def test_a_forged_commit_is_not_resumed(
    root: str, keys: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Somebody who may write to the store, and has no key, cannot change what is trained on."""
    honest = attempt(monkeypatch, "target", epoch=1, steps=10)
    with monkeypatch.context() as forger:
        forger.delenv("LOWTIDE_SIGNING_KEY")
        forger.delenv("LOWTIDE_VERIFY_KEYS")
        assert attempt(forger, "target", epoch=50, steps=12) != honest
    assert attempt(monkeypatch, "target", epoch=2, steps=10) == honest
    told = lowtide(capfd, "ls", root, "--job", "target")
    assert {one["step"] for one in told["commits"]} == {10}
    assert any("it is not signed" in why for why in told["skipped"])


def test_the_command_as_a_process(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point finds the store by the environment and ends with its code."""
    attempt(monkeypatch, "as-process", epoch=1, steps=2)
    command = [sys.executable, "-m", "scheduler.cli", "checkpoints", "verify", root]

    def verify() -> subprocess.CompletedProcess[str]:
        words = [*command, "--job", "as-process"]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    whole = verify()
    assert (whole.returncode, whole.stderr) == (0, "")
    assert "all of it is what was committed" in whole.stdout
    storage = open_storage(root)
    catalog = open_catalog(storage, job_id="as-process")
    name = next(iter(catalog.read(catalog.find("newest")).chunks))
    storage.put(chunk_key(name), b"rotten")
    spoilt = verify()
    assert spoilt.returncode == 1
    assert f"chunk {name}: it has 6 bytes instead of" in spoilt.stdout
