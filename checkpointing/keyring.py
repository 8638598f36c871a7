"""Who signs commits here, and whose signatures count.

Without keys nothing is signed and everything is accepted. With `LOWTIDE_SIGNING_KEY` every record
that we add is signed. With `LOWTIDE_VERIFY_KEYS` a record counts only if one of those keys signed
it; to rotate, name the new public key beside the old one until no old commit is needed any more.
The cryptography itself is in `signing`, which is imported only where there are keys.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, cast

from checkpointing.commit import CommitRecord, signed_body
from checkpointing.environment import KeySources, read_key_sources
from checkpointing.errors import CheckpointError


class Signer(Protocol):
    """A private key."""

    @property
    def key_id(self) -> str:
        """The id of its public key."""

    def sign(self, body: bytes) -> str:
        """Return the signature of `body` in hex."""


class Verifier(Protocol):
    """A public key."""

    def accepts(self, body: bytes, *, signature: str) -> bool:
        """Say whether `signature` (hex) is this key's signature of `body`."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of one process."""

    signer: Signer | None = None
    trusted: Mapping[str, Verifier] = field(default_factory=dict)
    """Public keys by id; empty: signatures are not looked at."""

    def signed(self, record: CommitRecord) -> CommitRecord:
        """Return `record` with our signature, or as it is if we have no key.

        Raises `CheckpointError` if nobody, ourselves included, would then accept it.
        """
        if self.signer is None:
            if self.trusted:
                raise _no_signer()
            return record
        if self.trusted and self.signer.key_id not in self.trusted:
            raise _signer_unknown(self.signer.key_id)
        record = replace(record, key_id=self.signer.key_id, signature="")
        return replace(record, signature=self.signer.sign(signed_body(record)))

    def doubt(self, record: CommitRecord) -> str | None:
        """Say why `record` does not count, or None if it does."""
        if not self.trusted:
            return None
        if not record.signature:
            return "it is not signed"
        key = self.trusted.get(record.key_id)
        if key is None:
            return f"it is signed with the key {record.key_id}, which is not among our verify keys"
        if not key.accepts(signed_body(record), signature=record.signature):
            return f"its signature is not that of the key {record.key_id}"
        return None


NO_KEYS: Final = Keyring()


def environment_keyring(sources: KeySources | None = None) -> Keyring:
    """Load the keys that the environment names; raise `CheckpointError` for a bad one."""
    found = read_key_sources() if sources is None else sources
    if not found.signing and not found.verify:
        return NO_KEYS
    try:
        signing = importlib.import_module("checkpointing.signing")
    except ModuleNotFoundError as error:
        raise CheckpointError(
            "signing-missing",
            cause=f"Keys for checkpoints are named and the package {error.name} is not installed.",
            remedy="Install it: pip install 'lowtide[train]'; or unset LOWTIDE_SIGNING_KEY and "
            "LOWTIDE_VERIFY_KEYS.",
        ) from error
    return Keyring(
        signer=cast("Signer", signing.load_signer(found.signing)) if found.signing else None,
        trusted=cast("Mapping[str, Verifier]", signing.load_trusted(found.verify)),
    )


def _no_signer() -> CheckpointError:
    return CheckpointError(
        "signing-key-missing",
        cause="LOWTIDE_VERIFY_KEYS is set and LOWTIDE_SIGNING_KEY is not: our own commits would "
        "be refused.",
        remedy="Name this job's private key in LOWTIDE_SIGNING_KEY, or unset LOWTIDE_VERIFY_KEYS.",
    )


def _signer_unknown(key_id: str) -> CheckpointError:
    return CheckpointError(
        "signing-key-untrusted",
        cause=f"The signing key {key_id} is not among the keys of LOWTIDE_VERIFY_KEYS: our own "
        "commits would be refused.",
        remedy="Add its public key to LOWTIDE_VERIFY_KEYS, or sign with a key that is there.",
    )
