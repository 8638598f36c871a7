"""The stores that one contract suite is run on: in memory, SQLite, and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.sql_store import SqlStore
from jobs.store import JobStore
from jobs.store_open import MEMORY_URL, open_sql_store, open_store
from tests.postgres_server import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this session."""
    with postgres_server() as server:
        yield server


def _new_database(kind: str, request: pytest.FixtureRequest) -> str:
    if kind == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        return server.new_database()
    folder: Path = request.getfixturevalue("tmp_path")
    return f"sqlite:///{folder}/lowtide.sqlite"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def database_url(request: pytest.FixtureRequest) -> str:
    """A new, empty database of either kind."""
    return _new_database(request.param, request)


@pytest.fixture
def sql_store(database_url: str) -> Iterator[SqlStore]:
    """A store on a new database of either kind."""
    store = open_sql_store(database_url)
    yield store
    store.close()


@pytest.fixture(
    params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]
)
def store(request: pytest.FixtureRequest) -> Iterator[JobStore]:
    """Each shipped JobStore, empty."""
    memory = request.param == "memory"
    opened = open_store(MEMORY_URL if memory else _new_database(request.param, request))
    yield opened
    opened.close()
