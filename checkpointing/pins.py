"""Pins: a job says which manifests it builds on before it has a commit of its own.

A restore point, or the checkpoint of another job under the same root from which a retrain starts,
must not be retired while its chunks are taken as stored. Any sweep respects the pins of any job. A
pin ends with the first commit of the session that set it, whose manifest names all that the session
needs from then on, or when that session is fenced out. `sweeps` says why this is safe against a
sweep at the same moment.
"""

from __future__ import annotations

from typing import Final

from checkpointing.commit import CommitRecord
from checkpointing.documents import read_needs
from checkpointing.errors import CorruptCheckpoint
from checkpointing.keys import chunk_key, pin_key
from checkpointing.publish import Identity
from checkpointing.storage import Storage
from checkpointing.sweeps import SweepLog

_NOTHING: Final[frozenset[str]] = frozenset()


def protect(storage: Storage, *, who: Identity, manifest_blake3: str) -> None:
    """Keep the manifest with this hash, whosever it is, until `who` first commits."""
    storage.put(
        pin_key(who.job_id, epoch=who.epoch, session=who.session, blake3=manifest_blake3), b""
    )


def known_from(storage: Storage, *, who: Identity, parent: CommitRecord) -> frozenset[str]:
    """Pin the commit `parent` for `who`; return the names of its chunks, which need no sending.

    Nothing is known, and that is no error, if the parent was retired meanwhile or cannot be read.
    """
    protect(storage, who=who, manifest_blake3=parent.manifest_blake3)
    sweeps = SweepLog(storage)
    dooms = [sweeps.doomed(seq) for seq in sweeps.look().unfinished]
    try:
        names = _names(storage, parent)
    except CorruptCheckpoint:
        return _NOTHING
    if None in dooms:
        return _NOTHING
    doomed = {key for keys in dooms for key in keys or ()}
    return frozenset(name for name in names if chunk_key(name) not in doomed)


def _names(storage: Storage, parent: CommitRecord) -> frozenset[str]:
    top = read_needs(storage, parent.manifest, blake3=parent.manifest_blake3)
    found = [read_needs(storage, part.key, blake3=part.blake3) for part in top.parts]
    return top.chunks.union(*(part.chunks for part in found))
