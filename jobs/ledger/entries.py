"""Balanced, immutable ledger entries.

An entry is a list of postings (legs) that add up to zero in money. ``gpu_ms`` and
``list_usd_nanos`` ride along on the legs: held GPU-milliseconds, and what the same share would
have cost on demand at that hour; both add up to zero as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from jobs.ledger.accounts import provider_account

METHOD = "gpu-seconds-v1"


class EntryKind(StrEnum):
    """Why an entry was made."""

    USAGE = "usage"  # a node interval, split over its holders
    RECLASS = "reclass"  # time moved between classes of one attempt
    CORRECTION = "correction"  # a reversal, or what replaces it


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """One leg: debit positive, credit negative."""

    account: str
    usd_nanos: int
    gpu_ms: int
    list_usd_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A balanced record about [start_us, end_us) of one node.

    ``id`` is its idempotency key: origin + method + interval, so posting the same fact twice
    is found and ignored.
    """

    id: str
    kind: EntryKind
    posted_us: int
    start_us: int
    end_us: int
    node_id: str
    flavor: str
    usd_nanos_per_hour: int
    list_usd_nanos_per_hour: int
    price_source: str
    attempt_ids: tuple[str, ...]  # attempts that any leg touches
    postings: tuple[Posting, ...]

    def check(self) -> None:
        """Assert that money, list price and GPU time each add up to zero."""
        assert sum(leg.usd_nanos for leg in self.postings) == 0, f"unbalanced {self!r}"
        assert sum(leg.gpu_ms for leg in self.postings) == 0, f"GPU time leaks in {self!r}"
        assert sum(leg.list_usd_nanos for leg in self.postings) == 0, f"list leaks {self!r}"
        assert self.start_us <= self.end_us, f"runs backwards: {self!r}"


def usage_id(node_id: str, *, start_us: int, end_us: int) -> str:
    """Give the idempotency key of a usage entry."""
    return f"{provider_account(node_id)}|{METHOD}|{start_us}-{end_us}"
