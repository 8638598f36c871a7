"""The two hashes of the format: BLAKE3 is a chunk's identity, CRC32C goes on the wire."""

from __future__ import annotations

from typing import Final

from awscrt.checksums import crc32c as _crt_crc32c
from blake3 import blake3
from typing_extensions import Buffer

HEX_LENGTH: Final = 64


def blake3_hex(data: Buffer) -> str:
    """Return the BLAKE3-256 of `data` in lower-case hex."""
    return str(blake3(data).hexdigest())


def crc32c(data: Buffer) -> int:
    """Return the CRC32C (Castagnoli) of `data` as an unsigned 32-bit integer."""
    return int(_crt_crc32c(data))
