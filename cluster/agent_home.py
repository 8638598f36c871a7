"""One agent per home: a lock that the system takes back when the agent dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import ConflictError


@contextmanager
def single_agent(home: Path) -> Iterator[None]:
    """Hold the home.

    Raises:
        ConflictError: a living agent holds it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                f"Another agent uses {home}.", remedy="End it first, or give another --home."
            ) from error
        yield
