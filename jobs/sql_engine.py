"""Connections to SQLite and PostgreSQL: made alike, and failing alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, InterfaceError, OperationalError

from jobs.errors import FileFormatError, UnreachableError

BUSY_TIMEOUT_MS = 30_000  # how long a writer of SQLite waits for another one
CONNECT_TIMEOUT_S = 5
_DRIVERS = {"sqlite", "postgres", "postgresql", "postgresql+psycopg"}
_NO_RIGHT = "42501"  # PostgreSQL's code of "permission denied"
_WRITES = "lowtide_writes"  # execution option: this transaction will write


def make_engine(url: str) -> Engine:
    """Prepare connections to ``sqlite:///PATH`` or ``postgresql://...``; none is opened yet.

    Raises:
        UnreachableError: it is no such URL.
    """
    parsed = _parse(url)
    if parsed.drivername == "sqlite":
        return _sqlite(parsed)
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,  # a restarted server costs a ping, not a failed tick
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
    )


def is_sqlite(engine: Engine) -> bool:
    """Whether the engine is SQLite's (else it is PostgreSQL's)."""
    return engine.dialect.name == "sqlite"


@contextmanager
def reading(engine: Engine, *, one_snapshot: bool = False) -> Iterator[Connection]:
    """Open a read transaction.

    Args:
        engine: where.
        one_snapshot: all statements see the same instant (SQLite always does that).

    Raises:
        UnreachableError: the database did not answer.
    """
    options: dict[str, Any] = {}
    if one_snapshot and not is_sqlite(engine):
        options["isolation_level"] = "REPEATABLE READ"
    with _transaction(engine, options) as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a write transaction: committed at the end of the block, rolled back by any exception.

    Raises:
        UnreachableError: the database did not answer; the transaction left nothing behind.
    """
    with _transaction(engine, {_WRITES: True}) as connection:
        yield connection


@contextmanager
def _transaction(engine: Engine, options: dict[str, Any]) -> Iterator[Connection]:
    with (
        _named_errors(engine),
        engine.connect() as connection,
        connection.execution_options(**options).begin(),
    ):
        yield connection


@contextmanager
def _named_errors(engine: Engine) -> Iterator[None]:
    shown = engine.url.render_as_string(hide_password=True)
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise UnreachableError(
            f"The database {shown} did not answer: {_first_line(error)}.",
            remedy="Check that it runs, that its disk has room, its address, user and password.",
        ) from error
    except DatabaseError as error:
        if "not a database" in str(error):
            raise FileFormatError(
                f"{engine.url.database} is not a SQLite database.",
                remedy="Name another file, or move this one away.",
            ) from error
        if getattr(error.orig, "sqlstate", "") == _NO_RIGHT:
            raise UnreachableError(
                f"The database {shown} refused: {_first_line(error)}.",
                remedy="Use a database that its user owns.",
            ) from error
        raise


def _first_line(error: DatabaseError | InterfaceError) -> str:
    text = str(error.orig).strip() or type(error.orig).__name__
    return " ".join(text.split())


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    # SQLite without a path would be a database private to each connection.
    if parsed is None or parsed.drivername not in _DRIVERS or not parsed.database:
        raise UnreachableError(
            "The database URL is not one that Lowtide knows.",
            remedy="Write sqlite:///PATH/lowtide.db or postgresql://USER:PASSWORD@HOST/NAME.",
        )
    return parsed


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1_000})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - DB-API has no types
    connection.isolation_level = None  # the driver must not begin or commit behind our back
    for pragma in (
        "journal_mode = WAL",  # readers never wait for the writer
        # An intent is acted upon once it is committed: a commit that a power cut takes back
        # would leave nodes that nobody knows of. So every tick reaches the disk.
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that writes after it read fails at once when another one wrote in
    # between; one that takes the write lock first waits its turn.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
