"""Fetching one chunk, verified, straight into memory. Needs no torch."""

from __future__ import annotations

from typing import Final

from checkpointing.errors import MissingObject, corrupt
from checkpointing.hashing import blake3_hex
from checkpointing.keys import chunk_key
from checkpointing.manifest import ChunkRef
from checkpointing.storage import Storage

PARALLEL_GETS: Final = 4
_TRIES: Final = 2


def read_chunk(storage: Storage, ref: ChunkRef, *, target: memoryview) -> None:
    """Fill `target` with a chunk, once more if the first bytes are wrong; raise if they stay so."""
    key, why = chunk_key(ref.name), ""
    for _ in range(_TRIES):
        try:
            count = storage.get_into(key, target)
        except MissingObject:
            why = "it is not there"
            continue
        if count == ref.length and blake3_hex(target) == ref.blake3:
            return
        why = f"its hash does not match ({count} bytes found)"
    raise corrupt(key, why=why)
