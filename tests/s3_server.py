"""A real S3 server for tests: a thin fixture on `cluster.local_s3`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.local_s3 import S3Server, local_s3, start_s3

__all__ = ["S3Server", "s3_server", "start_s3"]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests of a process, stopped at its end."""
    with local_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server
