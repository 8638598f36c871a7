"""Opening: new, older, newer, broken and unreachable databases, and many at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import jobs
from jobs import sql_tables
from jobs.errors import FileFormatError, NewerDatabaseError, UnreachableError
from jobs.memory_store import MemoryStore
from jobs.sql_engine import make_engine, reading, writing
from jobs.store_open import MEMORY_URL, open_sql_store, open_store
from tests.builders import History
from tests.postgres_server import PostgresServer

ROOT = Path(__file__).resolve().parents[2]


def test_memory_has_a_url_too() -> None:
    """The in-memory store is opened like the others."""
    assert isinstance(open_store(MEMORY_URL), MemoryStore)


def test_the_migrations_make_the_tables(database_url: str) -> None:
    """A migrated database and `jobs.sql_tables` agree on every table, column and index."""
    open_sql_store(database_url).close()
    engine = make_engine(database_url)
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, sql_tables.metadata) == []
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    """The constant that spares most openings Alembic's import is up to date."""
    folder = Path(jobs.__file__).with_name("migrations")
    config = Config()
    config.set_main_option("script_location", str(folder))
    assert ScriptDirectory.from_config(config).get_heads() == [sql_tables.HEAD]


def test_opening_again_changes_nothing(database_url: str) -> None:
    """What was written is there after the next start."""
    store = open_sql_store(database_url)
    epoch = store.acquire_leadership("a", now_us=0, ttl_us=1)
    assert epoch == 1
    store.commit(History().submit().batch(), epoch=epoch)
    store.close()
    store = open_sql_store(database_url)
    assert list(store.load().jobs) == ["job-1"]
    assert store.acquire_leadership("b", now_us=1, ttl_us=1) == 2
    store.close()


def test_a_newer_database_is_left_alone(database_url: str) -> None:
    """It is refused with a cause and a remedy, and still says that it is newer."""
    open_sql_store(database_url).close()
    engine = make_engine(database_url)
    with writing(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for _ in range(2):
        with pytest.raises(NewerDatabaseError) as caught:
            open_store(database_url)
        assert "9999" in caught.value.cause
        assert "Upgrade" in caught.value.remedy
    engine.dispose()


def test_many_open_a_new_database_at_once(database_url: str) -> None:
    """Processes that start together do not trip over each other's migration."""
    code = "import sys; from jobs.store_open import open_store; open_store(sys.argv[1]).close()"
    command = [sys.executable, "-c", code, database_url]
    several = [subprocess.Popen(command, cwd=ROOT) for _ in range(5)]
    try:
        assert [process.wait(timeout=50) for process in several] == [0] * 5
    finally:
        for process in several:
            process.kill()
            process.wait()
    store = open_sql_store(database_url)
    assert store.acquire_leadership("a", now_us=0, ttl_us=1) == 1
    store.close()


@pytest.mark.parametrize(
    "url", ["", "lowtide.db", "sqlite://", "mysql://localhost/x", "postgresql://", "redis:///x"]
)
def test_a_wrong_url_says_what_a_right_one_is(url: str) -> None:
    """Neither file nor server: the remedy shows both forms."""
    with pytest.raises(UnreachableError) as caught:
        open_store(url)
    assert "sqlite:///" in caught.value.remedy
    assert "postgresql://" in caught.value.remedy


def test_nobody_answers() -> None:
    """No server at the address: cause and remedy, and the password is not shown."""
    with pytest.raises(UnreachableError) as caught:
        open_store("postgresql://ada:geheim@127.0.0.1:1/lowtide")
    assert "127.0.0.1" in caught.value.cause
    assert "geheim" not in str(caught.value)


@pytest.mark.integration
def test_a_wrong_password(postgres: PostgresServer) -> None:
    """The right one opens; the wrong one is refused, and not shown."""
    postgres.add_user("guest", password="right")
    url = sa.make_url(postgres.new_database(owner="guest")).set(username="guest")
    open_store(url.set(password="right").render_as_string(hide_password=False)).close()
    with pytest.raises(UnreachableError, match="password authentication failed") as caught:
        open_store(url.set(password="geheim").render_as_string(hide_password=False))
    assert "password" in caught.value.remedy
    assert "geheim" not in str(caught.value)


@pytest.mark.integration
def test_an_unknown_user_or_database(postgres: PostgresServer) -> None:
    """The server's own words are passed on."""
    url = postgres.url
    with pytest.raises(UnreachableError, match="nobody-there"):
        open_store(url.set(database="nobody-there").render_as_string(hide_password=False))
    with pytest.raises(UnreachableError, match="stranger"):
        open_store(url.set(username="stranger").render_as_string(hide_password=False))


@pytest.mark.integration
def test_a_user_without_rights(postgres: PostgresServer) -> None:
    """A user that may not make tables is told so."""
    url = sa.make_url(postgres.new_database())
    postgres.execute("CREATE USER visitor")
    with pytest.raises(UnreachableError, match="permission denied"):
        open_store(url.set(username="visitor").render_as_string(hide_password=False))


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    """A text file under the database's name is refused and left as it is."""
    path = tmp_path / "lowtide.sqlite"
    path.write_text("no database, but long enough to be looked at " * 100)
    with pytest.raises(FileFormatError, match="not a SQLite database"):
        open_store(f"sqlite:///{path}")
    assert path.read_text().startswith("no database")


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    """A file in the place of the folder is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreachableError, match="file"):
        open_store(f"sqlite:///{tmp_path}/file/lowtide.sqlite")


def test_missing_folders_are_made(tmp_path: Path) -> None:
    """The embedded default needs no preparation."""
    open_store(f"sqlite:///{tmp_path}/a/b/lowtide.sqlite").close()
    assert (tmp_path / "a/b/lowtide.sqlite").is_file()


def test_sqlite_is_durable_and_lets_readers_read(tmp_path: Path) -> None:
    """WAL, every commit on the disk, foreign keys held."""
    store = open_sql_store(f"sqlite:///{tmp_path}/lowtide.sqlite")
    with reading(store._engine) as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert found == ["wal", 2, 1, 30_000]
    store.close()
