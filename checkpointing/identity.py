"""Who saves: one rank of one session of one attempt. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """One rank of one session of one attempt."""

    job_id: str
    attempt_id: str
    epoch: int
    """Fencing epoch of the attempt."""
    session: int
    """Random number of the session, shared by its ranks."""
    rank: int = 0
    world_size: int = 1
