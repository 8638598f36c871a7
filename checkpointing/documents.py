"""Reading manifests for what they name, without loading any state. Needs no torch."""

from __future__ import annotations

from typing import Final

from checkpointing.errors import MissingObject, corrupt
from checkpointing.hashing import blake3_hex
from checkpointing.inventory import Needs, needs_of
from checkpointing.manifest import Manifest, check_parts, decode
from checkpointing.storage import Storage

_TRIES: Final = 2


def read_document(storage: Storage, key: str, *, blake3: str) -> Manifest:
    """Read a manifest, or a rank's part, that must have this hash; raise `CorruptCheckpoint`."""
    manifest = decode(_fetched(storage, key, blake3=blake3), key=key)
    check_parts(manifest, key=key)
    return manifest


def read_needs(storage: Storage, key: str, *, blake3: str) -> Needs:
    """Return what the manifest `key` relies on; raise `CorruptCheckpoint`."""
    return needs_of(read_document(storage, key, blake3=blake3))


def _fetched(storage: Storage, key: str, *, blake3: str) -> bytes:
    why = ""
    for _ in range(_TRIES):
        try:
            data = storage.get(key)
        except MissingObject:
            why = "it is not there"
            continue
        if blake3_hex(data) == blake3:
            return data
        why = f"its hash does not match ({len(data)} bytes found)"
    raise corrupt(key, why=why)
