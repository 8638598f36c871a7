"""What an agent must not forget: notices not yet accepted, live attempts, its own identity.

One SQLite file in the agent's home. Every method is one transaction; any thread may call.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from pathlib import Path

from cluster.gang import Facts
from cluster.intents import StartAttempt
from cluster.notices import Notice
from jobs.codec import decode, encode

_SCHEMA = """
create table if not exists meta (key text primary key, value text not null);
create table if not exists notices (
    seq integer primary key autoincrement, id text unique not null,
    body blob not null, accepted integer not null default 0
);
create table if not exists attempts (
    id text primary key, body blob not null, facts blob not null, over integer not null default 0
);
"""
NOTICES_AT_ONCE = 500
_KEPT_ACCEPTED = 20_000


class AgentStore:
    """The agent's memory; see the module."""

    def __init__(self, path: Path) -> None:
        """Open or create the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        path.chmod(0o600)
        self._db.executescript("pragma journal_mode=wal; pragma synchronous=normal;")
        self._db.executescript(_SCHEMA)

    def get(self, key: str, default: str = "") -> str:
        """Give a remembered text."""
        with self._lock:
            found = self._db.execute("select value from meta where key = ?", (key,)).fetchone()
        return str(found[0]) if found else default

    def put(self, key: str, value: str) -> None:
        """Remember a text."""
        with self._lock:
            self._db.execute("insert or replace into meta values (?, ?)", (key, value))

    def identity(self) -> str:
        """Give the id of this agent, the same in every life."""
        if not self.get("agent"):
            self.put("agent", f"agent-{uuid.uuid4().hex[:12]}")
        return self.get("agent")

    def post(self, notice: Notice) -> None:
        """Keep a notice until it is accepted; one whose id was ever posted is ignored."""
        with self._lock:
            self._post(notice)
        self._news.set()

    def pending(self) -> list[Notice]:
        """Give the oldest notices that were not accepted yet."""
        with self._lock:
            rows = self._db.execute(
                "select body from notices where accepted = 0 order by seq limit ?",
                (NOTICES_AT_ONCE,),
            ).fetchall()
        return [decode(body, into=Notice) for (body,) in rows]

    def wait(self, timeout_s: float) -> None:
        """Block until a notice is posted or the time is over."""
        self._news.wait(timeout_s)
        self._news.clear()

    def accept(self, ids: list[str]) -> None:
        """Stop to send these; their ids are remembered for a long while."""
        with self._lock:
            self._db.executemany(
                "update notices set accepted = 1 where id = ?", [(one,) for one in ids]
            )
            self._db.execute(
                "delete from notices where accepted = 1"
                " and seq < (select max(seq) from notices) - ?",
                (_KEPT_ACCEPTED,),
            )

    def resend(self, notice_id: str) -> None:
        """Send a notice again: the server seems not to know it."""
        with self._lock:
            self._db.execute("update notices set accepted = 0 where id = ?", (notice_id,))
        self._news.set()

    def keep(self, attempt: StartAttempt, *, facts: Facts) -> None:
        """Remember a live attempt and what is known of it."""
        with self._lock:
            self._db.execute(
                "insert into attempts (id, body, facts) values (?, ?, ?)"
                " on conflict (id) do update set facts = excluded.facts",
                (attempt.attempt_id, encode(attempt), encode(facts)),
            )

    def live(self) -> list[tuple[StartAttempt, Facts]]:
        """Give the attempts that are not over, oldest first."""
        with self._lock:
            rows = self._db.execute(
                "select body, facts from attempts where over = 0 order by rowid"
            ).fetchall()
        return [(decode(a, into=StartAttempt), decode(f, into=Facts)) for a, f in rows]

    def is_over(self, attempt_id: str) -> bool:
        """Whether the attempt was known and is over."""
        with self._lock:
            return bool(
                self._db.execute(
                    "select 1 from attempts where id = ? and over = 1", (attempt_id,)
                ).fetchone()
            )

    def token_of(self, attempt_id: str) -> str | None:
        """Give a live attempt's token."""
        with self._lock:
            row = self._db.execute(
                "select body from attempts where id = ? and over = 0", (attempt_id,)
            ).fetchone()
        return None if row is None else str(decode(row[0], into=StartAttempt).token)

    def finish(self, attempt_id: str, notice: Notice) -> None:
        """Mark an attempt as over and post the notice of it, in one transaction."""
        with self._lock:
            self._db.execute("begin immediate")
            self._db.execute("update attempts set over = 1 where id = ?", (attempt_id,))
            self._post(notice)
            self._db.execute("commit")
        self._news.set()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _post(self, notice: Notice) -> None:
        self._db.execute(
            "insert or ignore into notices (id, body) values (?, ?)", (notice.id, encode(notice))
        )
