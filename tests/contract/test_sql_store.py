"""What the SQL store promises beyond the contract: crashes, tampering, other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from jobs import sql_tables as t
from jobs.fold import replay
from jobs.hash_chain import broken_links
from jobs.sql_engine import make_engine, reading, writing
from jobs.sql_store import SqlStore
from jobs.sql_write import take_lease
from jobs.states import JobState
from jobs.store_open import open_sql_store
from tests.builders import START_US, History, a_job, an_entry

ROOT = Path(__file__).resolve().parents[2]


def fill(store: SqlStore) -> History:
    """Lead, and commit a job and two entries."""
    epoch = store.acquire_leadership("server-1", now_us=0, ttl_us=0)
    assert epoch is not None
    history = History().submit(a_job().key("k"))
    shares = {"job-1/1": 7}
    store.commit(history.batch(an_entry(shares=shares), an_entry(hour=1)), epoch=epoch)
    return history


def run_and_die(act: Callable[[], None]) -> int:
    """Run something in a process of its own and give the signal that ended it, 0 for none."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def commit_and_die(url: str, *, at_statement: int) -> None:
    """Commit a second tick with a new leader, but be killed before one of its statements."""
    store = open_sql_store(url)
    epoch = store.acquire_leadership("server-2", now_us=1, ttl_us=0)
    assert epoch is not None
    history = History()
    history.state, history.records = store.load(), list(store.records())
    history.batch()
    history.ready("node-1").submit(a_job("job-2").key("k2")).train("job-2")
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1
        if statements == at_statement:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(store._engine, "before_cursor_execute", count)
    sa.event.listen(store._engine, "commit", count)
    store.commit(history.batch(an_entry(hour=2, shares={"job-2/1": 5})), epoch=epoch)


def check_sound(store: SqlStore) -> None:
    """Assert that the journal folds to the rows and the ledger's chain holds."""
    loaded, folded = store.load(), replay(store.records())
    for name in ("jobs", "attempts", "leases", "nodes", "flavors", "seq"):
        assert getattr(loaded, name) == getattr(folded, name), name
    assert not broken_links(store.chain())


def test_a_crash_at_any_statement_leaves_nothing_of_the_tick(database_url: str) -> None:
    """Killed before each statement in turn, even before COMMIT, a tick never happened."""
    store = open_sql_store(database_url)
    fill(store)
    store.close()
    crashes = 0
    while run_and_die(partial(commit_and_die, database_url, at_statement=crashes + 1)):
        crashes += 1
        assert crashes < 100
        store = open_sql_store(database_url)
        assert store.last_seq() == 1
        assert list(store.load().jobs) == ["job-1"]
        assert not store.load().nodes
        assert store.job_by_key("k2") is None
        assert len(list(store.entries())) == 2
        check_sound(store)
        store.close()
    assert crashes >= 10
    store = open_sql_store(database_url)
    assert set(store.load().jobs) == {"job-1", "job-2"}  # nothing left to die at: it was kept
    assert len(list(store.entries())) == 3
    check_sound(store)
    store.close()


def test_a_writer_killed_at_any_moment_leaves_whole_ticks(database_url: str) -> None:
    """Leaders killed in full flight, one after the other: journal, rows and ledger agree."""
    store = open_sql_store(database_url)
    for holder in range(1, 5):
        before = store.last_seq()
        command = [sys.executable, "-m", "tests.contract.endless_writer", database_url]
        writer = subprocess.Popen([*command, str(holder)], cwd=ROOT)
        try:
            while store.last_seq() < before + 7 * holder:
                assert writer.poll() is None, "the writer ended by itself"
        finally:
            writer.kill()
            writer.wait(timeout=10)
        check_sound(store)
        state = store.load()
        assert state.seq > before
        assert len(state.jobs) * 2 == state.seq == len(list(store.entries())) * 2
        assert store.counts_by_state() == {JobState.CANCELLED: len(state.jobs)}
    store.close()


@pytest.mark.parametrize(
    "table", ["journal", "ledger_entries", "ledger_postings", "ledger_attempts"]
)
def test_journal_and_ledger_only_grow(database_url: str, sql_store: SqlStore, table: str) -> None:
    """UPDATE and DELETE are refused by the database itself, whoever asks."""
    fill(sql_store)
    column = t.APPEND_ONLY[table][0]
    attacks = ["UPDATE {0} SET {1} = {1}", "DELETE FROM {0}"]
    if database_url.startswith("sqlite"):
        attacks.append("INSERT OR REPLACE INTO {0} SELECT * FROM {0}")
    else:
        attacks.append("TRUNCATE {0} CASCADE")
    engine = make_engine(database_url)
    for attack in attacks:
        with (
            pytest.raises(sa.exc.DatabaseError, match="append-only"),
            writing(engine) as connection,
        ):
            connection.exec_driver_sql(attack.format(table, column))
    engine.dispose()
    assert len(list(sql_store.entries())) == 2


def test_the_list_of_append_only_tables_is_complete() -> None:
    """The journal and every table of the ledger are on it, with their keys."""
    expected = {
        name: tuple(column.name for column in table.primary_key)
        for name, table in t.metadata.tables.items()
        if name == "journal" or name.startswith("ledger_")
    }
    assert expected == t.APPEND_ONLY


def drop_triggers(connection: sa.Connection) -> None:
    """Do what an attacker with all rights would do first."""
    if connection.dialect.name == "sqlite":
        names = connection.scalars(sa.text("SELECT name FROM sqlite_master WHERE type='trigger'"))
        for name in names.all():
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
    else:
        for table in t.APPEND_ONLY:
            connection.exec_driver_sql(f"DROP TRIGGER {table}_append_only ON {table}")


@pytest.mark.parametrize(
    ("attack", "finding"),
    [
        ("UPDATE ledger_entries SET body = replace(body, '7', '8') WHERE pos = 1", "changed"),
        ("UPDATE ledger_entries SET hash = prev_hash WHERE pos = 1", "changed"),
        ("UPDATE ledger_entries SET prev_hash = 'x' WHERE pos = 2", "does not follow"),
    ],
)
def test_tampering_breaks_the_chain(sql_store: SqlStore, attack: str, finding: str) -> None:
    """Who gets around the triggers is found out by the chain of hashes."""
    fill(sql_store)
    assert not broken_links(sql_store.chain())
    with writing(sql_store._engine) as connection:
        drop_triggers(connection)
        connection.exec_driver_sql(attack)
    assert any(finding in problem for problem in broken_links(sql_store.chain()))


def test_a_removed_entry_breaks_the_chain(sql_store: SqlStore) -> None:
    """A missing link is named."""
    fill(sql_store)
    with writing(sql_store._engine) as connection:
        drop_triggers(connection)
        for table in (t.ledger_postings, t.ledger_attempts):
            connection.execute(sa.delete(table).where(table.c.entry_pos == 1))
        connection.execute(sa.delete(t.ledger_entries).where(t.ledger_entries.c.pos == 1))
    problems = broken_links(sql_store.chain())
    assert "entry 1 is missing before entry 2" in problems


def test_the_chain_goes_on_over_ticks(sql_store: SqlStore) -> None:
    """Each tick's entries follow on the last tick's."""
    history = fill(sql_store)
    for hour in range(2, 5):
        sql_store.commit(history.batch(an_entry(hour=hour)), epoch=1)
    links = list(sql_store.chain())
    assert [link.pos for link in links] == [1, 2, 3, 4, 5]
    assert not broken_links(links)


def test_sums_are_queries(sql_store: SqlStore) -> None:
    """Postings say whose they are, so a statement is one query and balances to zero."""
    fill(sql_store)
    c = t.ledger_postings.c
    by_owner = sa.select(c.job_id, c.cost_class, sa.func.sum(c.usd_nanos)).group_by(
        c.job_id, c.cost_class
    )
    with reading(sql_store._engine) as connection:
        sums = {(row[0], row[1]): int(row[2]) for row in connection.execute(by_owner)}
        assert int(connection.scalar(sa.select(sa.func.sum(c.usd_nanos))) or 0) == 0
    assert sums == {("job-1", "useful"): 7, (None, None): -7}


def test_a_reader_in_the_middle_of_a_write_sees_the_past(sql_store: SqlStore) -> None:
    """An open write transaction blocks no reader and shows it nothing."""
    fill(sql_store)
    with writing(sql_store._engine) as connection:
        connection.execute(sa.update(t.jobs).values(state="failed"))
        rows = sql_store.jobs(states=[JobState.QUEUED], after=(START_US + 1, ""))
        assert [row.id for row in rows] == ["job-1"]
        assert sql_store.load().seq == 1
    assert sql_store.jobs(states=[JobState.QUEUED]) == []


def test_two_servers_follow_each_other(database_url: str) -> None:
    """A second process' store reads what the first wrote, and fences it when it takes over."""
    one, two = open_sql_store(database_url), open_sql_store(database_url)
    history = fill(one)
    assert two.load().jobs == history.state.jobs
    epoch = two.acquire_leadership("server-2", now_us=1, ttl_us=100)
    assert epoch == 2
    batch = history.submit("job-2").batch()
    with pytest.raises(ValueError, match="epoch"):
        one.commit(batch, epoch=1)
    two.commit(batch, epoch=2)
    assert one.last_seq() == 2
    one.close()
    two.close()


def test_who_asks_during_a_takeover_comes_second(sql_store: SqlStore) -> None:
    """A candidate waits for the other's open transaction and then finds the lease taken."""
    won: list[int | None] = []

    def run_for() -> None:
        won.append(sql_store.acquire_leadership("b", now_us=0, ttl_us=100))

    candidate = threading.Thread(target=run_for)
    with writing(sql_store._engine) as connection:
        assert take_lease(connection, "a", now_us=0, ttl_us=100) == 1
        candidate.start()
        candidate.join(timeout=0.5)
        assert not won
    candidate.join(timeout=30)
    assert won == [None]
