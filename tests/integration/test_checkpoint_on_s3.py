"""Training, dying and resuming against a real S3 server."""

from __future__ import annotations

import pytest

from checkpointing.storage import open_storage
from tests.s3_server import S3Server, s3_server
from tests.unit.checkpointing.training import Interrupted, train

__all__ = ["s3_server"]

pytestmark = pytest.mark.integration


def test_a_crash_changes_no_bit_on_s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt dies, its successor restores from object storage and ends byte-equal."""
    whole, _ = train(steps=20)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{s3_server.bucket}/family"
    monkeypatch.setenv("LOWTIDE_JOB_ID", "job-1")
    monkeypatch.setenv("LOWTIDE_CHECKPOINT_URI", uri)
    monkeypatch.setenv("LOWTIDE_CHECKPOINT_INTERVAL_MS", "1")
    monkeypatch.setenv("LOWTIDE_EPOCH", "1")
    with pytest.raises(Interrupted):
        train(steps=20, crash_at=12)
    monkeypatch.setenv("LOWTIDE_EPOCH", "2")
    digest, session = train(steps=20)
    assert session.restored_step >= 10
    assert digest == whole
    storage = open_storage(uri)
    newest = max(storage.list("chunks/"), key=lambda item: item.modified_us)
    assert storage.get(newest.key)
