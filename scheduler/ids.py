"""The one home of identifiers and secrets: random in production, counted in a simulation."""

from __future__ import annotations

import secrets
from typing import Protocol

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford: nothing that looks alike


class IdSource(Protocol):
    """Makes identifiers that are new in this installation."""

    def new(self, prefix: str) -> str:
        """Give ``<prefix>-<something new>``, safe in paths and URLs."""

    def token(self) -> str:
        """Give an unguessable token."""


class RandomIds:
    """Short random ids (40 bits): nobody coordinates, nobody reads 36 hex digits aloud."""

    def new(self, prefix: str) -> str:
        """Give ``<prefix>-<8 characters>``."""
        return f"{prefix}-{''.join(secrets.choice(_ALPHABET) for _ in range(8))}"

    def token(self) -> str:
        """Give 256 random bits as text."""
        return secrets.token_urlsafe(32)


class CountedIds:
    """``<prefix>-000001`` and so on: the same calls give the same ids."""

    def __init__(self) -> None:
        """Start counting at one."""
        self._count = 0

    def new(self, prefix: str) -> str:
        """Give the next id."""
        self._count += 1
        return f"{prefix}-{self._count:06d}"

    def token(self) -> str:
        """Give a token that is different each time but no secret."""
        return self.new("token")
