"""Object storage that is away or refuses us is named at the start and at the upload."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.local_s3 import S3Server, local_s3
from scheduler.app import StorageUnusableError, check_storage
from tests.integration.served import Served

pytestmark = pytest.mark.integration


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Run a real S3 server that this process's environment points at."""
    with local_s3(tmp_path / "s3") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


def test_code_goes_to_s3_and_an_outage_is_named(s3: S3Server, tmp_path: Path) -> None:
    """An upload lands in the bucket; with the store away it ends in a problem, not a crash."""
    served = Served(tmp_path / "home", storage=f"s3://{s3.bucket}/x").lead()
    try:
        data = b"code"
        path = f"/v1/code/{hashlib.sha256(data).hexdigest()}"
        assert served.http.put(path, content=data).status_code == 201
        assert served.http.head(path).status_code == 200
        s3.stop()
        answer = served.http.put(path, content=data, timeout=60)
        assert answer.status_code == 503
        problem = answer.json()
        assert problem["code"].startswith("storage-")
        assert problem["remedy"]
        assert served.http.get("/v1/jobs").status_code == 200
    finally:
        served.stop()


def test_wrong_credentials_and_an_absent_bucket_are_named(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store refuses is said before the server takes any job."""
    with pytest.raises(StorageUnusableError) as caught:
        check_storage("s3://no-such-bucket/x", probe="p")
    assert "no-such-bucket" in caught.value.cause
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageUnusableError) as caught:
        check_storage(f"s3://{s3.bucket}/x", probe="p")
    assert caught.value.remedy
