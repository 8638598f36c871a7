"""Ed25519 keys for commits, read from PEM. Imported only where keys are configured.

A key's id is the first 16 hex digits of the BLAKE3 of its 32 raw public bytes. Make a pair with

    openssl genpkey -algorithm ed25519 -out signing.pem
    openssl pkey -in signing.pem -pubout -out verify/2026.pem
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)

from checkpointing.errors import CheckpointError
from checkpointing.hashing import blake3_hex

_PEM: Final = "-----BEGIN"
_PRIVATE: Final = "LOWTIDE_SIGNING_KEY"
_PUBLIC: Final = "LOWTIDE_VERIFY_KEYS"
_ID_DIGITS: Final = 16
_PARSE_ERRORS: Final = (ValueError, TypeError, UnsupportedAlgorithm)


class Ed25519Signer:
    """A private key in memory."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Use `key`."""
        self._key = key
        self.key_id = key_id(key.public_key())

    def sign(self, body: bytes) -> str:
        """Return the signature of `body` in hex."""
        return self._key.sign(body).hex()


class Ed25519Verifier:
    """A public key in memory."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        """Use `key`."""
        self._key = key

    def accepts(self, body: bytes, *, signature: str) -> bool:
        """Say whether `signature` (hex) is this key's signature of `body`."""
        try:
            self._key.verify(bytes.fromhex(signature), body)
        except (InvalidSignature, ValueError):
            return False
        return True


def key_id(key: Ed25519PublicKey) -> str:
    """Return the short name under which records mention a key."""
    return blake3_hex(key.public_bytes_raw())[:_ID_DIGITS]


def load_signer(source: str) -> Ed25519Signer:
    """Read a private key from a PEM file or PEM text; raise `CheckpointError`."""
    where, data = next(_pems(source, _PRIVATE))
    try:
        key = load_pem_private_key(data, password=None)
    except _PARSE_ERRORS as error:
        raise _unusable(where, _PRIVATE, "an unencrypted private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(where, _PRIVATE, "an Ed25519 key")
    return Ed25519Signer(key)


def load_trusted(source: str) -> dict[str, Ed25519Verifier]:
    """Read public keys by id from PEM files, folders of them, or PEM text."""
    found: dict[str, Ed25519Verifier] = {}
    for where, data in _pems(source, _PUBLIC):
        try:
            key = load_pem_public_key(data)
        except _PARSE_ERRORS as error:
            raise _unusable(where, _PUBLIC, "a public key in PEM") from error
        if not isinstance(key, Ed25519PublicKey):
            raise _unusable(where, _PUBLIC, "an Ed25519 key")
        found[key_id(key)] = Ed25519Verifier(key)
    if source and not found:
        raise _unreadable(source, _PUBLIC, "no *.pem file is there")
    return found


def _pems(source: str, variable: str) -> Iterator[tuple[str, bytes]]:
    """Yield each PEM text with a name for messages; PEM text itself is never shown."""
    if source.lstrip().startswith(_PEM):
        for number, block in enumerate(source.split(_PEM)[1:], start=1):
            yield f"text {number}", (_PEM + block).encode()
        return
    for path in filter(None, source.split(os.pathsep)):
        yield from _files(Path(path), variable)


def _files(path: Path, variable: str) -> Iterator[tuple[str, bytes]]:
    try:
        for found in sorted(path.glob("*.pem")) if path.is_dir() else [path]:
            yield str(found), found.read_bytes()
    except OSError as error:
        raise _unreadable(str(path), variable, error.strerror or str(error)) from error


def _unreadable(where: str, variable: str, why: str) -> CheckpointError:
    return CheckpointError(
        "signing-key-unreadable",
        cause=f"The key {where} of {variable} cannot be read: {why}.",
        remedy=f"Correct {variable}, or unset it.",
    )


def _unusable(where: str, variable: str, wanted: str) -> CheckpointError:
    return CheckpointError(
        "signing-key-invalid",
        cause=f"The key {where} of {variable} is not {wanted}.",
        remedy="Make one: openssl genpkey -algorithm ed25519, and openssl pkey -pubout.",
    )
