"""Pins: a job says which manifests it builds on before it has a commit of its own.

A restore point, or the checkpoint of another job under the same root from which a retrain starts,
must not be retired while its chunks are taken as stored. Any sweep respects the pins of any job. A
pin ends with the first commit of the session that set it, whose manifest names all that the session
needs from then on, or when that session is fenced out. `sweeps` says why this is safe against a
sweep at the same moment.
"""

from __future__ import annotations

from checkpointing.commit import CommitRecord
from checkpointing.documents import read_needs
from checkpointing.identity import Identity
from checkpointing.keys import hash_of, pin_key
from checkpointing.storage import Storage


def pin(storage: Storage, manifest: str, *, who: Identity) -> str:
    """Keep the manifest stored under this key, of whatever job; return the pin's own key."""
    key = pin_key(who.job_id, epoch=who.epoch, session=who.session, blake3=hash_of(manifest))
    storage.put(key, b"")
    return key


def known_from(storage: Storage, parent: CommitRecord) -> frozenset[str]:
    """Return the names of all chunks of a commit, of every rank; raise `CorruptCheckpoint`.

    A session that starts from `parent` hands them to its uploader's `adopt`, which pins the parent
    and takes over what is safe: those chunks are not sent again.
    """
    top = read_needs(storage, parent.manifest, blake3=parent.manifest_blake3)
    found = [read_needs(storage, part.key, blake3=part.blake3) for part in top.parts]
    return top.chunks.union(*(part.chunks for part in found))
