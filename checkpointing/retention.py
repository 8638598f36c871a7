"""What to keep and what to delete, exactly. Pure: marks and sweeps are sets of names.

Kept are the newest commits, the milestones, and whatever is protected (the restore point in use).
An object is garbage if nothing that stays names it AND it is older than the grace period: a save in
flight has stored chunks that no commit names yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from checkpointing.commit import CommitRecord
from checkpointing.keys import StoredObject

GRACE_US: Final = 15 * 60 * 1_000_000
ORPHAN_US: Final = 24 * 3_600 * 1_000_000
"""Age at which a manifest that no commit names is garbage: its save will not commit any more."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much history a job keeps."""

    last: int = 3
    """Newest commits that are kept; at least 1."""
    milestone_steps: int = 0
    """Also keep commits whose step is a multiple of this; 0 for none."""
    max_age_us: int = 0
    """Of the newest `last`, drop those older than this (never the newest one); 0 for no limit."""


def kept_commits(
    commits: Sequence[CommitRecord],
    *,
    policy: Retention,
    now_us: int,
    protected: frozenset[str] = frozenset(),
) -> tuple[CommitRecord, ...]:
    """Choose from `commits` (newest first); `protected` are manifests that must stay."""
    assert policy.last >= 1, policy
    return tuple(
        record
        for place, record in enumerate(commits)
        if place == 0
        or record.manifest in protected
        or _is_milestone(record, policy)
        or (place < policy.last and _is_young(record, policy, now_us))
    )


def garbage(
    loose: Iterable[StoredObject], *, now_us: int, grace_us: int = GRACE_US
) -> tuple[StoredObject, ...]:
    """Return what is older than the grace period of what nothing names."""
    return tuple(item for item in loose if now_us - item.modified_us > grace_us)


def _is_milestone(record: CommitRecord, policy: Retention) -> bool:
    return policy.milestone_steps > 0 and record.step % policy.milestone_steps == 0


def _is_young(record: CommitRecord, policy: Retention, now_us: int) -> bool:
    return policy.max_age_us == 0 or now_us - record.at_us <= policy.max_age_us
