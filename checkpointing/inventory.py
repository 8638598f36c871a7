"""What lies under `jobs/`, sorted by what it means to one job's sweep. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from checkpointing.commit import History
from checkpointing.keys import StoredObject, hash_of, job_prefix, kind_of, pin_owner
from checkpointing.manifest import Manifest, RankPart
from checkpointing.retention import Retention, kept_commits

_DOCUMENTS: Final = frozenset({"manifests", "parts", "intents"})
_FAILED: Final = "-failed"


@dataclass(frozen=True, slots=True)
class Needs:
    """What a manifest relies on."""

    chunks: frozenset[str]
    """Names of chunks."""
    parts: tuple[RankPart, ...]


def needs_of(manifest: Manifest) -> Needs:
    """Return what `manifest` itself relies on; its parts rely on more."""
    return Needs(frozenset(chunk.name for chunk in manifest.chunks), manifest.parts)


@dataclass(frozen=True, slots=True)
class Inventory:
    """One listing of `jobs/`, read with one job's log beside it."""

    ours: tuple[StoredObject, ...]
    others: tuple[StoredObject, ...]
    retired: frozenset[str]
    """Keys of our manifests that were committed once and that the policy gives up."""
    named: frozenset[str]
    """Keys of all our manifests that some commit names."""
    over: frozenset[str]
    """Keys of our pins that have ended."""
    now_us: int

    @property
    def documents(self) -> tuple[StoredObject, ...]:
        """Manifests, parts and intents of all jobs: what names chunks."""
        return tuple(item for item in (*self.ours, *self.others) if _names_chunks(item.key))

    def going(
        self, needs: Mapping[str, Needs], *, orphan_us: int, grace_us: int
    ) -> Iterator[StoredObject]:
        """Yield our objects that nobody needs; `needs` holds each document's own."""
        mine = {item.key for item in self.ours if kind_of(item.key) == "manifests"}
        stay = {part.key for key in mine - self.retired for part in needs[key].parts}
        gone = {part.key for key in mine & self.retired for part in needs[key].parts} - stay
        for item in self.ours:
            age_us = self.now_us - item.modified_us
            limit_us = {"probes": grace_us}.get(kind_of(item.key), orphan_us)
            stale = age_us > limit_us and item.key not in self.named | stay
            if item.key in self.retired | self.over | gone or (stale and _may_go_stale(item.key)):
                yield item


def take_inventory(
    listing: Sequence[StoredObject],
    *,
    history: History,
    job_id: str,
    policy: Retention,
    now_us: int,
    protected: frozenset[str] = frozenset(),
) -> Inventory:
    """Sort a listing of `jobs/`; `protected` are keys of manifests that stay in any case."""
    prefix = job_prefix(job_id)
    ours = tuple(item for item in listing if item.key.startswith(prefix))
    others = tuple(item for item in listing if not item.key.startswith(prefix))
    over = {item.key for item in ours if kind_of(item.key) == "pins" and _ended(item.key, history)}
    pinned = {
        hash_of(item.key)
        for item in listing
        if kind_of(item.key) == "pins" and item.key not in over
    }
    kept = kept_commits(history.commits, policy=policy, now_us=now_us, protected=protected)
    stay = {record.manifest for record in (*kept, *history.untrusted)}
    named = {record.manifest for record in (*history.commits, *history.untrusted)}
    retired = {key for key in named - stay if hash_of(key) not in pinned}
    return Inventory(ours, others, frozenset(retired), frozenset(named), frozenset(over), now_us)


def _names_chunks(key: str) -> bool:
    return kind_of(key) in _DOCUMENTS and not key.endswith(_FAILED)


def _may_go_stale(key: str) -> bool:
    return kind_of(key) in _DOCUMENTS or kind_of(key) == "probes"


def _ended(pin: str, history: History) -> bool:
    """Whether the session that set a pin has committed since, or can commit no more."""
    owner = pin_owner(pin)
    if owner is None:
        return False
    committed = any((record.epoch, record.session) == owner for record in history.commits)
    return committed or history.epoch > owner[0]
