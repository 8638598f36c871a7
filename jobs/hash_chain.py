"""A chain of hashes over ledger entries: what was posted cannot be changed unseen.

``hash = SHA-256(previous hash + canonical bytes)``, in hexadecimal. Whoever keeps the newest
hash elsewhere can prove that nothing before it was changed, removed or put in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

GENESIS = "0" * 64
"""What stands before the first entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One stored entry of the chain."""

    pos: int  # 1, 2, ...
    prev_hash: str
    hash: str
    body: str  # canonical JSON


def next_hash(prev_hash: str, *, body: str) -> str:
    """Give the hash of an entry that follows ``prev_hash``."""
    return sha256(prev_hash.encode() + body.encode()).hexdigest()


def broken_links(links: Iterable[Link]) -> list[str]:
    """Name every place at which a chain does not hold; empty for a sound one."""
    problems: list[str] = []
    prev_hash, due = GENESIS, 1
    for link in links:
        if link.pos != due:
            problems.append(f"entry {due} is missing before entry {link.pos}")
        if link.prev_hash != prev_hash:
            problems.append(f"entry {link.pos} does not follow the one before it")
        if link.hash != next_hash(link.prev_hash, body=link.body):
            problems.append(f"entry {link.pos} was changed after it was posted")
        prev_hash, due = link.hash, link.pos + 1
    return problems
