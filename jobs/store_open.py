"""``open_store``: from a URL to a JobStore whose tables are of this version."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, Engine, inspect, text

from jobs.errors import NewerDatabaseError, UnreachableError
from jobs.memory_store import MemoryStore
from jobs.sql_engine import is_sqlite, make_engine, reading, writing
from jobs.sql_store import SqlStore
from jobs.sql_tables import HEAD
from jobs.store import JobStore

MEMORY_URL = "memory:"
_MIGRATION_LOCK = 7_310_579_617_240  # any number that nobody else locks


def open_store(url: str) -> JobStore:
    """Open ``sqlite:///PATH``, ``postgresql://...`` or ``memory:``.

    A new database gets its tables, an older one is migrated. Any number of processes may open
    the same one at once.

    Raises:
        UnreachableError: the URL is none of these, or the database refused or did not answer.
        NewerDatabaseError: a newer version of Lowtide wrote it; nothing was changed.
        FileFormatError: the file is something else.
    """
    return MemoryStore() if url == MEMORY_URL else open_sql_store(url)


def open_sql_store(url: str) -> SqlStore:
    """Open ``sqlite:///PATH`` or ``postgresql://...``; see ``open_store``."""
    engine = make_engine(url)
    try:
        with _alone(engine):
            _bring_up_to_date(engine)
    except BaseException:
        engine.dispose()
        raise
    return SqlStore(engine)


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Keep others from opening the same SQLite file: setting WAL up does not wait its turn."""
    if not is_sqlite(engine):
        yield
        return
    with _lock_file(Path(f"{engine.url.database}.lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lock_file(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")
    except OSError as error:
        raise UnreachableError(
            f"The database cannot be kept in {path.parent}: {error.strerror}.",
            remedy="Name a folder that may be written to.",
        ) from error


def _bring_up_to_date(engine: Engine) -> None:
    with reading(engine) as connection:
        if _revision(connection) == HEAD:
            return
    with writing(engine) as connection:
        if not is_sqlite(engine):
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        _migrate(connection)


def _revision(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.scalar(text("SELECT version_num FROM alembic_version")) or ""


def _migrate(connection: Connection) -> None:
    # Alembic takes a third of a second to import; most openings need no migration.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    found = _revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found and found not in known:
        raise NewerDatabaseError(
            f"The database {connection.engine.url.render_as_string(hide_password=True)} is at "
            f"revision {found}; this version of Lowtide knows revisions up to {HEAD}.",
            remedy="Upgrade Lowtide, or open the backup from before the newer version.",
        )
    command.upgrade(config, "head")
