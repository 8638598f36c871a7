"""Small records with their own hash inside, so that a flipped bit is noticed. Pure.

Every version of every record is sealed in this one way: canonical JSON, `blake3` being the hash of
the canonical JSON of the other fields. So damage is never taken for a newer version.
"""

from __future__ import annotations

from collections.abc import Mapping

from checkpointing.errors import corrupt
from checkpointing.hashing import blake3_hex
from checkpointing.manifest import canonical, check_version, parse_format


def seal(body: Mapping[str, object]) -> bytes:
    """Return the bytes of a record."""
    return canonical({**body, "blake3": blake3_hex(canonical(dict(body)))})


def unseal(data: bytes, *, key: str, wanted_format: str, version: int) -> dict[str, object]:
    """Parse and verify a record; raise `CorruptCheckpoint`, or name a newer version."""
    fields = parse_format(data, key=key, wanted_format=wanted_format)
    claimed = fields.pop("blake3", None)
    if claimed != blake3_hex(canonical(fields)):
        raise corrupt(key, why="its hash does not match")
    check_version(fields, key=key, version=version)
    return fields
